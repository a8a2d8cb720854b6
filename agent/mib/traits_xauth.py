"""Traits of XAUTH users, ISDN numbers and look-ups at RADIUS: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecDialIfIndex": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Nothing yet: which peer the numbers belong to; creates the row",
        mechanism="none",
        limit=(
            "Rows are only stored as yet. No ISDN hardware; value = ipsecPeerIndex or that + 100000, both"
            " accepted; rows kept for callback by SIP (later); row state unused"
        ),
    ),
    "ipsecDialDirection": Traits(
        deletes=4,
        stage="later",
        effect="Nothing yet: call direction; delete removes the row",
        mechanism="none",
        limit="No ISDN hardware; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecDialNumber": Traits(
        stage="later",
        effect="Nothing yet: the other side's number",
        mechanism="none",
        limit=(
            "No ISDN hardware; SIP: user part of the calling or called URI; rows kept for callback by SIP"
            " (later); row state unused"
        ),
    ),
    "ipsecDialSubAddress": Traits(
        stage="later",
        effect="Nothing yet: the other side's subaddress",
        mechanism="none",
        limit=(
            "No ISDN hardware; SIP: isub parameter (RFC 4715); rows kept for callback by SIP (later); row state unused"
        ),
    ),
    "ipsecDialTypeOfSubAddr": Traits(
        stage="later",
        effect="Nothing yet: kind of that subaddress",
        mechanism="none",
        limit="No ISDN hardware; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecDialLocalNumber": Traits(
        stage="later",
        effect="Nothing yet: own number",
        mechanism="none",
        limit="No ISDN hardware; SIP: our own URI; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecDialLocalSubAddress": Traits(
        stage="later",
        effect="Nothing yet: own subaddress",
        mechanism="none",
        limit="No ISDN hardware; SIP: isub parameter; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecDialTypeOfLocalSubAddr": Traits(
        stage="later",
        effect="Nothing yet: kind of own subaddress",
        mechanism="none",
        limit="No ISDN hardware; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecDialAdminStatus": Traits(
        stage="later",
        effect="Nothing yet: entry on or off",
        mechanism="none",
        limit="No ISDN hardware; rows kept for callback by SIP (later); row state unused",
    ),
    "ipsecRadiusDynamicAuthentication": Traits(
        stage="later",
        effect="enabled: an unknown initiator is looked up at RADIUS and gets a peer of its own",
        mechanism="plan.ike",
        limit="charon cannot wait for the answer, so the first attempt of an unknown peer fails",
    ),
    "xauthPrfIndex": Traits(
        role=Role.INDEX_CREATING,
        stage="later",
        effect="Chooses the number peers refer to; creates the row",
        mechanism="store",
        limit="Rows are only stored as yet. Value must equal the instance number",
    ),
    "xauthPrfDescription": Traits(
        stage="later",
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
    ),
    "xauthPrfRole": Traits(
        stage="later",
        effect="server: callers must log in; client: we log in",
        mechanism="plan.ike",
        limit="IKEv1 only",
        disturbs="renegotiates peer",
    ),
    "xauthPrfMode": Traits(
        stage="later",
        effect="Users come from our list or from RADIUS",
        mechanism="plan.ike",
        limit="radius for role client refused",
        disturbs="renegotiates peer",
    ),
    "xauthPrfAAAServerGroupId": Traits(
        stage="later",
        effect="RADIUS servers of this group are asked",
        mechanism="charon.conf",
        limit=(
            "eap-radius has one server list for all: rows of only one group can be active at a time (second"
            " group: rows failed)"
        ),
    ),
    "xauthPrfUserListGroupId": Traits(
        stage="later",
        effect="Only users of this group may log in",
        mechanism="plan.credentials",
        limit=(
            "charon looks users up by name only: same name in two groups is inconsistentValue; a user of another"
            " group is ended by the monitor at remote-xauth-id"
        ),
    ),
    "xauthPrfTimeout": Traits(
        stage="later",
        effect="Nothing: replaced by ipsecGlobContXauthTimeout",
        mechanism="none",
        limit="Vendor calls it obsolete; only stored",
    ),
    "xauthPrfAdminStatus": Traits(
        deletes=2,
        stage="later",
        effect="delete removes the row",
        mechanism="store",
        limit="Used rows cannot be deleted",
        disturbs="renegotiates peer",
        shown="tests/test_mib_facts.py::test_rows_go_by_the_published_value",
    ),
    "xauthUserListIndex": Traits(
        role=Role.INDEX_CREATING,
        stage="later",
        effect="Chooses the row number; creates the row",
        mechanism="store",
        limit="Rows are only stored as yet. Value must equal the instance number",
    ),
    "xauthUserListGroupId": Traits(
        stage="later",
        effect="User belongs to this group",
        mechanism="plan.credentials",
    ),
    "xauthUserListName": Traits(
        stage="later",
        effect="Login name (server) or the name we log in with (client)",
        mechanism="plan.credentials",
    ),
    "xauthUserListPassword": Traits(
        role=Role.SECRET,
        sealed_in="xauthUserListPasswordData",
        stage="later",
        effect="The password must match; reads back as *",
        mechanism="plan.credentials",
        limit="authPriv or loopback only; writing * keeps the old one",
    ),
    "xauthUserListPasswordData": Traits(
        role=Role.SEALED,
        stage="later",
        effect="Hidden column with the sealed password",
        mechanism="store",
        limit="not-accessible",
    ),
    "xauthUserListAdminStatus": Traits(
        deletes=2,
        stage="later",
        effect="delete removes the user, who can log in no more",
        mechanism="store",
        limit="A logged-in user stays until rekey unless the monitor ends him (it does)",
        shown="tests/test_mib_facts.py::test_rows_go_by_the_published_value",
    ),
}
