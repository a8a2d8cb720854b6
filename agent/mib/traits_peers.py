"""Traits of peers and traffic rules: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPeerDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown="tests/test_daemon_settings.py::test_a_description_names_its_row_in_events",
    ),
    "ipsecPeerPeerIds": Traits(
        effect="Only a peer with this identity is accepted",
        mechanism="plan.ike",
        limit=(
            "Ranges and nets for IKEv1 only, refused for IKEv2. Of several the first is called; PSK of the peer is "
            "owned by these ids"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_identities.py::test_every_syntax; lab: identities",
    ),
    "ipsecPeerLocalAddress": Traits(
        effect="IKE and ESP leave from this address",
        mechanism="plan.ike",
        limit="Not an address of this host: row failed",
        disturbs="renegotiates peer",
        shown="lab: local_address",
    ),
    "ipsecPeerTrafficList": Traits(
        role=Role.CREATING,
        heads="ipsecTrafficTable",
        effect="The rule chain starting here belongs to this peer; creates the row",
        mechanism="plan.spd",
        limit=(
            "A list shared by two peers gives each its own child and reqid; with equal selectors the later peer's"
            " rule is `shadowed`; children of removed rules are terminated, others stay"
        ),
        disturbs="renegotiates peer",
        shown=("tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; tests/test_plan_oracle.py::test_packet"),
    ),
    "ipsecPeerDynamicAddress": Traits(
        effect="The tunnel goes to this address or host name; empty: the peer must call us",
        mechanism="plan.ike",
        limit=(
            "PSK main mode with an empty address works only with the PSK owned by the address: aggressive or "
            "IKEv2 needed, row says so"
        ),
        disturbs="renegotiates peer",
        shown="lab: name_moves; lab: responder_only; lab: unknown_address",
    ),
    "ipsecPeerVirtualInterface": Traits(
        effect="An interface with number peer + 100000 appears; all that is routed to it is encrypted",
        mechanism="backends.link",
        limit=(
            "Kernel without xfrm_interface (User Mode Linux): row failed with reason; peers 1..2147383647; what"
            " is forwarded out of it passes a default rule of drop only where there is nftables. IPv6 from this host"
            " into it: the kernel asks the policies before it knows the interface, nftables has it ask again; where a"
            " rule of a peer or the post list, or the default rule, drops such packets, only those pass that come from"
            " an address of ipsecGwPeerAddressTable and go where its routes or -syncrt selectors lead. Without nftables"
            " they need a pass rule, and a rule of another peer that fits them has them"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: start_with_interfaces; lab: routed; lab: own_ipv6; "
            "tests/test_interfaces_kernel.py::"
            "test_ipv6_packets_of_the_gateway_take_the_interface_under_a_default_rule_that_drops; "
            "tests/test_interfaces_kernel.py::test_a_virtual_interface_with_address_and_route_comes_and_goes_by_set;"
            " "
            "tests/test_plan_interfaces.py::test_its_traffic_list_is_ignored_and_everything_is_protected_by_its_own_policies"
        ),
    ),
    "ipsecPeerStartMode": Traits(
        effect="on-demand: first packet starts the tunnel; always-up: it stands without traffic and returns by itself",
        mechanism="monitor",
        limit="always-up without address of the peer: row says it waits for the peer",
        shown="lab: always_up",
    ),
    "ipsecPeerPreSharedKey": Traits(
        role=Role.SECRET,
        sealed_in="ipsecPeerPreSharedKeyData",
        effect="Both sides need the same key; reads back as *",
        mechanism="plan.credentials",
        limit=(
            "Running SAs live on until their next authentication (v1: next renewal of phase 1); empty: PSK peers "
            "failed with 'no pre-shared key'; not shown, logged or exported; settable only by authPriv or "
            "loopback; writing * keeps the old key"
        ),
        shown="lab: wrong_key",
    ),
    "ipsecPeerIsdnCB": Traits(
        stage="later",
        effect="Nothing yet: a call that wakes the other side",
        mechanism="none",
        limit=(
            "No ISDN hardware; nearest equivalent is a SIP call (RFC 7433 user-to-user data) as trigger, planned "
            "later; until then anything but disabled is refused"
        ),
    ),
    "ipsecPeerPriority": Traits(
        effect="Of two peers whose nets overlap the lower number gets the packet",
        mechanism="plan.spd",
        limit="charon chooses its connection by identities and addresses, not by this",
        shown="tests/test_plan_oracle.py::test_packet; lab: priority; lab: overlapping_peers",
    ),
    "ipsecPeerIkeProfile": Traits(
        refers="ikeProfileTable",
        refers_else=("ipsecPeerIkeVersion", 2, "ikev2ProfileTable"),
        effect="Phase 1 settings come from this row of the v1 or v2 profile table",
        mechanism="plan.ike",
        limit="Missing row: inconsistentValue; changing IkeVersion re-checks it",
        disturbs="renegotiates peer",
        shown=(
            "lab: settings; "
            "lab: profiles; "
            "tests/test_profile_references.py::test_the_version_says_which_table_has_to_have_the_row"
        ),
    ),
    "ipsecPeerIpsecProfile": Traits(
        refers="ipsecProfileTable",
        effect="Phase 2 settings of rules without own profile come from this row",
        mechanism="plan.ike",
        limit="Missing row: inconsistentValue",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ike.py::test_the_phase_2_profile_is_the_rules_then_the_peers_then_the_global_one",
    ),
    "ipsecPeerAdminStatus": Traits(
        deletes=15,
        effect=(
            "up: usable; down: tunnel ends and stays down; dialup: one attempt now; callback: as if called; "
            "delete removes the peer"
        ),
        mechanism="monitor",
        limit="Repeated dialup needs the reset to up, else diff is empty; callback without ISDN equals dialup",
        disturbs="renegotiates peer",
        shown="lab: admin_status",
    ),
    "ipsecPeerPreSharedKeyData": Traits(
        role=Role.SEALED,
        effect="Hidden column: not reachable by SNMP; holds the sealed key",
        mechanism="store",
        limit="not-accessible: no read, no write by SNMP",
    ),
    "ipsecPeerIsdnCBMode": Traits(
        stage="later",
        effect="Nothing: choice of ISDN B or D channel",
        mechanism="none",
        limit="No ISDN; no SIP counterpart",
    ),
    "ipsecPeerIsdnCBDChanMode": Traits(
        stage="later",
        effect="Nothing: which ISDN element carries address and token",
        mechanism="none",
        limit="No ISDN; with SIP the user-to-user header is the only place",
    ),
    "ipsecPeerType": Traits(
        stage="later",
        effect="dynamic-client: one row serves many callers, each with policies of its own",
        mechanism="plan.ike",
        limit="Needs identity wildcard or certificates; refused until built (stage later)",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerDynAddrPoolId": Traits(
        stage="later",
        effect="Callers get an address of this pool",
        mechanism="plan.ike",
        limit="The MIB has no pool table: EXT table needed; charon refuses a pool without addrs",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerDynAddrLocalIp": Traits(
        stage="later",
        effect="Own inner address towards pool clients",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerXauthProfile": Traits(
        stage="later",
        refers="xauthProfileTable",
        effect="A login is asked for, or given, after phase 1",
        mechanism="plan.ike",
        limit="IKEv1 only; with IKEv2 refused (EAP is the equivalent)",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerDynAddrRole": Traits(
        stage="later",
        effect="client: we ask for an inner address; server: we give one",
        mechanism="plan.ike",
        limit="server with no valid pool acts as none, row says so",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerIkeVersion": Traits(
        effect="The peer speaks IKEv1 or IKEv2 only",
        mechanism="plan.ike",
        limit="ikev2 while ipsecGlobIkev2Enabled=false: row unused",
        disturbs="renegotiates peer",
        shown="lab: start_version2",
    ),
    "ipsecPeerLocalId": Traits(
        effect="Own identity of an IKEv2 peer",
        mechanism="plan.ike",
        limit="Ranges and nets refused; ignored with IKEv1 (row unaffected)",
        disturbs="renegotiates peer",
        shown="tests/test_identities.py::test_who_we_say_we_are; lab: rsa_ikev2",
    ),
    "ipsecPeerAuthMethod": Traits(
        effect="IKEv2 peer proves itself by PSK or certificate",
        mechanism="plan.ike",
        limit="dss-sig 2 refused; ignored with IKEv1",
        disturbs="renegotiates peer",
        shown="lab: rsa_ikev2",
    ),
    "ipsecPeerCert": Traits(
        refers="certTable",
        effect="Own certificate of an IKEv2 peer",
        mechanism="plan.credentials",
        limit="ignored with PSK or IKEv1",
        disturbs="renegotiates peer",
        shown="tests/test_plan_certificates.py::test_which_certificate_is_ours; lab: rsa_ikev2",
    ),
    "ipsecPeerCaCerts": Traits(
        effect="CAs accepted for an IKEv2 peer",
        mechanism="plan.credentials",
        disturbs="renegotiates peer",
        limit="Ignored with IKEv1. As ikePrfCaCerts",
        shown=(
            "tests/test_plan_certificates.py::test_a_list_of_authorities_is_what_a_peer_may_come_from; lab: rsa_ikev2"
        ),
    ),
    "ipsecPeerDynAddrMode": Traits(
        stage="later",
        effect="Client asks (pull) or gateway tells (push)",
        mechanism="plan.ike",
        limit="IKEv2 has pull only: push with ikev2 refused",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerMobike": Traits(
        effect="The tunnel survives a change of our or the peer's address (IKEv2)",
        mechanism="plan.ike",
        limit="MOBIKE floats to port 4500; ignored with IKEv1; NatT disabled turns it off",
        disturbs="renegotiates peer",
        shown="lab: address_change",
    ),
    "ipsecPeerPublicIfIndex": Traits(
        effect="Own calls leave by this interface",
        mechanism="plan.ike",
        limit="Link without an address of the family, or gone: row failed; responder ignores it",
        disturbs="renegotiates peer",
        shown="lab: public_link; tests/test_interfaces_kernel.py::test_a_peer_is_called_by_the_link_chosen_or_fails",
    ),
    "ipsecPeerPublicIfIndexMode": Traits(
        effect="force: even against a better route; preferred: only if no better route exists",
        mechanism="backends.link",
        limit="preferred: our address on the link is used where the route to the peer already goes by it",
        disturbs="renegotiates peer",
        shown=(
            "lab: public_link; tests/test_plan_interfaces.py::test_preferred_makes_no_route_and_yields_to_a_better_one"
        ),
    ),
    "ipsecPeerChildAllocMode": Traits(
        effect="single: one SA pair for everything of the peer; multi: one per rule (IKEv2)",
        mechanism="plan.ike",
        limit=(
            "IKEv1 with single: ignored (one selector pair per child); single has the peer's phase 2 profile, not "
            "the rules', and is always in tunnel mode"
        ),
        disturbs="renegotiates peer",
        shown="lab: single_child",
    ),
    "ipsecPeerIfStateMode": Traits(
        effect="full: the interface shows dormant and blocked; reduced: only up or down",
        mechanism="backends.link",
        limit=(
            "Only always-up peers with virtual interface; blocked takes the interface down, since no XFRM "
            "interface can be made to show lowerLayerDown"
        ),
        shown=(
            "lab: standing; "
            "tests/test_links.py::test_a_link_shows_how_its_peer_is; "
            "tests/test_peer_states.py::test_an_interface_shows_dormant_up_and_blocked"
        ),
    ),
    "ipsecPeerSecondaryPeerIndex": Traits(
        effect="When this peer cannot be reached the backup peer takes over its traffic",
        mechanism="monitor",
        limit=(
            "Refused unless always-up and IfStateMode reduced (SET of all three at once is fine); itself or a "
            "ring: inconsistentValue. It takes over the nets that its own list has too, or the routes of a "
            "virtual interface; not while the primary is switched off. Of a backup that is lost itself, or switched "
            "off, its own backup takes over; who stands for whom outlives the agent"
        ),
        shown=(
            "lab: backup; "
            "tests/test_peer_states.py::test_the_backup_of_a_lost_backup_stands_for_both; "
            "tests/test_plan_interfaces.py::test_the_backup_peers_tunnel_has_the_primarys_traffic"
        ),
    ),
    "ipsecPeerDelayBackToPrimary": Traits(
        effect="Return to the recovered primary waits this long",
        mechanism="monitor",
        limit="Counted from the moment the primary is up",
        shown="lab: backup; tests/test_peer_states.py::test_the_primary_gets_its_traffic_back_after_the_delay",
    ),
    "ipsecTrNextIndex": Traits(
        links="ipsecTrafficTable",
        effect="Puts the next rule behind this one",
        mechanism="plan.spd",
        limit="Ring: inconsistentValue",
        shown=(
            "tests/test_plan_first_match.py::test_the_first_rule_that_matches_decides;"
            " tests/test_xfrm_packets.py::test_packets_fare_as_explain_says"
        ),
    ),
    "ipsecTrDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_explain_command.py::test_the_deciding_rule_is_named_and_why; "
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events"
        ),
    ),
    "ipsecTrLocalAddress": Traits(
        effect="Packets of this local host, net or range start match",
        mechanism="plan.spd",
        limit=(
            "Host bits beyond the mask are inconsistentValue; 0.0.0.0 with mask 0 = any; pass and drop rules "
            "disturb nothing"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says",
    ),
    "ipsecTrLocalMaskLen": Traits(
        effect="Size of the local net; 32 is one host",
        mechanism="plan.spd",
        limit=(
            "0 (no DEFVAL) with a non-zero address is inconsistentValue: a forgotten mask must not widen a host "
            "to everything"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says",
    ),
    "ipsecTrLocalRange": Traits(
        effect="The rule covers local addresses up to this one",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit=(
            "End below start: inconsistentValue. A range takes at most 62 prefixes (IPv6: 254), five policies"
            " each; two ranges together at most 1,024 pairs, more is inconsistentValue (row failed where it"
            " gets in otherwise). The tunnel is negotiated for the range as it is"
        ),
        shown=(
            "tests/test_xfrm_packets.py::test_a_range_begins_and_ends_where_it_says;"
            " tests/test_plan_traffic.py::test_two_ranges_are_bounded; lab: ranges"
        ),
    ),
    "ipsecTrRemoteAddress": Traits(
        effect="Packets to this remote host, net or range start match",
        mechanism="plan.spd",
        limit="as LocalAddress",
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says",
    ),
    "ipsecTrRemoteMaskLen": Traits(
        effect="Size of the remote net",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says",
    ),
    "ipsecTrRemoteRange": Traits(
        effect="The rule covers remote addresses up to this one",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit="As ipsecTrLocalRange",
        shown=(
            "tests/test_xfrm_packets.py::test_a_range_begins_and_ends_where_it_says;"
            " tests/test_plan_traffic.py::test_all_prefixes_of_a_range_share_one_child_and_its_reqid; lab:"
            " ranges"
        ),
    ),
    "ipsecTrProto": Traits(
        role=Role.CREATING,
        effect="Only packets of this protocol match; creates the row",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        shown=("tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; tests/test_plan_oracle.py::test_packet"),
    ),
    "ipsecTrLocalPort": Traits(
        effect="Only this local port matches",
        mechanism="plan.spd",
        limit="Only tcp, udp, sctp, udplite: else inconsistentValue; ICMP type and code have no object",
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; lab: ports",
    ),
    "ipsecTrRemotePort": Traits(
        effect="Only this remote port matches",
        mechanism="plan.spd",
        limit="as LocalPort",
        disturbs="renegotiates peer",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; lab: ports",
    ),
    "ipsecTrAction": Traits(
        deletes=1,
        effect="Packets are encrypted, pass, are dropped, or pass before all rules; delete removes the rule",
        mechanism="plan.spd",
        limit="protect is refused in pre and post lists; one that gets there otherwise is skipped, row unused",
        disturbs="renegotiates peer",
        shown=(
            "tests/test_xfrm_packets.py::test_packets_fare_as_explain_says;"
            " tests/test_plan_oracle.py::test_packet; lab: around_peers"
        ),
    ),
    "ipsecTrInterface": Traits(
        effect="The rule counts only on this interface",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit=(
            "Number of the interface, -1 or 0 for any. What leaves: the kernel's own selector, but of IPv6"
            " packets that the gateway itself makes it asks before it knows the interface. nftables has it ask again,"
            " so that they too meet rules that drop, protect and pass, but one that a later rule or the default rule"
            " drops is gone by then (row says so); one that waits for a tunnel is an error (EREMOTE) to its program;"
            " without nftables these packets meet no such rule. What arrives: nftables marks it with the number in"
            " the upper 20 bits of the packet's mark (policy routing: use masks within the lower 12); without nftables"
            " a rule with an inbound part is failed, protect and drop then drop what leaves. An interface that is not"
            " there is waited for (row pending); numbers up to 1,048,574"
        ),
        shown=(
            "tests/test_xfrm_packets.py::test_packets_fare_as_explain_says;"
            " tests/test_xfrm_packets.py::test_an_interface_is_the_one_a_packet_leaves_or_came_by;"
            " tests/test_reconcile_kernel.py::test_a_rule_waits_for_its_interface_and_what_comes_by_it_is_marked;"
            " tests/test_xfrm_packets.py::test_ipv6_packets_of_the_gateway_meet_a_rule_about_an_interface;"
            " tests/test_xfrm_packets.py::test_an_ipv6_packet_of_the_gateway_meets_the_first_of_two_rules;"
            " tests/test_xfrm_packets.py::test_what_a_later_rule_drops_is_gone_before_the_interface_is_known;"
            " lab: compressed_over_ipv6;"
            " lab: interface_without_nftables; lab: protected_on_one_interface; lab: dropped_on_one_interface"
        ),
    ),
    "ipsecTrDirection": Traits(
        effect="A pass or drop rule counts for both directions or one",
        mechanism="plan.spd",
        limit="Ignored by protect",
        shown=("tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; tests/test_plan_oracle.py::test_packet"),
    ),
    "ipsecTrLocalAddressType": Traits(
        effect="ph1: the rule covers our own outer address, whatever it is just now",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit=(
            "ph1 in pre and post lists: our address on the default route, row pending without one. Of a peer"
            " that has to call: known once it has called; pass and drop rules of its list then still wait"
        ),
        shown=(
            "tests/test_xfrm_packets.py::test_the_own_address_is_that_of_the_default_route;"
            " tests/test_plan_traffic.py::test_outer_addresses_are_followed; lab: outer_addresses; lab:"
            " own_address_moves"
        ),
    ),
    "ipsecTrRemoteAddressType": Traits(
        effect="ph1: the peer's outer address; dhcp: the client's requests to a DHCP server",
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit=(
            "ph1: in pre and post lists the peer means nothing: row unused. dhcp: UDP from port 68 of any"
            " address to port 67 (of an IPv6 rule 546 and 547), other protocols and ports are"
            " inconsistentValue; leased addresses are not followed (that needs DHCP over IPsec)"
        ),
        shown=(
            "tests/test_xfrm_packets.py::test_dhcp_is_the_clients_requests_and_the_answers;"
            " tests/test_plan_oracle.py::test_packet; lab: responder_only"
        ),
    ),
    "ipsecTrProfile": Traits(
        refers="ipsecProfileTable",
        effect="This rule has phase 2 settings of its own",
        mechanism="plan.ike",
        limit="Missing row: inconsistentValue; ignored unless protect",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
}
