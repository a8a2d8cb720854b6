"""Traits of phase 2: proposals, profiles and bundles: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPropNext": Traits(
        links="ipsecProposalTable",
        effect="Adds the next row as further alternatives",
        mechanism="plan.ike",
        limit="Ring: inconsistentValue",
        disturbs="renegotiates peer",
    ),
    "ipsecPropDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown="tests/test_daemon_settings.py::test_a_description_names_its_row_in_events",
    ),
    "ipsecPropProto": Traits(
        role=Role.CREATING,
        deletes=8,
        effect="ESP or AH; creates the row, delete removes it",
        mechanism="plan.ike",
        limit="esp-ah 3 refused: charon never makes a bundle; AH with NAT-T enforce fails",
        disturbs="renegotiates peer",
    ),
    "ipsecPropIpcomp": Traits(
        effect="Packets are compressed before encryption: never, if both can, or always",
        mechanism="plan.ike",
        limit=(
            "disabled: a peer that insists fails, one that merely offers comes up plain (charon falls back); per "
            "child: differing rows of one chain - first row rules; AH+IPComp not tried"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspAes": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspTwofish": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Private number: charon.accept_private_algs=yes, kernel module twofish",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspBlowfish": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspCast": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspDes3": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspDes": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Weak; kernel needs des_generic; row warns",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspNull": Traits(
        effect="Cipher is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Not in one row with NoMac (guide 3.2.4): charon and kernel would accept NULL with no MAC",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspRijndael": Traits(
        effect="Old name: any rank written here becomes the AES rank",
        mechanism="store",
        limit="Naming both with different ranks in one SET: inconsistentValue",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspMd5": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspSha1": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspNoMac": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="Unauthenticated encryption: row warns; not together with NULL; combined ciphers have their own MAC",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAhMd5": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAhSha1": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
    ),
    "ipsecPropIpcompDeflate": Traits(
        effect="0: IPComp has no algorithm left and is off",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAesKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAesKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAesKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
    ),
    "ipsecPropBlowfishKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        limit=(
            "Lengths charon has: 128, 192, 256; others are rounded to the next of these and the row says so "
            "(blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPropBlowfishKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit=(
            "What is accepted is also offered; Lengths charon has: 128, 192, 256; others are rounded to the next "
            "of these and the row says so (blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPropBlowfishKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit=(
            "What is accepted is also offered; Lengths charon has: 128, 192, 256; others are rounded to the next "
            "of these and the row says so (blowfish448: VICI refuses, tried)"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPropTwofishKeySize": Traits(
        effect="Key length offered first",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropTwofishKeySizeMin": Traits(
        effect="Shortest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
    ),
    "ipsecPropTwofishKeySizeMax": Traits(
        effect="Longest key accepted",
        mechanism="plan.ike",
        limit="What is accepted is also offered",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspSha256": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        limit="256: 128-bit truncation; old peers with 96 bit need sha256_96, no object",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspSha384": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropEspSha512": Traits(
        effect="MAC is offered at this place, 0 = not at all",
        mechanism="plan.ike",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAhSha256": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAhSha384": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
    ),
    "ipsecPropAhSha512": Traits(
        effect="AH offers this MAC at this place, 0 = not",
        mechanism="plan.ike",
        limit="Only with ipsecPropProto=ah",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfDescription": Traits(
        effect="The label names the row in every log line, event, explain answer and notification about it",
        mechanism="log",
        shown="tests/test_daemon_settings.py::test_a_description_names_its_row_in_events",
    ),
    "ipsecPrfProposal": Traits(
        role=Role.CREATING,
        refers="ipsecProposalTable",
        effect="Phase 2 offers the proposals of this chain; creates the row",
        mechanism="plan.ike",
        limit="ESP and AH alternatives in one chain: charon offers only ESP; AH elements are then `failed`",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfPfsGroup": Traits(
        effect="Phase 2 keys come from their own key exchange, or not",
        mechanism="plan.ike",
        limit=(
            "3, 4, 6..13 refused; IKEv2: the first child (made with IKE_AUTH) never has one, only rekeys; a "
            "mismatch shows only then"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPrfHeartbeats": Traits(
        effect="As ikePrfHeartbeats, asked for by a phase 2 profile",
        mechanism="plan.ike",
        limit=(
            "charon has no liveness per child: all bundles of the peer share the verdict; differing values of two"
            " rules are joined"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPrfPmtuDiscovery": Traits(
        effect=(
            "enabled: the DF bit goes to the outer packet and path MTU is learnt; disabled: outer packets may be "
            "fragmented"
        ),
        mechanism="plan.ike",
        limit="Guide says the default is 'no', MIB says enabled globally: MIB followed",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfGranularity": Traits(
        stage="gateway",
        effect="One SA pair per rule (coarse), per host pair (ip), per protocol or per port pair",
        mechanism="plan.spd",
        limit=(
            "The wide template's larval state silences further acquires for xfrm_acq_expires (5 s): a second flow"
            " starts up to 5 s late; unused fine children are closed by inactivity"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPrfKeepAlive": Traits(
        deletes=4,
        effect="true: idle SAs are rekeyed; false: an SA unused for a whole period lapses; delete removes the row",
        mechanism="plan.ike",
        limit="charon closes the idle SA at that age instead of merely not rekeying it",
        disturbs="renegotiates peer",
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
        stage="gateway",
        effect=(
            "true: tunnel mode always; false: transport where the rule covers just the two gateways; tp-greip: "
            "transport with GRE inside"
        ),
        mechanism="plan.spd",
        limit=(
            "v1: far side with tunnel: INVALID_ID_INFORMATION; v2: comes up as tunnel silently, we follow it; "
            "value 4 refused"
        ),
        disturbs="renegotiates peer",
    ),
    "ipsecPrfLifeSeconds": Traits(
        effect="Phase 2 SAs are never older than this",
        mechanism="plan.ike",
        limit="A rule rekeys with the settings it came up with until renegotiated",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfLifeKBytes": Traits(
        effect="Phase 2 SAs are replaced after this many kB",
        mechanism="plan.ike",
        limit="Counted per direction by the kernel; with IPComp after compression",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfLifeRekeyPercent": Traits(
        effect="Rekeying starts at this share of time and volume",
        mechanism="plan.ike",
        limit="100 = rekey_time just below life_time (at least 2 s before)",
        disturbs="renegotiates peer",
    ),
    "ipsecPrfLifePolicy": Traits(
        effect="Other lifetimes from the peer are taken, or the SA is ended",
        mechanism="monitor",
        limit="strict acts just after the SA is up; no RESPONDER-LIFETIME is sent; IKEv2 does not negotiate lifetimes",
    ),
    "ipsecBundleState": Traits(
        deletes=3,
        stage="gateway",
        effect="delete ends the SAs of the bundle",
        mechanism="monitor",
        limit="Any other value than delete answers inconsistentValue (the state is live)",
        disturbs="renegotiates peer",
    ),
}
