"""Traits of RADIUS servers: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "radiusSrvProtocol": Traits(
        role=Role.CREATING,
        stage="later",
        effect="Says what the server is asked for and creates the row",
        mechanism="plan.ike",
        limit=(
            "Rows are only stored as yet. Module 6.1.2 knows 1..3; 4..6 come from release 10.2.3. wpa802-1x(5)"
            " has no use here"
        ),
    ),
    "radiusSrvAddress": Traits(
        stage="later",
        effect="Is the address the requests go to",
        mechanism="charon.conf",
        limit="IPv4 only; a change reloads charon settings",
    ),
    "radiusSrvPort": Traits(
        stage="later",
        effect="Is the UDP port of the server",
        mechanism="charon.conf",
        limit="No range in the MIB: 0..65535 by us",
    ),
    "radiusSrvSecret": Traits(
        role=Role.SECRET,
        sealed_in="radiusSrvSecretData",
        stage="later",
        effect="Authenticates and hides the traffic with the server",
        mechanism="plan.credentials",
        limit="Must stand in plain in charon's configuration under /run (0600)",
    ),
    "radiusSrvSecretData": Traits(
        role=Role.SEALED,
        stage="later",
        effect="Hidden column with the sealed secret",
        mechanism="store",
        limit="not-accessible",
    ),
    "radiusSrvPriority": Traits(
        stage="later",
        effect="Servers are tried from the lowest number up",
        mechanism="charon.conf",
        limit="charon spreads requests over equal preferences",
    ),
    "radiusSrvTimeout": Traits(
        stage="later",
        effect="Sets the wait for an answer in milliseconds",
        mechanism="charon.conf",
        limit=(
            "In charon one value for the plugin (option file 5.9.8): the largest of the rows; its back-off base"
            " set to 1"
        ),
    ),
    "radiusSrvRetries": Traits(
        stage="later",
        effect="Sets how many attempts fail before the server turns inactive; 0 keeps it active",
        mechanism="charon.conf",
        limit="Plugin-wide in charon, as above",
    ),
    "radiusSrvState": Traits(
        deletes=4,
        stage="later",
        effect="Shows and sets whether the server is used; delete removes the row",
        mechanism="plan.ike",
        limit="Operator may write active to force a new attempt",
    ),
    "radiusSrvPolicy": Traits(
        stage="later",
        effect="Says whether a reject is final or the next server is asked",
        mechanism="plan.ike",
        limit="charon takes every reject as final: non-authoritative works for ipsec and login rows only",
    ),
    "radiusSrvValidate": Traits(
        stage="later",
        effect="Says whether the authenticator of answers is checked",
        mechanism="plan.ike",
        limit=(
            "disabled cannot be done: charon and pyrad always verify, and we would not want it. Refused with a"
            " reason, or stored and reported"
        ),
    ),
    "radiusSrvDialout": Traits(
        stage="later",
        effect="Loads preset peers from the server at start; reload does it again",
        mechanism="plan.ike",
        limit="Dialout over ISDN has no counterpart; only IPsec peers are taken",
    ),
    "radiusSrvDefaultPW": Traits(
        role=Role.SECRET,
        sealed_in="radiusSrvDefaultPWData",
        stage="later",
        effect="Is the password sent where a request has none",
        mechanism="plan.ike",
        limit="Not used by charon",
    ),
    "radiusSrvDefaultPWData": Traits(
        role=Role.SEALED,
        stage="later",
        effect="Hidden column with the sealed password",
        mechanism="store",
        limit="not-accessible",
    ),
    "radiusSrvReloadInterval": Traits(
        stage="later",
        effect="Repeats the loading of presets every so many minutes",
        mechanism="plan.ike",
        limit="Range 0..1440",
    ),
    "radiusSrvKeepalive": Traits(
        stage="later",
        effect="Probes inactive servers so that they come back",
        mechanism="plan.ike",
        limit="Interval is not stated",
    ),
    "radiusSrvGroupId": Traits(
        stage="later",
        effect="The server belongs to this group; profiles and users name groups",
        mechanism="charon.conf",
    ),
    "radiusSrvNasLocation": Traits(
        stage="later",
        effect="Location of this gateway as told to the server",
        mechanism="charon.conf",
        limit="charon has no such attribute",
    ),
    "radiusSrvVendorMode": Traits(
        stage="later",
        effect="Dialect that the server speaks",
        mechanism="charon.conf",
        limit="Only the standard one is spoken",
    ),
    "radiusSrvGroupDescr": Traits(
        stage="later",
        effect="Label of the group",
        mechanism="log",
    ),
}
