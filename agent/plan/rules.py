"""The guide's field rules that SMI cannot say: which values of a row, and which rows of a list, fit each other.

Validators beside the table: per table a list of rules, each a pure function over the row as
it would be, with the columns it looks at. A rule is asked when a SET names one of them, or
brings the row into service; the text it answers reads `why; accepted: …`. What a SET does
not name is never held against it: a default that does not fit is reported by the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.plan import cells, traffic
from agent.plan.capabilities import ESP_CIPHERS, ESP_KEY_SIZES
from agent.plan.certificates import CA, CERTIFICATES, LIST, OWN, ListError, authority_numbers
from agent.plan.identities import IdentityError, identities, is_group
from agent.plan.lifetimes import INHERIT_LIFE
from agent.plan.model import ConfigurationView, RowChangeView, RowView
from agent.plan.phase1 import IKE_PROFILES
from agent.plan.phase2 import IPSEC_PROFILES
from agent.plan.proposals import IKE_PROPOSALS, IPSEC_PROPOSALS, NO_AEAD, V2
from agent.plan.selectors import one_port
from agent.plan.spd import TRAFFIC
from agent.plan.traffic import RuleAction, SideKind

AH: Final = 2  # ipsecPropProto
KINDS: Final = ("ipsecTrLocalAddressType", "ipsecTrRemoteAddressType")
RANGES6: Final = ("ipsecGwTrLocalRange6", "ipsecGwTrRemoteRange6")
RSA: Final = 2  # ipsecPubKeyAlgorithm
YES: Final = 1  # TruthValue
CERTIFICATE_KINDS: Final = MappingProxyType({OWN: "own(1)", CA: "ca(2)", 3: "peer(3)"})  # ipsecGwCertificateKind
INCOMING: Final = 1  # ipsecDialDirection
SERVER_SCHEMES: Final = ("http://", "ldap://")
NOWHERE: Final = bytes(4)
OUTSIDE: Final = MappingProxyType({"pre": "ipsecGlobContPreIpsecRules", "post": "ipsecGlobContPostIpsecRules"})
LEADS: Final = frozenset({*OUTSIDE.values(), "ipsecTrNextIndex"})
PLAIN_ACTIONS: Final = "accepted: ipsecTrAction pass(3), drop(5), always-plain(2)"


class After:
    """The configuration as it would be, with what several rules need of it, found once.

    Lists may be ten thousand rules long and a SET touches one or two: what was judged before it is not walked again.
    """

    def __init__(
        self, configuration: ConfigurationView, before: ConfigurationView, changes: Iterable[RowChangeView]
    ) -> None:
        self.configuration = configuration
        self._before = before
        self._changes = changes

    @cached_property
    def unreached(self) -> frozenset[int]:
        """New rules of a SET that changes neither the link of a rule that was there nor the head of a list: no list
        leads to them."""
        new = set[int]()
        for change in self._changes:
            if change.table == TRAFFIC and self._before.row_any_status(TRAFFIC, change.number) is None:
                new.add(change.number)
            elif change.columns.intersection(LEADS):
                return frozenset()
        return frozenset(new)

    def list_of(self, rule: int) -> str:
        """`pre` or `post` where that list leads to the rule, else ''."""
        return "" if rule in self.unreached else self.outside.get(rule, "")

    def head_before(self, column: str) -> int:
        value = self._before.scalar(column)
        assert isinstance(value, int)
        return value

    @cached_property
    def outside(self) -> Mapping[int, str]:
        """Rules in service that the pre or the post list leads to, with the name of the list."""
        found: dict[int, str] = {}
        for name, head in OUTSIDE.items():
            for row in self.chain(self.scalar(head)):
                found.setdefault(row.number, name)
        return found

    def chain(self, head: int) -> Iterator[RowView]:
        """Rules in service from `head` on, past those that are not; a ring, which the store refuses, ends."""
        seen = set[int]()
        while head and head not in seen:
            seen.add(head)
            row = self.configuration.row_any_status(TRAFFIC, head)
            if row is None:
                return
            if self.configuration.row(TRAFFIC, head) is not None:
                yield row
            head = cells.number(row, "ipsecTrNextIndex")

    def scalar(self, name: str) -> int:
        value = self.configuration.scalar(name)
        assert isinstance(value, int)
        return value


Problem = Callable[[RowView, After], str]


class RowRule(NamedTuple):
    """`columns` have to fit each other; the first of them that a SET names is where a misfit is told."""

    columns: tuple[str, ...]
    problem: Problem


# ---- traffic rules ------------------------------------------------------------------------


def _net(side: str) -> RowRule:
    """A net has no bits beyond its mask (guide 2.1, 3.3: Type net)."""
    address, mask, kind = f"ipsecTr{side}Address", f"ipsecTr{side}MaskLen", f"ipsecTr{side}AddressType"
    end = f"ipsecTr{side}Range"

    def problem(row: RowView, after: After) -> str:
        if cells.number(row, kind) != SideKind.FIXED or row[end] != NOWHERE:
            return ""  # own, peer and dhcp need no further settings
        return traffic.net_problem(cells.octets(row, address), cells.number(row, mask))

    return RowRule((address, mask, kind, end), problem)


def _range(side: str) -> RowRule:
    """The second address is for a range, and a range has no mask."""
    address, mask, kind = f"ipsecTr{side}Address", f"ipsecTr{side}MaskLen", f"ipsecTr{side}AddressType"
    end = f"ipsecTr{side}Range"

    def problem(row: RowView, after: After) -> str:
        if cells.number(row, kind) != SideKind.FIXED or row[end] == NOWHERE:
            return ""
        if cells.number(row, mask) not in (0, 32):
            return f"a mask goes with a net, and {end} makes this a range; accepted: {mask} 0 or 32, or {end} 0.0.0.0"
        first = cells.octets(row, address)
        if cells.octets(row, end) < first:
            return f"the range ends before it begins; accepted: {_dotted(first)} or higher, 0.0.0.0 for no range"
        return ""

    return RowRule((end, mask, address, kind), problem)


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _port(side: str) -> RowRule:
    """Ports apply to protocols that have them only (guide 2: to UDP and TCP)."""

    def problem(row: RowView, after: After) -> str:
        return traffic.port_problem(cells.number(row, "ipsecTrProto"), cells.number(row, f"ipsecTr{side}Port"))

    return RowRule((f"ipsecTr{side}Port", "ipsecTrProto"), problem)


def _net6(side: str) -> RowRule:
    """The same for an IPv6 side: prefix with a net, last address with a range."""
    names = tuple(f"ipsecGwTr{side}{what}6" for what in ("Address", "PrefixLength", "Range"))
    address, prefix, end = names
    kind = f"ipsecTr{side}AddressType"

    def problem(row: RowView, after: After) -> str:
        first, last, length = cells.octets(row, address), cells.octets(row, end), cells.number(row, prefix)
        if cells.number(row, kind) != SideKind.FIXED:
            return ""
        if not first:
            misfit = end if last else prefix if length else ""
            return f"{misfit} says nothing without {address}; accepted: it, or {address} too" if misfit else ""
        if last and length not in (0, 128):
            return f"a prefix goes with a net, and {end} makes this a range; accepted: {prefix} 0 or 128"
        if last and last < first:
            return f"the range ends before it begins; accepted: {end} from {address} on, empty for no range"
        return "" if last else traffic.net6_problem(first, length)

    return RowRule((*names, kind), problem)


def _one_family(row: RowView, after: After) -> str:
    said = [
        bool(cells.octets(row, f"ipsecGwTr{side}Address6"))
        for side in ("Local", "Remote")
        if cells.number(row, f"ipsecTr{side}AddressType") == SideKind.FIXED
    ]  # an outer address and a DHCP client are of whatever family the other side is
    if len(set(said)) < 2:
        return ""
    return "a rule is of one family; accepted: both IPv6 addresses, :: with prefix length 0 for any, or none"


def _not_too_many(row: RowView, after: After) -> str:
    """Two ranges together take the prefixes of one times those of the other."""
    family = 16 if traffic.is_ipv6(row) else 4
    local, remote = (traffic.read_side(row, side, family)[0] for side in ("Local", "Remote"))
    return traffic.parts_problem(local, remote)


def _dhcp(row: RowView, after: After) -> str:
    if cells.number(row, "ipsecTrRemoteAddressType") != SideKind.DHCP:
        return ""
    ports = [one_port(cells.number(row, f"ipsecTr{side}Port")) for side in ("Local", "Remote")]
    return traffic.dhcp_problem(cells.number(row, "ipsecTrProto"), ports)


def _own_action(row: RowView, after: After) -> str:
    """Guide 2.1 and 4.1 offer pass and drop; a protect rule would be skipped, and its operator feel safe."""
    if cells.number(row, "ipsecTrAction") != RuleAction.PROTECT or not (list_ := after.list_of(row.number)):
        return ""
    return f"rule {row.number} is in the {list_} list, where nothing is protected; {PLAIN_ACTIONS}"


def _leads_on(row: RowView, after: After) -> str:
    following = cells.number(row, "ipsecTrNextIndex")
    if not following or not (list_ := after.list_of(row.number)):
        return ""
    return _protecting(after, following, list_)


def _protecting(after: After, head: int, list_: str) -> str:
    """Why the rules from `head` on cannot be in a list. From where it began before the SET on they were judged then,
    and what the SET changes of them is judged at them."""
    known = after.head_before(OUTSIDE[list_])
    for row in after.chain(head):
        if row.number == known:
            break
        if cells.number(row, "ipsecTrAction") == RuleAction.PROTECT:
            return (
                f"rule {row.number} protects, which only rules in peers' lists can; {PLAIN_ACTIONS} in the {list_} list"
            )
    return ""


def _head(list_: str) -> RowRule:
    column = OUTSIDE[list_]

    def problem(row: RowView, after: After) -> str:
        return _protecting(after, cells.number(row, column), list_)

    return RowRule((column,), problem)


# ---- proposals ------------------------------------------------------------------------------


def _ranked(row: RowView, columns: Iterable[str]) -> list[str]:
    return [column for column in columns if cells.number(row, column) > 0]


def _null_once(row: RowView, after: After) -> str:
    """Guide 3.2.4: in a single proposal NULL is either for encryption only or for authentication only."""
    if _ranked(row, ("ipsecPropEspNull",)) and _ranked(row, ("ipsecPropEspNoMac",)):
        return (
            "neither cipher nor MAC would protect anything; accepted: a rank for one of NULL and NoMac, 0 for the other"
        )
    return ""


def _ah_without_cipher(row: RowView, after: After) -> str:
    """Guide 3.2.4: AH offers authentication only, `none` is its encryption algorithm."""
    ciphers = _ranked(row, ESP_CIPHERS)
    if cells.number(row, "ipsecGwIpsecPropAead") != NO_AEAD:
        ciphers.append("ipsecGwIpsecPropAead")
    if cells.number(row, "ipsecPropProto") == AH and ciphers:
        return f"AH does not encrypt, and {ciphers[0]} is set; accepted: rank 0 for every cipher, no Aead, or esp(1)"
    return ""


def _key_bounds(size: str) -> RowRule:
    """The shortest key accepted is not longer than the longest."""
    least, most = f"{size}Min", f"{size}Max"

    def problem(row: RowView, after: After) -> str:
        low, high = cells.number(row, least), cells.number(row, most)
        if low <= 0 or high <= 0 or low <= high:
            return ""
        return f"no key is of {low} bits or more and {high} or less; accepted: {least} up to {most}, 0 for either"

    return RowRule((least, most), problem)


# ---- certificates --------------------------------------------------------------------------


def _is_authority(row: RowView, after: After) -> str:
    if cells.number(row, "certIsCA") != YES or cells.number(row, "ipsecGwCertificateCaFlag") == YES:
        return ""
    return "the certificate does not say that it is one of an authority (basicConstraints); accepted: false(2)"


def _kind_fits(row: RowView, after: After) -> str:
    """`own` is what a private key here belongs to, `ca` what says that it is an authority."""
    can = {OWN: cells.number(row, "certPrivateKey") != 0, CA: cells.number(row, "ipsecGwCertificateCaFlag") == YES}
    kind = cells.number(row, "ipsecGwCertificateKind")
    if can.get(kind, True):
        return ""
    others = ", ".join(name for number, name in CERTIFICATE_KINDS.items() if can.get(number, True))
    why = "no private key of this gateway belongs to it" if kind == OWN else "it is none of an authority"
    return f"{why}; accepted: {others}"


def _has_key(column: str) -> RowRule:
    def problem(row: RowView, after: After) -> str:
        number = cells.number(row, column)
        certificate = after.configuration.row(CERTIFICATES, number) if number else None
        if not number or (certificate is not None and certificate["certPrivateKey"]):
            return ""
        own = [str(each.number) for each in after.configuration.rows(CERTIFICATES) if each["certPrivateKey"]]
        return f"certificate {number} has no private key here; accepted: {', '.join(['0', *own])}"

    return RowRule((column,), problem)


def _authorities(column: str) -> RowRule:
    def problem(row: RowView, after: After) -> str:
        try:
            listed = authority_numbers(cells.text(row, column))
        except ListError as error:
            return str(error)
        for number in listed:
            certificate = after.configuration.row(CERTIFICATES, number)
            if certificate is None:
                return f"there is no certificate {number}; {LIST}"
            if certificate["certIsCA"] != YES:
                return f"certificate {number} is none of a trusted authority; accepted: those with certIsCA true(1)"
        return ""

    return RowRule((column,), problem)


def _names_of_version(row: RowView, after: After) -> str:
    """Nets and ranges are identities of IKEv1 only."""
    try:
        names = identities(cells.text(row, "ipsecPeerPeerIds"))
    except IdentityError:
        return ""  # told where the value itself is looked at
    if cells.number(row, "ipsecPeerIkeVersion") != V2 or not any(map(is_group, names)):
        return ""
    return "IKEv2 has no nets and ranges as identities; accepted: single identities, or ipsecPeerIkeVersion ikev1(1)"


LISTS: Final = MappingProxyType({IKE_PROFILES: "ikePrfCaCerts", "ipsecPeerTable": "ipsecPeerCaCerts"})
"""Columns with lists of authorities, by table."""


def listed_in(configuration: ConfigurationView, number: int) -> str:
    """`ikePrfCaCerts.3`, a list that names a certificate; '' for none."""
    for table, column in LISTS.items():
        for row in configuration.rows(table):
            text = cells.text(row, column)
            try:
                if text and number in authority_numbers(text):
                    return f"{column}.{row.number}"
            except ListError:
                continue
    return ""


# ---- profiles -------------------------------------------------------------------------------


def _ends(prefix: str, pointer: str) -> RowRule:
    """A lifetime of its own has an end: seconds, kB or both (0 is no limit). The global profile's numbers always
    count."""
    columns = (f"{prefix}LifeSeconds", f"{prefix}LifeKBytes", f"{prefix}LifePolicy")

    def problem(row: RowView, after: After) -> str:
        seconds, volume, policy = (cells.number(row, column) for column in columns)
        if seconds or volume or (policy == INHERIT_LIFE and after.scalar(pointer) != row.number):
            return ""
        return f"its keys would live for ever; accepted: {columns[0]} or {columns[1]} above 0"

    return RowRule(columns, problem)


def _global_ends(table: str, prefix: str, pointer: str) -> RowRule:
    def problem(row: RowView, after: After) -> str:
        number = cells.number(row, pointer)
        profile = after.configuration.row(table, number) if number else None
        if profile is None or profile[f"{prefix}LifeSeconds"] or profile[f"{prefix}LifeKBytes"]:
            return ""
        return "keys of this profile live for ever, and others inherit it; accepted: a profile with a lifetime"

    return RowRule((pointer,), problem)


# ---- keys, servers, numbers to call ------------------------------------------------------------


def _exponent(row: RowView, after: After) -> str:
    """Guide 8: an RSA key has a public exponent, odd and above 1."""
    exponent = cells.number(row, "ipsecPubKeyPublicExponent")
    if not exponent:
        return ""
    if cells.number(row, "ipsecPubKeyAlgorithm") != RSA:
        return "only RSA keys have an exponent; accepted: 0, or ipsecPubKeyAlgorithm rsa(2)"
    return "" if exponent > 1 and exponent % 2 else "no exponent of RSA; accepted: 0 (65537 is taken), odd and above 1"


def _preference(row: RowView, after: After) -> str:
    """Guide 8: servers are asked in ascending order, from 0."""
    return "" if cells.number(row, "certServerPreference") >= 0 else "the order begins with 0; accepted: 0 and more"


def _server(row: RowView, after: After) -> str:
    url = cells.text(row, "certServerUrl").lower()
    if not url or url.startswith(SERVER_SCHEMES):
        return ""
    return f"nothing is known to ask there; accepted: {', '.join(SERVER_SCHEMES)}"


def _incoming(row: RowView, after: After) -> str:
    """Guide 3.1.1: an incoming number is compared with what the network sends, which has no leading 0."""
    number = cells.text(row, "ipsecDialNumber")
    if cells.number(row, "ipsecDialDirection") == INCOMING and number.startswith("0"):
        return f"the network sends numbers without the leading 0; accepted: {number.lstrip('0') or 'a number'}"
    return ""


RULES: Final[Mapping[str, tuple[RowRule, ...]]] = MappingProxyType(
    {
        TRAFFIC: (
            *(rule(side) for side in ("Local", "Remote") for rule in (_net, _range, _port, _net6)),
            RowRule(("ipsecGwTrLocalAddress6", "ipsecGwTrRemoteAddress6", *KINDS), _one_family),
            RowRule(("ipsecTrLocalRange", "ipsecTrRemoteRange", *RANGES6), _not_too_many),
            RowRule(("ipsecTrRemoteAddressType", "ipsecTrProto", "ipsecTrLocalPort", "ipsecTrRemotePort"), _dhcp),
            RowRule(("ipsecTrAction",), _own_action),
            RowRule(("ipsecTrNextIndex",), _leads_on),
        ),
        IPSEC_PROPOSALS: (
            RowRule(("ipsecPropEspNull", "ipsecPropEspNoMac"), _null_once),
            RowRule(("ipsecPropProto", *ESP_CIPHERS, "ipsecGwIpsecPropAead"), _ah_without_cipher),
            *(_key_bounds(size) for size in ESP_KEY_SIZES.values()),
        ),
        IKE_PROPOSALS: (_key_bounds("ikePropEncKeySize"),),
        IKE_PROFILES: (
            _ends("ikePrf", "ipsecGlobIkeProfile"),
            _has_key("ikePrfCert"),
            _authorities("ikePrfCaCerts"),
        ),
        "ipsecPeerTable": (
            _has_key("ipsecPeerCert"),
            _authorities("ipsecPeerCaCerts"),
            RowRule(("ipsecPeerPeerIds", "ipsecPeerIkeVersion"), _names_of_version),
        ),
        CERTIFICATES: (RowRule(("certIsCA",), _is_authority), RowRule(("ipsecGwCertificateKind",), _kind_fits)),
        IPSEC_PROFILES: (_ends("ipsecPrf", "ipsecGlobIpsecProfile"),),
        "ipsecPublicKeyTable": (RowRule(("ipsecPubKeyPublicExponent", "ipsecPubKeyAlgorithm"), _exponent),),
        "certServerTable": (
            RowRule(("certServerPreference",), _preference),
            RowRule(("certServerUrl",), _server),
        ),
        "ipsecDialTable": (RowRule(("ipsecDialNumber", "ipsecDialDirection"), _incoming),),
        "ipsecGlobals": (
            _global_ends(IKE_PROFILES, "ikePrf", "ipsecGlobIkeProfile"),
            _global_ends(IPSEC_PROFILES, "ipsecPrf", "ipsecGlobIpsecProfile"),
        ),
        "ipsecGlobalsContinued": (_head("pre"), _head("post")),
    }
)
"""What has to fit, by table."""
