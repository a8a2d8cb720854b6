"""Traits of IKEv2 profiles and SAs: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ikev2SaState": Traits(
        deletes=7,
        effect="delete ends the IKEv2 SA and its children",
        mechanism="monitor",
        limit="other values inconsistentValue",
        disturbs="renegotiates peer",
        shown="lab: version_2; tests/test_monitor_endings.py::test_delete_ends_it",
    ),
    "ikev2PrfIndex": Traits(
        role=Role.INDEX_CREATING,
        effect="Chooses the number peers refer to; creates the row",
        mechanism="store",
        limit="Value must equal the instance number (our rows are column.N), else inconsistentValue",
        shown=("lab: start_version2; tests/test_profile_references.py::test_a_row_in_use_stays_and_its_namesake_goes"),
    ),
    "ikev2PrfDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown=(
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events; "
            "tests/test_profile_references.py::test_the_description_names_a_profile_in_what_is_told"
        ),
    ),
    "ikev2PrfProposal": Traits(
        refers="ikeProposalTable",
        effect="IKE_SA offers the proposals of this chain",
        mechanism="plan.ike",
        limit="as ikePrfProposal",
        disturbs="renegotiates peer",
        shown="lab: profiles",
    ),
    "ikev2PrfBlockTime": Traits(
        effect="As ikePrfBlockTime for IKEv2 peers",
        mechanism="monitor",
        shown=(
            "lab: version_2; tests/test_plan_upkeep.py::test_the_block_time_of_the_own_profile_then_of_the_global_one; "
            "tests/test_monitor_states.py::test_a_peer_with_a_block_time_is_left_alone_for_so_long"
        ),
    ),
    "ikev2PrfNatT": Traits(
        deletes=4,
        effect="As ikePrfNatT; delete removes the row",
        mechanism="plan.ike",
        limit="No enforce in this table; charon cannot hide NAT-T",
        disturbs="renegotiates peer",
        shown="lab: nat_traversal; lab: profiles",
    ),
    "ikev2PrfMtuMax": Traits(
        effect="As ikePrfMtuMax",
        mechanism="backends.link",
        limit="as ikePrfMtuMax",
        shown="tests/test_plan_interfaces.py::test_mtu_comes_from_the_profile_the_global_one_or_is_built_in",
    ),
    "ikev2PrfLifeSeconds": Traits(
        effect="The IKE_SA is rekeyed within this time",
        mechanism="plan.ike",
        limit="Not negotiated in IKEv2",
        disturbs="renegotiates peer",
        shown="lab: full_and_old",
    ),
    "ikev2PrfAliveCheck": Traits(
        effect="enabled: dead peers are noticed",
        mechanism="plan.ike",
        limit="Time to verdict by ipsecGlobMaxRetries and retransmission times",
        disturbs="renegotiates peer",
        shown="lab: dead_peers",
    ),
    "ikev2PrfLifeRekeyPercent": Traits(
        effect="Rekeying starts at this share of the lifetime",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="lab: full_and_old",
    ),
}
