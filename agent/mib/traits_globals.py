"""Traits of the scalar groups: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Traits

TRAITS = {
    "ipsecGlobMaxSysLogLevel": Traits(
        effect="IPsec messages less urgent than this level no longer reach syslog or the journal",
        mechanism="log",
        limit="The audit line of a SET is not filtered (it is not an IPsec message)",
        shown="tests/test_daemon_settings.py::test_ipsec_messages_that_are_not_urgent_enough_stay_out",
    ),
    "ipsecGlobIkePort": Traits(
        effect="charon listens on another UDP port for IKE",
        mechanism="charon.conf",
        disturbs="restarts charon",
        limit=(
            "Tunnels end when it changes. Peers must know the port; there is no object for the port of a peer. "
            "4500 is refused"
        ),
        shown="tests/test_daemon_settings.py::test_the_file_says_what_the_settings_say; lab: ike_port",
    ),
    "ipsecGlobMaxRetries": Traits(
        effect="An unanswered IKE message is repeated this often before the negotiation fails",
        mechanism="charon.conf",
        limit="Counts for all peers at once; running IKE_SAs keep the old value; also the liveness test of IKEv2",
        shown="tests/test_daemon_settings.py::test_the_file_says_what_the_settings_say; lab: retries",
    ),
    "ipsecGlobRetryTimeout0milli": Traits(
        effect="First repetition of an IKE message comes after this time",
        mechanism="charon.conf",
        limit="Each gap is 1.8 times the one before; the factor is not in the MIB. Accepted from 10 ms on",
        shown="tests/test_daemon_settings.py::test_the_file_says_what_the_settings_say; lab: retries",
    ),
    "ipsecGlobRetryTimeoutMaxsec": Traits(
        effect="Growing gaps between repetitions never exceed this",
        mechanism="charon.conf",
        limit="0: the gaps grow without bound",
        shown="tests/test_daemon_settings.py::test_the_file_says_what_the_settings_say; lab: retries",
    ),
    "ipsecGlobMaxNegotiationTimeoutsec": Traits(
        effect="An IKE negotiation that is not finished after this time is given up and the peer leaves going-up",
        mechanism="monitor",
        limit=(
            "Our own negotiations by the agent's clock, those that a peer began by charon's half_open_timeout; in "
            "version 1 as XAUTH or mode config client charon also has a fixed 30 s"
        ),
        shown=(
            "lab: negotiation_timeout; tests/test_daemon_settings.py::test_each_object_is_one_setting; "
            "tests/test_monitor_states.py::test_a_negotiation_that_takes_too_long_is_given_up_and_the_reason_says_so"
        ),
    ),
    "ipsecGlobMaxIkeSas": Traits(
        effect="When more IKEv1 SAs than this exist the one that expires first is ended, then the longest idle",
        mechanism="monitor",
        limit="Kept to after establishment: the count overshoots for a moment",
        shown="lab: most_ike_sas; tests/test_monitor_phase1.py::test_the_number_of_ike_sas_is_kept_by_version",
    ),
    "ipsecGlobIgnoreCrPayloads": Traits(
        effect="true: own certificate is sent whether or not the peer asked, and its choice of CA is disregarded",
        mechanism="plan.ike",
        limit=(
            "charon still reads requests for choosing among several own certificates; we load exactly one per "
            "connection"
        ),
        disturbs="reloads connection",
        shown="lab: rsa_requests",
    ),
    "ipsecGlobNoCrPayloads": Traits(
        effect="true: our IKE messages carry no certificate request",
        mechanism="plan.ike",
        disturbs="reloads connection",
        shown="lab: rsa_requests",
    ),
    "ipsecGlobNoKeyHashPayloads": Traits(
        effect="Nothing: key hash payloads belong to RSA encryption only",
        mechanism="none",
        limit="No engine does RSA encryption, so no key hash is ever sent; false behaves as true; column tells so",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobNoCrls": Traits(
        effect="true is what always happens: CRLs are not sent inside IKE",
        mechanism="none",
        limit=(
            "charon has no code to send CRLs (it does read received ones); writing false answers "
            "inconsistentValue; equivalent: publish the CRL by HTTP or LDAP"
        ),
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobSendFullCertChains": Traits(
        effect="true: intermediate CA certificates accompany our certificate; false: only our own certificate is sent",
        mechanism="plan.credentials",
        disturbs="renegotiates peer",
        limit="With false an intermediate that is trusted itself (certIsCA) stays loaded, and is sent",
        shown="tests/test_plan_certificates.py::test_the_chain_of_an_own_certificate; lab: rsa_chain",
    ),
    "ipsecGlobTrustIcmpMsg": Traits(
        effect=(
            "true: host or port unreachable on the very first message ends the negotiation at once instead of "
            "after all repetitions"
        ),
        mechanism="monitor",
        limit="Needs CAP_NET_RAW; charon itself ignores ICMP",
        shown=(
            "lab: trusted_icmp; tests/test_monitor_phase1.py::test_icmp_ends_a_negotiation_at_once_where_it_is_trusted"
        ),
    ),
    "ipsecGlobSpiSize": Traits(
        effect="Nothing: length of zeroed SPIs in ISAKMP proposals is an option of the original IKE library",
        mechanism="none",
        limit="charon always sends an empty SPI in phase 1 proposals; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobZeroIsakmpCookies": Traits(
        effect="Nothing: see ipsecGlobSpiSize",
        mechanism="none",
        limit=(
            "charon always sends an empty SPI; accepted (the guide screen defaults to yes) and reported as "
            "without effect"
        ),
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobMaxKeyLength": Traits(
        effect="Proposals with a longer cipher key than this are neither offered nor accepted",
        mechanism="plan.ike",
        limit=(
            "Values of 256 and more change nothing (no longer key exists in the engine); a peer whose whole list "
            "is dropped is failed: 'no proposal within ipsecGlobMaxKeyLength'"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_keys_beyond_the_global_limit_are_neither_offered_nor_accepted",
    ),
    "ipsecGlobNoInitialContact": Traits(
        effect="true: our first contact message no longer tells the peer to forget older SAs",
        mechanism="plan.ike",
        limit=(
            "charon then ignores the peer's first contact too: older IKE SAs of a peer that begins anew end by dead "
            "peer detection instead of at once"
        ),
        disturbs="reloads connection",
        shown="lab: first_contact; tests/test_plan_ikev2.py::test_first_contact_is_kept_secret_where_told",
    ),
    "ipsecGlobIkeProfile": Traits(
        refers="ikeProfileTable",
        effect=(
            "Peers without an own profile, and every `default` in a v1 profile, take their values from this "
            "ikeProfile row"
        ),
        mechanism="plan.ike",
        limit="A number of no existing row is inconsistentValue",
        disturbs="renegotiates peer",
        shown="lab: settings",
    ),
    "ipsecGlobIpsecProfile": Traits(
        refers="ipsecProfileTable",
        effect=(
            "Rules and peers without an own phase 2 profile, and every `default` in one, take values from this "
            "ipsecProfile row"
        ),
        mechanism="plan.ike",
        limit="A number of no existing row is inconsistentValue",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ike.py::test_the_phase_2_profile_is_the_rules_then_the_peers_then_the_global_one",
    ),
    "ipsecGlobEnabled": Traits(
        effect=(
            "true: our policies and connections appear; false: tunnels end, all policies of ours vanish and "
            "traffic flows as if there were no IPsec"
        ),
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        shown="tests/test_reconcile_kernel.py::test_policies_follow_the_configuration_exactly",
    ),
    "ipsecGlobBlockTimeout": Traits(
        effect=(
            "Peers that have a block time give up an unfinished negotiation after this time instead of the "
            "general limit"
        ),
        mechanism="monitor",
        shown=(
            "tests/test_plan_upkeep.py::test_a_peer_with_a_block_time_has_a_limit_of_its_own_for_negotiations; "
            "lab: negotiation_timeout"
        ),
    ),
    "ipsecGlobDPDIdleThreshold": Traits(
        effect="Silence of this length makes the gateway probe the peer",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: dead_peers; tests/test_plan_ikev2.py::test_heartbeats_are_inherited_and_timed_by_the_globals",
    ),
    "ipsecGlobDPDMaxRetries": Traits(
        effect="More unanswered probes delay the verdict that a peer is dead (IKEv1)",
        mechanism="plan.ike",
        limit=(
            "Only the total time is kept: charon probes every dpd_delay, not every retry time; IKEv2 uses "
            "ipsecGlobMaxRetries and the retransmission times"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_plan_ikev2.py::test_heartbeats_are_inherited_and_timed_by_the_globals",
    ),
    "ipsecGlobDPDRetryTimeout": Traits(
        effect="Longer probe spacing delays the verdict that a peer is dead (IKEv1)",
        mechanism="plan.ike",
        limit="Spacing itself cannot be set; no effect in IKEv2",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ikev2.py::test_heartbeats_are_inherited_and_timed_by_the_globals",
    ),
    "ipsecGlobIkev2Enabled": Traits(
        effect="false: IKEv2 peers are taken down and IKEv2 requests are not answered",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown=(
            "lab: profiles; "
            "tests/test_plan_ikev2.py::test_version_2_switched_off_blocks_its_rules_and_leaves_the_others"
        ),
    ),
    "ipsecGlobContPreIpsecRules": Traits(
        heads="ipsecTrafficTable",
        effect="The rule chain starting here decides before all peers; rules before this head are ignored",
        mechanism="plan.spd",
        limit="Protect rules are refused here, and skipped (row unused) where one gets in otherwise",
        shown=("tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; tests/test_plan_oracle.py::test_packet"),
    ),
    "ipsecGlobContDefaultRule": Traits(
        effect="Packets no rule matched are discarded (drop) or pass in clear (pass)",
        mechanism="plan.spd",
        limit="A SET to drop that cuts the SET's own flow is refused without ipsecGwAllowLockout",
        shown="tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; lab: lockout",
    ),
    "ipsecGlobContUse32BitCpi": Traits(
        effect="Nothing: CPI width on the wire is fixed at 16 bits by RFC 3173 and charon",
        mechanism="none",
        limit="true refused (inconsistentValue); false is what always happens",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobContNoWellKnownCpis": Traits(
        effect="true is what always happens: CPIs are random between 256 and 61439",
        mechanism="none",
        limit=(
            "The default false (well-known CPIs) cannot be done; row reads back what was set, limit says 'CPIs "
            "are always random'"
        ),
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobContDefaultPmtuTtl": Traits(
        effect="A path MTU learnt from ICMP is forgotten after this time",
        mechanism="backends.link",
        limit=(
            "Valid for all traffic of the network namespace; Linux forgets at once, no stepwise raise; with its"
            " default the host's own value stays, or comes back"
        ),
        shown=(
            "tests/test_kernel_settings.py::test_values_are_written_and_the_hosts_own_come_back; "
            "tests/test_kernel_settings.py::test_minutes_become_seconds_and_zero_is_for_ever; "
            "lab: host_settings"
        ),
    ),
    "ipsecGlobContPrivateInterface": Traits(
        effect=(
            "Packets that claim an inside source address but do not come from this interface (or the tunnel) are "
            "dropped; negative = off"
        ),
        mechanism="backends.link",
        limit="Needs nftables; refused without. Inside addresses are the local nets of protect rules; 0 is off too",
        shown="tests/test_interfaces_kernel.py::test_a_spoofed_inside_source_is_dropped_and_counted",
    ),
    "ipsecGlobContSaSyncInterface": Traits(
        effect="true: SAs whose packets left by an interface end when that interface goes down",
        mechanism="monitor",
        limit="The interface is the one that has the outer address, not that of each route",
        shown=(
            "lab: link_down; "
            "tests/test_monitor_phase1.py::test_sas_end_with_the_interface_they_went_over_where_that_is_wanted"
        ),
    ),
    "ipsecGlobContPostIpsecRules": Traits(
        heads="ipsecTrafficTable",
        effect="The rule chain starting here decides after all peers",
        mechanism="plan.spd",
        limit="As the pre list",
        shown=("tests/test_xfrm_packets.py::test_packets_fare_as_explain_says; tests/test_plan_oracle.py::test_packet"),
    ),
    "ipsecGlobContDefaultPfsIdentity": Traits(
        effect="Default for replacing the phase 1 SA after each phase 2 (identity PFS)",
        mechanism="monitor",
        limit="as ikePrfPfsIdentity",
        shown="tests/test_plan_upkeep.py::test_a_fresh_identity_after_each_phase_2; lab: fresh_identity",
    ),
    "ipsecGlobContIkeLoggingLevel": Traits(
        effect="More or fewer details of IKE in the log",
        mechanism="log",
        limit="charon level 4 (keys in clear) is never used, 10 and more act as 9: house rule on secrets",
        shown="tests/test_daemon_settings.py::test_lines_of_charon_reach_the_agents_log; lab: retries",
    ),
    "ipsecGlobContDialBlockTime": Traits(
        stage="later",
        effect="Nothing yet: no ISDN line to block",
        mechanism="none",
        limit="No ISDN hardware; becomes live with callback by SIP (later)",
    ),
    "ipsecGlobContPfsIdentityDelay": Traits(
        effect="Time between the end of phase 2 and the replacement of phase 1",
        mechanism="monitor",
        shown=(
            "lab: fresh_identity; "
            "tests/test_monitor_phase1.py::test_identity_pfs_renews_phase_1_some_seconds_after_each_phase_2"
        ),
    ),
    "ipsecGlobContHeartbeatInterval": Traits(
        effect="Silence after which a peer under heartbeat supervision is probed",
        mechanism="plan.ike",
        limit="The vendor heartbeat packets are proprietary: DPD instead",
        disturbs="renegotiates peer",
        shown="lab: dead_peers",
    ),
    "ipsecGlobContHeartbeatTolerance": Traits(
        effect="More missed beats delay the verdict that the peer is dead (IKEv1)",
        mechanism="plan.ike",
        limit="As DPDMaxRetries",
        disturbs="renegotiates peer",
        shown="lab: dead_peers",
    ),
    "ipsecGlobContObsoleteFeatureMask": Traits(
        effect="Nothing: bits revive internals of the original packet filter",
        mechanism="none",
        limit="No such internals here; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobContP1Always": Traits(
        effect="enabled: each phase 2 rekey is preceded by a fresh phase 1 (IKEv1)",
        mechanism="monitor",
        limit="By volume just after phase 2, not before; renewals that the peer begins are not covered; IKEv1 only",
        shown=("lab: phase_1_first; tests/test_monitor_phase1.py::test_phase_1_first_renews_it_before_phase_2_is_due"),
    ),
    "ipsecGlobContHwAccel": Traits(
        effect="yes: ESP is offloaded to the network card where it can",
        mechanism="plan.ike",
        limit="Separate crypto engines are used by the kernel by itself; auto falls back silently",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ikev2.py::test_hardware",
    ),
    "ipsecGlobContSupportVarKeyLength4Twofish": Traits(
        effect="no: Twofish is offered with 128 bits only and ipsecAlgorithmTable says 128..128",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown=(
            "tests/test_plan_algorithms.py::test_twofish_is_short_where_it_may_not_vary; "
            "tests/test_keysizes.py::test_twofish_is_of_one_length_where_it_may_not_vary"
        ),
    ),
    "ipsecGlobContIkev2Profile": Traits(
        refers="ikev2ProfileTable",
        effect="IKEv2 peers without a profile, and every inherited value, use this row",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: profiles; tests/test_plan_ikev2.py::test_version_2_takes_the_peers_profile_else_the_global_one",
    ),
    "ipsecGlobContMaxIkev2Sas": Traits(
        effect="As ipsecGlobMaxIkeSas for IKEv2",
        mechanism="monitor",
        limit="as there",
        shown="tests/test_monitor_phase1.py::test_the_number_of_ike_sas_is_kept_by_version",
    ),
    "ipsecGlobContPathFinder": Traits(
        effect="Nothing: IKE and ESP in pseudo-HTTPS is proprietary",
        mechanism="none",
        limit=(
            "enabled refused (inconsistentValue); modern equivalent RFC 9329 (TCP encapsulation) is not in charon"
            " 5.9.8; NAT-T enforce is the nearest"
        ),
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobContXauthTimeout": Traits(
        stage="later",
        effect="A user has this long to answer the login prompt",
        mechanism="charon.conf",
        limit="One value for the whole of phase 1 plus XAUTH; as client charon waits a fixed 30 s for the request",
    ),
    "ipsecGlobContCompatiblity": Traits(
        effect="Nothing: chooses between two numbers for RIPEMD-160",
        mechanism="none",
        limit="No engine has RIPEMD-160; setting bit 0 is refused",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecGlobContMaxIkev2RdrEntries": Traits(
        stage="later",
        effect="0: redirects of IKEv2 gateways are not followed; else so many are remembered in ikev2RedirectTable",
        mechanism="charon.conf",
        limit="charon follows by itself; table columns of selectors stay empty",
    ),
    "ipsecGlobContMobikeFactor": Traits(
        effect="MOBIKE peers are probed this many times less often",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ikev2.py::test_version_2_probes_less_often_who_may_move_and_not_at_all_where_told",
    ),
    "ipsecGlobContDnsSelectRoundRobin": Traits(
        effect="enabled: each try at a peer with several addresses goes to the next one",
        mechanism="plan.ike",
        limit="Rotation only among answers we got; charon resolver not used",
        disturbs="reloads connection",
        shown=(
            "lab: in_turn; "
            "tests/test_plan_interfaces.py::test_after_a_failed_attempt_the_next_address_is_called_in_turn"
        ),
    ),
}
