"""Traits of the tuning group: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Traits

TRAITS = {
    "ipsecTunePeerHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneTrafHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneSaBIDHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneSAIHashLines": Traits(
        stage="gateway",
        effect="Look-up of IKE SAs stays fast with thousands of tunnels",
        mechanism="charon.conf",
        limit="Read only at start; applied at the next start of charon, row says pending until then",
        disturbs="restarts charon",
    ),
    "ipsecTuneTunRngHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneBundleIdxHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneIfcHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneDevHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneRtHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneExtRtHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneMaxCacheEntries": Traits(
        stage="gateway",
        effect="Nothing: Linux has no IPsec flow cache since 4.14",
        mechanism="none",
        limit="Only stored",
    ),
    "ipsecTuneCacheHashLines": Traits(
        stage="gateway",
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
    ),
    "ipsecTuneIPFragMaxBytes": Traits(
        effect="Memory for reassembling fragments is bounded",
        mechanism="backends.link",
        limit=(
            "Whole namespace; at the limit Linux refuses new fragments instead of dropping the oldest; with its"
            " default the host's own value stays, or comes back"
        ),
        shown="tests/test_kernel_settings.py::test_a_flood_of_fragments_is_bounded",
    ),
    "ipsecTuneIPFragMaxFragments": Traits(
        stage="gateway",
        effect="Nothing: Linux bounds memory, not the number of fragments",
        mechanism="none",
        limit="Use ipsecTuneIPFragMaxBytes",
    ),
    "ipsecTuneIPFragMaxTraces": Traits(
        stage="gateway",
        effect="Nothing: Linux bounds memory, not the number of reassemblies",
        mechanism="none",
        limit="Use ipsecTuneIPFragMaxBytes",
    ),
    "ipsecTuneAutoRehashMaxEntriesPerLine": Traits(
        stage="gateway",
        effect="Nothing: the kernel grows its XFRM hashes by itself",
        mechanism="none",
        limit="No load factor can be set; only stored",
    ),
    "ipsecTuneAutoRehashMaxRehashedEntriesPerLine": Traits(
        stage="gateway",
        effect="Nothing: the kernel grows its XFRM hashes by itself",
        mechanism="none",
        limit="No load factor can be set; only stored",
    ),
}
