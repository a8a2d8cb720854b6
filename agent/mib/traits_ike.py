"""Traits of phase 1: proposals, profiles and SAs: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ikeSaState": Traits(
        deletes=7,
        effect="delete ends the IKEv1 SA",
        mechanism="monitor",
        limit="charon ends the phase 2 SAs with it, unlike the original; other values inconsistentValue",
        disturbs="renegotiates peer",
        shown="lab: delete_sa; tests/test_monitor_endings.py::test_delete_ends_it",
    ),
    "ikePropNextChoice": Traits(
        links="ikeProposalTable",
        effect="Adds the next row as a further alternative",
        mechanism="plan.ike",
        limit="A ring is inconsistentValue; deleting a middle row, or taking it out of service, closes the chain",
        disturbs="renegotiates peer",
        shown=(
            "lab: settings; tests/test_plan_ike.py::test_a_chain_of_proposals_is_offered_in_its_order; "
            "tests/test_plan_ike.py::test_proposals_behind_one_that_is_out_of_service_are_still_offered"
        ),
    ),
    "ikePropDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events; "
            "tests/test_profile_references.py::test_the_description_names_a_profile_in_what_is_told"
        ),
    ),
    "ikePropEncAlg": Traits(
        role=Role.CREATING,
        effect="Phase 1 cipher of this alternative; creates the row",
        mechanism="plan.ike",
        limit=(
            "none 1 refused (no phase 1 without cipher); Twofish needs charon.accept_private_algs=yes (we set it;"
            " read per negotiation)"
        ),
        disturbs="renegotiates peer",
        shown="lab: phase1_version1; lab: phase1_version2",
    ),
    "ikePropHashAlg": Traits(
        deletes=1,
        effect="Phase 1 hash and PRF of this alternative; delete removes the row",
        mechanism="plan.ike",
        limit=(
            "none 2 refused; ripemd160 5 and tiger192 6 refused when named, the DEFVAL ripemd160 leaves the row "
            "`failed`"
        ),
        disturbs="renegotiates peer",
        shown="lab: phase1_version1; lab: phase1_version2",
    ),
    "ikePropGroup": Traits(
        effect="Diffie-Hellman group of this alternative where the profile names none; rules in IKEv2",
        mechanism="plan.ike",
        limit="Other numbers refused",
        disturbs="renegotiates peer",
        shown="lab: phase1_version1; lab: phase1_version2",
    ),
    "ikePropAuthMethod": Traits(
        effect="The alternative counts only for peers that authenticate this way",
        mechanism="plan.ike",
        limit="One method per connection in charon, so methods cannot be mixed in one offer; 2, 4 refused",
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_a_method_filters_the_chain",
    ),
    "ikePropEncKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        limit="Stored within the limits of ipsecAlgorithmTable; lengths between are rounded down, row says so",
        disturbs="renegotiates peer",
        shown="lab: phase1_version1; lab: phase1_version2",
    ),
    "ikePropEncKeySizeMin": Traits(
        effect="Shortest key accepted from the peer",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_what_is_accepted_lies_between_min_and_max",
    ),
    "ikePropEncKeySizeMax": Traits(
        effect="Longest key accepted from the peer",
        mechanism="plan.ike",
        limit="as Min",
        disturbs="renegotiates peer",
        shown="tests/test_plan_algorithms.py::test_what_is_accepted_lies_between_min_and_max",
    ),
    "ikePrfDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events; "
            "tests/test_profile_references.py::test_the_description_names_a_profile_in_what_is_told"
        ),
    ),
    "ikePrfAuthMethod": Traits(
        deletes=15,
        effect="Peers prove themselves by pre-shared key or RSA signature; delete removes the row",
        mechanism="plan.ike",
        limit=(
            "dss-sig 2 and rsa-enc 4 refused (inconsistentValue: charon has no DSA and reads rsa-encryption as "
            "something else)"
        ),
        disturbs="renegotiates peer",
        shown="lab: rsa_signatures",
    ),
    "ikePrfMode": Traits(
        effect="Phase 1 uses main or aggressive mode, and accepts the other one or not",
        mechanism="plan.ike",
        limit=(
            "Aggressive + PSK as responder needs "
            "charon.i_dont_care_about_security_and_use_aggressive_mode_psk=yes (reload-settings), set while such "
            "a row exists; offline dictionary attack is possible and the row warns"
        ),
        disturbs="renegotiates peer",
        shown="lab: settings; tests/test_plan_ike.py::test_modes_and_who_answers_in_the_other_one",
    ),
    "ikePrfProposal": Traits(
        role=Role.CREATING,
        refers="ikeProposalTable",
        effect="Phase 1 offers the proposals of the chain starting here; row is created by it",
        mechanism="plan.ike",
        limit="An element the engine lacks is left out and that proposal row is `failed`; none left = peer failed",
        disturbs="renegotiates peer",
        shown="lab: settings",
    ),
    "ikePrfGroup": Traits(
        effect="Phase 1 uses this Diffie-Hellman group, whatever the proposals say (IKEv1)",
        mechanism="plan.ike",
        limit="3, 4, 6..13 refused",
        disturbs="renegotiates peer",
        shown="lab: settings",
    ),
    "ikePrfCert": Traits(
        refers="certTable",
        effect="Own certificate of this number is used for RSA signatures",
        mechanism="plan.credentials",
        limit="Ignored with PSK",
        disturbs="renegotiates peer",
        shown="lab: rsa_signatures",
    ),
    "ikePrfLocalId": Traits(
        effect="We introduce ourselves by this identity; empty chooses by itself",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        limit=(
            "Nets and ranges in IKEv1 only; not matched by every peer. Empty with certificates: the first "
            "alternative name, else the subject"
        ),
        shown="tests/test_identities.py::test_every_syntax; lab: identities",
    ),
    "ikePrfCaCerts": Traits(
        effect="Only peers certified under these CAs are accepted",
        mechanism="plan.credentials",
        disturbs="renegotiates peer",
        limit=(
            "Up to 8 numbers of certTable with blanks or commas between. A number of no trusted CA certificate is "
            "inconsistentValue"
        ),
        shown=(
            "tests/test_plan_certificates.py::test_a_list_of_authorities_is_what_a_peer_may_come_from; lab: "
            "rsa_foreign_ca"
        ),
    ),
    "ikePrfPfsIdentity": Traits(
        effect="true: each phase 2 is negotiated under its own phase 1 keys",
        mechanism="monitor",
        limit="charon cannot drop phase 1 and keep phase 2: a fresh, unused phase 1 stands by instead",
        shown=(
            "lab: fresh_identity; "
            "tests/test_monitor_phase1.py::test_identity_pfs_renews_phase_1_some_seconds_after_each_phase_2"
        ),
    ),
    "ikePrfHeartbeats": Traits(
        effect="Dead peers are noticed and their SAs removed, or not",
        mechanism="plan.ike",
        limit=(
            "Vendor heartbeats are proprietary: DPD stands in; dpd cannot be limited to moments with outgoing "
            "data; one-way send is only answering"
        ),
        disturbs="renegotiates peer",
        shown="lab: dead_peers; tests/test_plan_ikev2.py::test_heartbeats_of_phase_1",
    ),
    "ikePrfBlockTime": Traits(
        effect="After a failed own attempt the peer is blocked this long; Ttl counts down",
        mechanism="monitor",
        limit="A dialup of an operator does not wait for it",
        shown=(
            "lab: block_time; tests/test_monitor_states.py::test_a_peer_with_a_block_time_is_left_alone_for_so_long"
        ),
    ),
    "ikePrfNatT": Traits(
        effect="ESP travels in UDP when NAT is found, always, or a NATed peer is refused",
        mechanism="plan.ike",
        limit="charon cannot hide NAT-T support: the vendor ids are sent also with disabled",
        disturbs="renegotiates peer",
        shown=(
            "lab: nat_traversal; "
            "tests/test_plan_ikev2.py::test_nat_traversal; "
            "tests/test_enforcement.py::test_where_nat_is_disabled_an_sa_through_nat_is_ended"
        ),
    ),
    "ikePrfMtuMax": Traits(
        effect="Packets into the tunnel are at most this large",
        mechanism="backends.link",
        limit=(
            "Virtual interface: MTU of the link. List peers: only TCP is limited, by its segment size, and "
            "needs nftables; other packets follow the kernel's path MTU"
        ),
        shown=(
            "lab: segments; "
            "tests/test_plan_interfaces.py::test_mtu_comes_from_the_profile_the_global_one_or_is_built_in; "
            "tests/test_plan_interfaces.py::test_peers_with_another_mtu_have_sets_of_their_own; "
            "tests/test_interfaces_kernel.py::test_the_kernel_takes_all_our_parts"
        ),
    ),
    "ikePrfLifeSeconds": Traits(
        effect="Phase 1 is renewed before this age and never older",
        mechanism="plan.ike",
        limit="Values 1..9 refused (bound of ours)",
        disturbs="renegotiates peer",
        shown="lab: rekeys",
    ),
    "ikePrfLifeKBytes": Traits(
        effect="Phase 1 is renewed after this many kB of IKE messages",
        mechanism="monitor",
        limit=(
            "Ours alone, not negotiated; counted where the agent has CAP_NET_RAW; below 3 a negotiation alone is more, "
            "and the row says that phase 1 is renewed all the time"
        ),
        shown=(
            "lab: kilobytes_of_phase_1; "
            "tests/test_monitor_phase1.py::test_phase_1_is_renewed_after_so_many_kilobytes_of_1000_octets; "
            "tests/test_plan_ike.py::test_a_volume_that_a_negotiation_alone_exceeds_is_taken_and_told"
        ),
    ),
    "ikePrfLifeRekeyPercent": Traits(
        effect="Phase 1 renewal starts at this share of the lifetime",
        mechanism="plan.ike",
        limit="Vendor calls it obsolete; we honour it",
        disturbs="renegotiates peer",
        shown="tests/test_plan_ike.py::test_renewal_begins_in_time",
    ),
    "ikePrfLifePolicy": Traits(
        effect="Peer proposals of other lifetimes are taken, or the SA is ended",
        mechanism="monitor",
        limit=(
            "strict: charon accepts first, so the SA lives a moment; as phase 1 responder charon does not tell "
            "the offered lifetime, so strict cannot act; notify: no RESPONDER-LIFETIME is sent; meaningless in "
            "IKEv2"
        ),
        shown="lab: strict; tests/test_monitor_tables.py::test_another_lifetime_ends_a_tunnel_only_where_strict",
    ),
}
