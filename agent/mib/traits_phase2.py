"""Traits of phase 2: proposals, profiles and bundles: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPropNext": Traits(
        links="ipsecProposalTable",
        effect="Adds the next row as further alternatives",
        mechanism="plan.ike",
        limit="Ring: inconsistentValue; deleting a middle row, or taking it out of service, closes the chain",
        disturbs="renegotiates peer",
        shown=(
            "tests/test_plan_algorithms.py::test_a_chain_of_phase_2_goes_on_with_the_next_row; "
            "tests/test_plan_ike.py::test_proposals_behind_one_that_is_out_of_service_are_still_offered"
        ),
    ),
    "ipsecPropDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events; "
            "tests/test_profile_references.py::test_the_description_names_a_profile_in_what_is_told"
        ),
    ),
    "ipsecPropProto": Traits(
        role=Role.CREATING,
        deletes=8,
        effect="ESP or AH; creates the row, delete removes it",
        mechanism="plan.ike",
        limit="esp-ah 3 refused: charon never makes a bundle; AH with NAT-T enforce fails",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropIpcomp": Traits(
        effect="Packets are compressed before encryption: never, if both can, or always",
        mechanism="plan.ike",
        limit=(
            "disabled: a peer that insists fails, one that merely offers comes up plain (charon falls back); force: "
            "the SA is up for a moment before it is ended, and carries nothing; of differing rows of one chain the "
            "first rules"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_plan_ikev2.py::test_a_forced_compression_is_never_let_through_without; "
            "tests/test_enforcement.py::test_without_forced_compression_a_child_is_ended"
        ),
    ),
    "ipsecPropEspAes": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspTwofish": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Private number: charon.accept_private_algs=yes, kernel module twofish",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspBlowfish": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspCast": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspDes3": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspDes": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Weak; kernel needs des_generic; row warns",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspNull": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Not in one row with NoMac (guide 3.2.4): charon and kernel would accept NULL with no MAC",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspRijndael": Traits(
        effect="Old name: any rank written here becomes the AES rank",
        mechanism="store",
        limit="Naming both with different ranks in one SET: inconsistentValue",
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_oldnames.py::test_a_rank_of_the_old_name_is_that_of_aes"
        ),
    ),
    "ipsecPropEspMd5": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspSha1": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspNoMac": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Unauthenticated encryption: row warns; not together with NULL; combined ciphers have their own MAC",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropAhMd5": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropAhSha1": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropIpcompDeflate": Traits(
        effect="0: IPComp has no algorithm left and is off",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2; tests/test_plan_algorithms.py::test_compression",
    ),
    "ipsecPropAesKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_plan_algorithms.py::test_what_is_accepted_lies_between_min_and_max"
        ),
    ),
    "ipsecPropAesKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_plan_algorithms.py::test_what_is_accepted_lies_between_min_and_max"
        ),
    ),
    "ipsecPropAesKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_plan_algorithms.py::test_what_is_accepted_lies_between_min_and_max"
        ),
    ),
    "ipsecPropBlowfishKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        limit=(
            "Lengths charon has: 128, 192, 256; others are rounded to the next of these and the row says so "
            "(blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropBlowfishKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit=(
            "What is accepted is also offered; Lengths charon has: 128, 192, 256; others are rounded to the next "
            "of these and the row says so (blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_other_ciphers_have_bounds_of_their_own",
    ),
    "ipsecPropBlowfishKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit=(
            "What is accepted is also offered; Lengths charon has: 128, 192, 256; others are rounded to the next "
            "of these and the row says so (blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_other_ciphers_have_bounds_of_their_own",
    ),
    "ipsecPropTwofishKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropTwofishKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_other_ciphers_have_bounds_of_their_own",
    ),
    "ipsecPropTwofishKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_other_ciphers_have_bounds_of_their_own",
    ),
    "ipsecPropEspSha256": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="256: 128-bit truncation; old peers with 96 bit need sha256_96, no object",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspSha384": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropEspSha512": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropAhSha256": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropAhSha384": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPropAhSha512": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPrfDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events; "
            "tests/test_profile_references.py::test_the_description_names_a_profile_in_what_is_told"
        ),
    ),
    "ipsecPrfProposal": Traits(
        role=Role.CREATING,
        refers="ipsecProposalTable",
        effect="Phase 2 offers the proposals of this chain; creates the row",
        mechanism="plan.ike",
        limit="ESP and AH alternatives in one chain: charon offers only ESP; AH elements are then `failed`",
        disturbs="renegotiates peer",
        shown="lab: phase2_version1; lab: phase2_version2",
    ),
    "ipsecPrfPfsGroup": Traits(
        effect="Phase 2 keys come from their own key exchange, or not",
        mechanism="plan.ike",
        limit=(
            "3, 4, 6..13 refused; IKEv2: the first child (made with IKE_AUTH) never has one, only rekeys; a "
            "mismatch shows only then"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: phase2_version1; "
            "lab: phase2_version2; "
            "tests/test_plan_algorithms.py::test_forward_secrecy_follows_every_proposal_and_is_inherited"
        ),
    ),
    "ipsecPrfHeartbeats": Traits(
        effect="As ikePrfHeartbeats, asked for by a phase 2 profile",
        mechanism="plan.ike",
        limit=(
            "IKEv1 only. charon has no liveness per child: all bundles of the peer share the verdict; differing values "
            "are joined, the strongest counts, and default wishes nothing"
        ),
        disturbs="renegotiates peer",
        shown="lab: dead_peers; tests/test_plan_ikev2.py::test_the_stronger_wish_of_both_phases_counts",
    ),
    "ipsecPrfPmtuDiscovery": Traits(
        effect=(
            "enabled: the DF bit goes to the outer packet and path MTU is learnt; disabled: outer packets may be "
            "fragmented"
        ),
        mechanism="plan.ike",
        limit="Guide says the default is 'no', MIB says enabled globally: MIB followed",
        disturbs="renegotiates peer",
        shown="lab: outer_packets",
    ),
    "ipsecPrfGranularity": Traits(
        effect=(
            "coarse: one SA pair for all that a rule protects; ip: one for each pair of hosts, proto: and protocol, "
            "port: and pair of ports; local-services: coarse, but ip for what this gateway itself talks to"
        ),
        mechanism="plan.spd",
        limit=(
            "Its first packet makes the SAs of a flow, so dialup and always-up begin none; unused for "
            "300 s they are closed. A rule has 256 flows at most, those beyond share one pair, which an event "
            "tells. ICMP has no ports here. Inward, what comes by any SA between the two gateways is "
            "taken for any flow, except from peers without a configured address. What a coarse peer negotiates for "
            "the whole rule serves all of it. ipsecPeerChildAllocMode single ignores it. A virtual interface's "
            "selectors are split as rules are"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: flows_of_hosts; lab: flows_of_ports; lab: fine_and_coarse; lab: local_services; "
            "lab: flows_of_a_caller; lab: split_by_hosts; "
            "tests/test_flows_kernel.py::test_the_kernel_takes_the_policy_of_the_flow_before_its_rules; "
            "tests/test_plan_flows.py::test_a_packet_asks_for_as_much_as_its_granularity_says; "
            "tests/test_charon_real.py::test_flows_of_one_child_are_negotiated_each_with_its_reqid"
        ),
    ),
    "ipsecPrfKeepAlive": Traits(
        deletes=4,
        effect="true: idle SAs are rekeyed; false: an SA unused for a whole period lapses; delete removes the row",
        mechanism="plan.ike",
        limit=(
            "charon closes the idle SA just before it would be renewed instead of merely not renewing it; peers that "
            "are always up keep theirs"
        ),
        disturbs="renegotiates peer",
        shown="lab: outer_packets",
    ),
    "ipsecPrfVerifyPad": Traits(
        effect="Nothing: Linux always sends self-describing padding and never checks what it receives",
        mechanism="none",
        limit=(
            "No kernel switch; false refused (old style padding cannot be sent), true accepted with 'padding is "
            "not verified'"
        ),
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecPrfForceTunnelMode": Traits(
        effect=(
            "true: tunnel mode always; false: transport where the rule covers just the two gateways; tp-greip: "
            "transport with GRE inside"
        ),
        mechanism="plan.spd",
        disturbs="renegotiates peer",
        limit=(
            "The far side has to ask for the same: with IKEv1 it refuses otherwise (INVALID_ID_INFORMATION),"
            " with IKEv2 the tunnel comes up in tunnel mode and is followed. tp-greip: GRE between the outer"
            " addresses is protected, whatever else the rule names; the GRE interface is the administrator's"
        ),
        shown=(
            "tests/test_plan_traffic.py::test_tunnel_mode_is_forced_or_transport_suffices;"
            " tests/test_plan_traffic.py::test_gre_between_the_gateways_is_what_is_protected_with_tp_greip;"
            " lab: outer_addresses; lab: gre_inside"
        ),
    ),
    "ipsecPrfLifeSeconds": Traits(
        effect="Phase 2 SAs are never older than this",
        mechanism="plan.ike",
        limit="A rule rekeys with the settings it came up with until renegotiated",
        disturbs="renegotiates peer",
        shown="lab: rekeys",
    ),
    "ipsecPrfLifeKBytes": Traits(
        effect="Phase 2 SAs are replaced after this many kB",
        mechanism="plan.ike",
        limit=(
            "Counted per direction by the kernel; with IPComp after compression. Renewal begins at LifeRekeyPercent;"
            " packets are dropped only 1,000,000 kB beyond the volume, for a fast link is through with it sooner than a"
            " renewal takes. Without LifeSeconds they are dropped at the volume itself, since charon tells the peer"
            " that number. At 1 Gbit/s 11,000 kB mean a renewal every 70 ms: set more there"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: full_and_old; lab: faster_than_a_renewal;"
            " tests/test_plan_ikev2.py::test_a_volume_is_renewed_before_packets_are_dropped"
        ),
    ),
    "ipsecPrfLifeRekeyPercent": Traits(
        effect="Rekeying starts at this share of time and volume",
        mechanism="plan.ike",
        limit="100 = rekey_time just below life_time (at least 2 s before); in IKEv1 better not the same at both "
        "ends: renewals that meet can leave each with another SA until the next",
        disturbs="renegotiates peer",
        shown="lab: rekeys; lab: full_and_old",
    ),
    "ipsecPrfLifePolicy": Traits(
        effect="Other lifetimes from the peer are taken, or the SA is ended",
        mechanism="monitor",
        limit="strict acts just after the SA is up; no RESPONDER-LIFETIME is sent; IKEv2 does not negotiate lifetimes",
        shown="lab: strict",
    ),
    "ipsecBundleState": Traits(
        deletes=3,
        effect="delete ends the SAs of the bundle",
        mechanism="monitor",
        limit="Any other value than delete answers inconsistentValue (the state is live)",
        disturbs="renegotiates peer",
        shown="lab: delete_bundle; tests/test_monitor_endings.py::test_delete_ends_it",
    ),
}
