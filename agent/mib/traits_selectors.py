"""Traits of peer selectors and internal subnets: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPeerTrafficIfindex": Traits(
        role=Role.CREATING,
        effect="Names the peer by its interface number; creates the row with the two addresses",
        mechanism="plan.ike",
        limit="No such peer: inconsistentValue",
        disturbs="renegotiates peer",
        shown="lab: selectors; tests/test_plan_interfaces.py::test_selectors_come_and_go_with_their_rows",
    ),
    "ipsecPeerTrafficDescription": Traits(
        effect="The label names the row in log lines and explain answers about it",
        mechanism="log",
        shown=(
            "tests/test_plan_interfaces.py::test_explain_names_the_selector_by_its_label; "
            "tests/test_daemon_settings.py::test_a_description_names_its_row_in_events"
        ),
    ),
    "ipsecPeerTrafficLocalAddress": Traits(
        role=Role.CREATING,
        effect="Selectors negotiated for the virtual interface are limited to this local net",
        mechanism="plan.ike",
        limit="Only for peers with virtual interface; rows of others do nothing",
        disturbs="renegotiates peer",
        shown="lab: selectors; tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own",
    ),
    "ipsecPeerTrafficLocalMask": Traits(
        effect="Size of that net",
        mechanism="plan.ike",
        limit="A dotted mask without holes",
        disturbs="renegotiates peer",
        shown=(
            "lab: selectors; "
            "tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own; "
            "tests/test_plan_interfaces.py::test_masks_have_no_holes"
        ),
    ),
    "ipsecPeerTrafficLocalPort": Traits(
        effect="Selector limited to this local port",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_port_ranges_are_counts_and_become_blocks",
    ),
    "ipsecPeerTrafficLocalPortRange": Traits(
        effect="Number of ports from LocalPort on",
        mechanism="plan.ike",
        limit=(
            "IKEv1 carries only the first port: more than one refused for v1; MIB gives end or count unclear,"
            " count taken"
        ),
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_port_ranges_are_counts_and_become_blocks",
    ),
    "ipsecPeerTrafficRemoteAddress": Traits(
        role=Role.CREATING,
        effect="As local, remote net",
        mechanism="plan.ike",
        limit="Only for peers with virtual interface; rows of others do nothing",
        disturbs="renegotiates peer",
        shown="lab: selectors; tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own",
    ),
    "ipsecPeerTrafficRemoteMask": Traits(
        effect="Size of that net",
        mechanism="plan.ike",
        limit="A dotted mask without holes",
        disturbs="renegotiates peer",
        shown="lab: selectors; tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own",
    ),
    "ipsecPeerTrafficRemotePort": Traits(
        effect="Selector limited to this remote port",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own",
    ),
    "ipsecPeerTrafficRemotePortRange": Traits(
        effect="Number of ports from RemotePort on",
        mechanism="plan.ike",
        limit="as LocalPortRange",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_port_ranges_are_counts_and_become_blocks",
    ),
    "ipsecPeerTrafficProtocol": Traits(
        effect="Selector limited to this protocol",
        mechanism="plan.ike",
        limit="255 refused: it would mean protocol 255",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_a_row_of_both_sides_is_a_child_of_its_own",
    ),
    "ipsecPeerTrafficPolicy": Traits(
        deletes=1,
        effect=(
            "The selector is for tunnels we start, the peer starts, or both; with -syncrt its packets go to the "
            "virtual interface whatever the routes say; delete removes the row"
        ),
        mechanism="monitor",
        limit=(
            "The peer's own attempt at a row of role-initiator cannot be refused by charon: it is ended just "
            "after. There is no ipExtRtTable: -syncrt makes routing rules (ip rule) of protocol 196, preferences "
            "20000 to 28191, to a table with the interface's number, for peers with a virtual interface only "
            "(refused for others). They are asked one after the other, some 10 us for a thousand; 2,048 at most. The "
            "gateway's own IPv4 packets meet them only if the program has chosen the source address; fragments have "
            "no ports. Our IKE and what this host sends to the peer's outer address are left to the main table; what "
            "it sends to another peer's is not, where the nets have both ends"
        ),
        disturbs="renegotiates peer",
        shown=(
            "lab: led_by_selector; "
            "tests/test_selector_roles.py::test_what_is_the_peers_to_begin_is_never_begun_by_us; "
            "tests/test_selector_roles.py::test_what_is_ours_to_begin_is_ended_when_the_peer_began_it; "
            "tests/test_interfaces_kernel.py::test_a_selector_leads_to_the_interface_by_set_and_leads_there_no_more"
        ),
    ),
    "ipsecPeerTrafficType": Traits(
        effect="The row gives the local side, the remote side, or both sides of a selector (IKEv2)",
        mechanism="plan.ike",
        limit="1 and 2 with IKEv1 refused (one selector pair per child)",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_local_and_remote_rows_are_one_child_with_ikev2",
    ),
    "ipsecPeerTrafficIp6LocalAddress": Traits(
        effect="IPv6 net of the local side",
        mechanism="plan.ike",
        limit="IKEv2 only, refused with IKEv1",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_local_and_remote_rows_are_one_child_with_ikev2",
    ),
    "ipsecPeerTrafficIp6LocalMaskLen": Traits(
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_local_and_remote_rows_are_one_child_with_ikev2",
    ),
    "ipsecPeerTrafficIp6RemoteAddress": Traits(
        effect="IPv6 net of the remote side",
        mechanism="plan.ike",
        limit="IKEv2 only, refused with IKEv1",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_local_and_remote_rows_are_one_child_with_ikev2",
    ),
    "ipsecPeerTrafficIp6RemoteMaskLen": Traits(
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
        shown="tests/test_plan_interfaces.py::test_local_and_remote_rows_are_one_child_with_ikev2",
    ),
    "ipsecInternalSubnetPeerIndex": Traits(
        role=Role.CREATING,
        refers="ipsecPeerTable",
        stage="later",
        effect="Names the peer whose clients are told the subnet",
        mechanism="plan.ike",
        limit=(
            "Rows are only stored as yet. Charon sends it only with a pool that has addresses (VICI refuses a"
            " pool without addrs): DynAddrRole server needed; one pool for two peers: subnets joined"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecInternalSubnetDescription": Traits(
        stage="later",
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
    ),
    "ipsecInternalSubnetAddressType": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Family of the subnet; others disable the row",
        mechanism="plan.ike",
        limit="Rows are only stored as yet. Other values: row unused",
        disturbs="renegotiates peer",
    ),
    "ipsecInternalSubnetAddress": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Subnet told to clients",
        mechanism="plan.ike",
        limit=(
            "Rows are only stored as yet. Charon sends it only with a pool that has addresses (VICI refuses a"
            " pool without addrs): DynAddrRole server needed"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecInternalSubnetPrefixLength": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Size of that subnet",
        mechanism="plan.ike",
        limit="Rows are only stored as yet",
        disturbs="renegotiates peer",
    ),
    "ipsecInternalSubnetAdminStatus": Traits(
        deletes=3,
        stage="later",
        effect="disabled: not told; delete removes the row",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
}
