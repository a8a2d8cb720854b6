"""Traits of the tuning group: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Traits

TRAITS = {
    "ipsecTunePeerHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneTrafHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneSaBIDHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneSAIHashLines": Traits(
        effect="Look-up of IKE SAs stays fast with thousands of tunnels",
        mechanism="charon.conf",
        disturbs="restarts charon",
        limit=(
            "Read only at start; applied at the next start of charon, ipsecGwIkeDaemonPending says so until then. "
            "The next power of two is taken, 65536 at most"
        ),
        shown="tests/test_daemon_settings.py::test_the_daemon_is_told_and_what_waits_is_shown",
    ),
    "ipsecTuneTunRngHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneBundleIdxHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneIfcHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneDevHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneRtHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneExtRtHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneMaxCacheEntries": Traits(
        effect="Nothing: Linux has no IPsec flow cache since 4.14",
        mechanism="none",
        limit="Only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneCacheHashLines": Traits(
        effect="Nothing: tables of kernel and agent size themselves",
        mechanism="none",
        limit="No fixed hash of this kind exists; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneIPFragMaxBytes": Traits(
        effect="Memory for reassembling fragments is bounded",
        mechanism="backends.link",
        limit=(
            "Whole namespace; at the limit Linux refuses new fragments instead of dropping the oldest; with its"
            " default the host's own value stays, or comes back"
        ),
        shown="tests/test_kernel_settings.py::test_a_flood_of_fragments_is_bounded; lab: host_settings",
    ),
    "ipsecTuneIPFragMaxFragments": Traits(
        effect="Nothing: Linux bounds memory, not the number of fragments",
        mechanism="none",
        limit="Use ipsecTuneIPFragMaxBytes",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneIPFragMaxTraces": Traits(
        effect="Nothing: Linux bounds memory, not the number of reassemblies",
        mechanism="none",
        limit="Use ipsecTuneIPFragMaxBytes",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneAutoRehashMaxEntriesPerLine": Traits(
        effect="Nothing: the kernel grows its XFRM hashes by itself",
        mechanism="none",
        limit="No load factor can be set; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
    "ipsecTuneAutoRehashMaxRehashedEntriesPerLine": Traits(
        effect="Nothing: the kernel grows its XFRM hashes by itself",
        mechanism="none",
        limit="No load factor can be set; only stored",
        shown="tests/test_without_effect.py::test_each_is_as_its_limit_says",
    ),
}
