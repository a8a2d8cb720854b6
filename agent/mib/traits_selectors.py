"""Traits of peer selectors and internal subnets: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPeerTrafficIfindex": Traits(
        role=Role.CREATING,
        stage="gateway",
        effect="Names the peer by its interface number; creates the row with the two addresses",
        mechanism="plan.ike",
        limit="Rows are only stored as yet. No such peer: inconsistentValue",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown="tests/test_daemon_settings.py::test_a_description_names_its_row_in_events",
    ),
    "ipsecPeerTrafficLocalAddress": Traits(
        role=Role.CREATING,
        stage="gateway",
        effect="Selectors negotiated for the virtual interface are limited to this local net",
        mechanism="plan.ike",
        limit="Rows are only stored as yet. Only for peers with virtual interface (list peers: row unused)",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficLocalMask": Traits(
        stage="gateway",
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficLocalPort": Traits(
        stage="gateway",
        effect="Selector limited to this local port",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficLocalPortRange": Traits(
        stage="gateway",
        effect="Number of ports from LocalPort on",
        mechanism="plan.ike",
        limit=(
            "IKEv1 carries only the first port: more than one refused for v1; MIB gives end or count unclear,"
            " count taken"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficRemoteAddress": Traits(
        role=Role.CREATING,
        stage="gateway",
        effect="As local, remote net",
        mechanism="plan.ike",
        limit="Rows are only stored as yet. Only for peers with virtual interface (list peers: row unused)",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficRemoteMask": Traits(
        stage="gateway",
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficRemotePort": Traits(
        stage="gateway",
        effect="Selector limited to this remote port",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficRemotePortRange": Traits(
        stage="gateway",
        effect="Number of ports from RemotePort on",
        mechanism="plan.ike",
        limit="as LocalPortRange",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficProtocol": Traits(
        stage="gateway",
        effect="Selector limited to this protocol",
        mechanism="plan.ike",
        limit="255 refused: it would mean protocol 255",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficPolicy": Traits(
        deletes=1,
        stage="gateway",
        effect="The selector is for tunnels we start, the peer starts, or both; delete removes the row",
        mechanism="monitor",
        limit=(
            "charon cannot refuse a child by role: a child of role-initiator that the peer started is ended by"
            " the monitor just after; ipExtRt table does not exist here, hence ip rules"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficType": Traits(
        stage="gateway",
        effect="The row gives the local side, the remote side, or both sides of a selector (IKEv2)",
        mechanism="plan.ike",
        limit="1 and 2 with IKEv1 refused (one selector pair per child)",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficIp6LocalAddress": Traits(
        stage="gateway",
        effect="IPv6 net of the local side",
        mechanism="plan.ike",
        limit="IKEv2 only, refused with IKEv1",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficIp6LocalMaskLen": Traits(
        stage="gateway",
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficIp6RemoteAddress": Traits(
        stage="gateway",
        effect="IPv6 net of the remote side",
        mechanism="plan.ike",
        limit="IKEv2 only, refused with IKEv1",
        disturbs="renegotiates peer",
    ),
    "ipsecPeerTrafficIp6RemoteMaskLen": Traits(
        stage="gateway",
        effect="Size of that net",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
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
