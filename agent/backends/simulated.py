"""Peers that exist only here: tunnels that come up, carry packets, are renewed and end, without a kernel and charon.

With it the memory backend plays its part, so that stations, shell and Setup Tool can be tried
on any machine. What happens follows from configuration and clock alone. A peer answers half
a second after it is called, unless its address is in SILENT_NET; then nothing comes back. Nobody
calls us, and no packet of a host wants a tunnel: one comes up by `dialup`, or because its peer
is always up. But of a rule whose flows have SAs of their own (ipsecPrfGranularity) two hosts
keep calling. A tunnel stands until it is ended, with its SAs renewed at the times that its
profiles say, and carries a few packets a second, more with a higher peer number.
docs/memory-backend.md tells this to operators.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import ipaddress
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from agent.backends import tasks
from agent.backends.engine import (
    ChildSa,
    IkeEvent,
    IkeEventKind,
    IkeSa,
    KernelEvent,
    KernelEventKind,
    Narrowed,
    SaCounters,
    SaRecord,
)
from agent.backends.memory import MemoryIke, MemorySpd
from agent.backends.statistics import RECEIVED, SENT
from agent.plan import numbers
from agent.plan.model import Action, Connection, Selector, Template, ViciValue
from agent.plan.negotiated import Span, span
from agent.plan.selectors import host, one_port

SILENT_NET: Final = ipaddress.ip_network("203.0.113.0/24")  # TEST-NET-3, RFC 5737
ANSWER_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 10.0  # until an attempt at a silent peer is over
TICK_SECONDS: Final = 0.2
KEPT_CALLS: Final = 100
OCTETS: Final = 84  # of each packet, as ping sends them
PACKETS: Final = 10  # a second at most: peers 10, 20, 30 … have one, peers 9, 19 … have ten
PLAIN: Final = 3  # packets a second that pass by in plain, each way
DROPPED_EVERY: Final = 5  # seconds between two packets that a drop rule catches, where there is one
CALLS_EVERY: Final = 5.0  # seconds between two packets of a host whose flow has no SA
CALLING_HOSTS: Final = 2
SOMEWHERE: Final = (  # nets of the callers and the called where a rule covers everything
    {4: bytes([192, 168, 1, 0]), 16: bytes([0xFD, 0, 0, 1]) + bytes(12)},
    {4: bytes([192, 168, 2, 0]), 16: bytes([0xFD, 0, 0, 2]) + bytes(12)},
)
TCP, HTTPS, ESP = 6, 443, 50
NO_ANSWER: Final = "no answer from the peer"
LOOPBACK: Final = {4: bytes([127, 0, 0, 1]), 16: bytes(15) + b"\x01"}

WORDS: Final[Mapping[str, str]] = {
    "aes": "AES_CBC",
    "3des": "3DES_CBC",
    "des": "DES_CBC",
    "blowfish": "BLOWFISH_CBC",
    "cast": "CAST_CBC",
    "twofish": "TWOFISH_CBC",
    "null": "NULL",
    "chacha": "CHACHA20_POLY1305",
}
CHECKS: Final[Mapping[str, str]] = {
    "md5": "HMAC_MD5_96",
    "sha1": "HMAC_SHA1_96",
    "sha256": "HMAC_SHA2_256_128",
    "sha384": "HMAC_SHA2_384_192",
    "sha512": "HMAC_SHA2_512_256",
}
PRFS: Final[Mapping[str, str]] = {
    "md5": "PRF_HMAC_MD5",
    "sha1": "PRF_HMAC_SHA1",
    "sha256": "PRF_HMAC_SHA2_256",
    "sha384": "PRF_HMAC_SHA2_384",
    "sha512": "PRF_HMAC_SHA2_512",
}
NAMED_GROUPS: Final = {"modp", "ecp", "curve"}


class Algorithms(NamedTuple):
    """What a proposal says, in the words in which charon tells what was chosen."""

    encryption: str = ""
    bits: int = 0
    integrity: str = ""
    prf: str = ""
    group: str = ""


@dataclass(eq=False)
class Tunnel:
    """A child that stands, under an IKE SA. `ends`: when it is renewed; 0 for never."""

    child: ChildSa
    association: Association
    began: float
    ends: float
    rate: int  # packets a second, each way


@dataclass(eq=False)
class Association:
    """An IKE SA. `ends`: when it is renewed; 0 for never."""

    sa: IkeSa
    began: float
    ends: float = 0.0
    tunnels: dict[str, Tunnel] = field(default_factory=dict)  # by name of the child


class SimulatedIke(MemoryIke):
    """An IKE daemon and the peers it negotiates with. `advance` lets happen what is due; while started it does that
    by itself."""

    def __init__(self, spd: SimulatedSpd, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._spd = spd
        spd.watch(self)
        self._numbers = itertools.count(1)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._associations: dict[int, Association] = {}
        self._of_connection: dict[str, dict[int, Association]] = {}
        self._attempts: set[tuple[str, str]] = set()  # connection and child
        self._calling: dict[str, Connection] = {}  # connections with rules whose flows have SAs of their own
        self._call_again = 0.0
        self._narrowed: dict[tuple[str, str], Mapping[str, ViciValue]] = {}  # by connection and flow
        self._allotted: dict[str, int] = {}  # reqids of flows
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="simulated peers")

    async def stop(self) -> None:
        await tasks.end(self._ticker)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.advance()

    def advance(self) -> None:
        """Let happen what is due by the clock, in order."""
        del self.calls[:-KEPT_CALLS], self._spd.batches[:-KEPT_CALLS]  # they are for tests
        now = self._clock()
        while self._agenda and self._agenda[0][0] <= now:
            heapq.heappop(self._agenda)[2]()
        if self._calling and now >= self._call_again:
            self._call_again = now + CALLS_EVERY
            for connection in list(self._calling.values()):
                for event in acquires(connection):
                    self._spd.emit(event)

    async def load_connection(self, connection: Connection) -> None:
        await super().load_connection(connection)
        self._calling.pop(connection.name, None)
        if connection.initiator and any(child.fine is not None for child in connection.children):
            self._calling[connection.name] = connection

    async def unload_connection(self, name: str) -> None:
        await super().unload_connection(name)
        self._calling.pop(name, None)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), what))

    # ---- what there is ------------------------------------------------------------------

    @property
    def standing(self) -> Iterator[tuple[Association, Tunnel]]:
        for association in self._associations.values():
            for tunnel in association.tunnels.values():
                yield association, tunnel

    async def list_sas(self) -> tuple[IkeSa, ...]:
        """As charon lists them, with their ages and counters."""
        self.advance()
        return tuple(self._told(association) for association in self._associations.values())

    def _told(self, association: Association) -> IkeSa:
        now = self._clock()
        left = max(1, int(association.ends - now)) if association.ends else 0
        return replace(
            association.sa,
            established=int(now - association.began) if association.sa.state == "ESTABLISHED" else 0,
            reauth_in=left if association.sa.version == 1 else 0,
            rekey_in=left if association.sa.version == 2 else 0,
            children=tuple(self._counted(tunnel) for tunnel in association.tunnels.values()),
        )

    def _counted(self, tunnel: Tunnel) -> ChildSa:
        now = self._clock()
        packets = carried(tunnel, now)
        return replace(
            tunnel.child,
            installed=int(now - tunnel.began),
            rekey_in=max(1, int(tunnel.ends - now)) if tunnel.ends else 0,
            octets_in=packets * OCTETS,
            packets_in=packets,
            octets_out=packets * OCTETS,
            packets_out=packets,
        )

    # ---- negotiations -------------------------------------------------------------------

    async def initiate(self, child: str, connection: str, reason: str, narrowed: Narrowed | None = None) -> None:
        await super().initiate(child, connection, reason, narrowed)
        if narrowed is not None and (settings := narrowed()) is not None:
            self._narrowed[connection, child] = settings
        if (connection, child) in self._attempts:
            return
        self._attempts.add((connection, child))
        wanted = self.connections.get(connection)
        if wanted is None:  # it may still be on its way to us
            self._at(self._clock() + ANSWER_SECONDS, lambda: self._call(connection, child))
        else:
            self._call(connection, child)

    def _call(self, connection: str, child: str) -> None:
        wanted = self.connections.get(connection)
        if wanted is None:
            self._over(connection, child, f"{connection} is not loaded")
            return
        found = self._of_connection.get(connection, {})
        calling = next(iter(found.values()), None) or self._associate(wanted, "CONNECTING")
        if answers(wanted.settings):
            self._at(self._clock() + ANSWER_SECONDS, lambda: self._answered(connection, child))
        else:
            self._at(self._clock() + SILENCE_SECONDS, lambda: self._silent(calling, child))

    def _established(self, connection: str) -> Association | None:
        found = self._of_connection.get(connection, {}).values()
        return next((each for each in found if each.sa.state == "ESTABLISHED"), None)

    def _forget(self, association: Association) -> bool:
        """Whether it was there."""
        of_connection = self._of_connection.get(association.sa.connection, {})
        of_connection.pop(association.sa.unique_id, None)
        if not of_connection:
            self._of_connection.pop(association.sa.connection, None)
        return self._associations.pop(association.sa.unique_id, None) is not None

    def _answered(self, connection: str, child: str) -> None:
        if (connection, child) not in self._attempts:
            return  # it was ended meanwhile
        wanted = self.connections.get(connection)
        association = self._established(connection)
        if association is None:
            calling = next(iter(self._of_connection.get(connection, {}).values()), None)
            if calling is None or wanted is None:
                self._over(connection, child, NO_ANSWER)
                return
            association = calling
            association.began = self._clock()
            association.sa = replace(association.sa, state="ESTABLISHED", responder_spi=self._spi(8))
            self._renewed_later(association, wanted)
            self._happened(IkeEventKind.IKE_UP, association)
        if wanted is not None and child not in association.tunnels:
            self._install(association, wanted, child)
            self._happened(IkeEventKind.CHILD_UP, association, self._counted(association.tunnels[child]))
        self._over(connection, child, "")

    def _silent(self, calling: Association, child: str) -> None:
        if self._forget(calling):
            self._happened(IkeEventKind.IKE_DOWN, calling)
            self._over(calling.sa.connection, child, NO_ANSWER)

    def _over(self, connection: str, child: str, text: str) -> None:
        if (connection, child) in self._attempts:
            self._attempts.discard((connection, child))
            self.emit(IkeEvent(IkeEventKind.INITIATED, connection=connection, child_name=child, text=text))

    def _associate(self, connection: Connection, state: str) -> Association:
        settings = connection.settings
        chosen = algorithms(settings.get("proposals"))
        sa = IkeSa(
            connection.name,
            next(self._numbers),
            int(str(settings.get("version", "1"))[:1] or 1) or 2,
            state,
            address(settings, "local"),
            address(settings, "remote"),
            local_id=identity(settings, "local"),
            remote_id=identity(settings, "remote"),
            initiator=True,
            initiator_spi=self._spi(8),
            responder_spi=bytes(8),
            encryption=chosen.encryption,
            encryption_bits=chosen.bits,
            integrity=chosen.integrity,
            prf=chosen.prf,
            group=chosen.group,
        )
        association = self._associations[sa.unique_id] = Association(sa, self._clock())
        self._of_connection.setdefault(sa.connection, {})[sa.unique_id] = association
        return association

    def _install(self, association: Association, connection: Connection, name: str) -> None:
        settings = self._settings_of(connection, name)
        protocol = 51 if "ah_proposals" in settings else 50
        chosen = algorithms(settings.get("esp_proposals") or settings.get("ah_proposals"))
        peer = numbers.peer_of_connection(connection.name)
        rate = peer % PACKETS + 1
        compressed = settings.get("ipcomp") == "yes"
        child = ChildSa(
            name,
            next(self._numbers),
            number(settings.get("reqid")) or self._allotted.setdefault(name, len(self._allotted) + 1),
            "INSTALLED",
            0 if settings.get("mode") == "transport" else 1,
            protocol,
            self._spi(4),
            self._spi(4),
            ipcomp=compressed,
            encryption=chosen.encryption if protocol == 50 else "",
            encryption_bits=chosen.bits if protocol == 50 else 0,
            integrity=chosen.integrity,
            group=chosen.group,
            local_selectors=texts(settings.get("local_ts")),
            remote_selectors=texts(settings.get("remote_ts")),
            cpi_in=self._spi(2) if compressed else b"",
            cpi_out=self._spi(2) if compressed else b"",
        )
        now = self._clock()
        octets = number(settings.get("rekey_bytes"))
        times = [number(settings.get("rekey_time")), octets // (rate * OCTETS)]
        ends = now + min((each for each in times if each > 0), default=0)
        tunnel = association.tunnels[name] = Tunnel(child, association, now, ends if ends > now else 0.0, rate)
        if tunnel.ends:
            self._at(tunnel.ends, lambda: self._rekey(tunnel))

    def _settings_of(self, connection: Connection, name: str) -> Mapping[str, ViciValue]:
        """Of a child; of a flow as they were asked for, as long as its rule is there."""
        if numbers.is_flow(name) and child_of(connection.settings, numbers.rule_child(name)):
            return child_of(self._narrowed.get((connection.name, name), {}), name)
        return child_of(connection.settings, name)

    def _spi(self, size: int) -> bytes:
        return hashlib.blake2b(str(next(self._numbers)).encode(), digest_size=size).digest()

    # ---- renewals -----------------------------------------------------------------------

    def _renewed_later(self, association: Association, connection: Connection) -> None:
        column = "reauth_time" if association.sa.version == 1 else "rekey_time"
        seconds = number(connection.settings.get(column))
        association.ends = self._clock() + seconds if seconds else 0.0
        if seconds:
            self._at(association.ends, lambda: self._renew(association))

    async def renew(self, ike_id: int) -> None:
        await super().renew(ike_id)
        association = self._associations.get(ike_id)
        if association is not None:
            self._renew(association)

    def _renew(self, old: Association) -> None:
        connection = self.connections.get(old.sa.connection)
        if self._associations.get(old.sa.unique_id) is not old or connection is None:
            return
        new = self._associate(connection, "ESTABLISHED")
        new.sa = replace(new.sa, responder_spi=self._spi(8))
        self._renewed_later(new, connection)
        new.tunnels, old.tunnels = old.tunnels, {}
        for tunnel in new.tunnels.values():
            tunnel.association = new
        self._forget(old)
        if new.sa.version == 1:  # as charon tells of it: a new one, and the end of the old
            self._happened(IkeEventKind.IKE_UP, new)
            self._happened(IkeEventKind.IKE_DOWN, old)
        else:
            self.emit(IkeEvent(IkeEventKind.IKE_REKEY, self._told(new), self._told(old), connection=new.sa.connection))

    def _rekey(self, old: Tunnel) -> None:
        found = old.association
        connection = self.connections.get(found.sa.connection)
        if found.tunnels.get(old.child.name) is not old or connection is None:
            return  # it has ended
        if not self._settings_of(connection, old.child.name):
            return
        last = replace(self._counted(old), state="REKEYED")
        self._install(found, connection, old.child.name)
        new = self._counted(found.tunnels[old.child.name])
        self.emit(
            IkeEvent(
                IkeEventKind.CHILD_REKEY,
                self._told(found),
                child=new,
                old_child=last,
                connection=found.sa.connection,
                child_name=new.name,
            )
        )
        self._spd.gone(found, old, self._clock())

    # ---- endings ------------------------------------------------------------------------

    async def terminate(self, *, connection: str = "", child: str = "", ike_id: int = 0, child_id: int = 0) -> None:
        await super().terminate(connection=connection, child=child, ike_id=ike_id, child_id=child_id)
        of_connection = self._of_connection.get(connection, {}) if connection else self._associations
        for association in list(of_connection.values()):
            if ike_id == association.sa.unique_id or (connection == association.sa.connection and not child):
                self._end(association)
                continue
            for tunnel in list(association.tunnels.values()):
                named = child in (tunnel.child.name, numbers.rule_child(tunnel.child.name))
                if child_id == tunnel.child.unique_id or (child and named):
                    self._end_tunnel(association, tunnel)

    async def end_outdated(self, connection: str, child: str = "") -> None:
        asked = {name for of, name in self._attempts if of == connection and child in ("", name)}
        if connection in self.connections:
            self._attempts -= {(connection, name) for name in asked}
        await super().end_outdated(connection, child)
        for name in sorted(asked) if connection in self.connections else ():
            await self.initiate(name, connection, "its settings are other ones")

    def _end(self, association: Association) -> None:
        for tunnel in list(association.tunnels.values()):
            self._end_tunnel(association, tunnel)
        self._forget(association)
        self._happened(IkeEventKind.IKE_DOWN, association)
        for connection, child in list(self._attempts):
            if connection == association.sa.connection and self._established(connection) is None:
                self._over(connection, child, NO_ANSWER)

    def _end_tunnel(self, association: Association, tunnel: Tunnel) -> None:
        last = self._counted(tunnel)
        del association.tunnels[tunnel.child.name]
        self._spd.gone(association, tunnel, self._clock())
        self._happened(IkeEventKind.CHILD_DOWN, association, last)

    def _happened(self, kind: IkeEventKind, association: Association, child: ChildSa | None = None) -> None:
        name = child.name if child is not None else ""
        self.emit(
            IkeEvent(kind, self._told(association), child=child, connection=association.sa.connection, child_name=name)
        )


class SimulatedSpd(MemorySpd):
    """An SPD whose SAs are those of the simulated daemon."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._began = clock, clock()
        self._ike: SimulatedIke | None = None
        self._ended = 0  # packets that went through tunnels that are no more, each way

    def watch(self, ike: SimulatedIke) -> None:
        self._ike = ike

    def _standing(self) -> Iterator[tuple[Association, Tunnel]]:
        return self._ike.standing if self._ike is not None else iter(())

    async def sas(self) -> Sequence[SaRecord]:
        if self._ike is not None:
            self._ike.advance()
        now = self._clock()
        return [*self.kernel_sas, *(sa for each in self._standing() for sa in records(*each, now))]

    def gone(self, association: Association, tunnel: Tunnel, now: float) -> None:
        """Its SAs are deleted, with their last counters."""
        self._ended += carried(tunnel, now)
        for record in records(association, tunnel, now):
            self.emit(KernelEvent(KernelEventKind.SA_DELETED, sa=record))

    def statistics(self) -> Mapping[str, int]:
        now = self._clock()
        protected = self._ended + sum(carried(tunnel, now) for _, tunnel in self._standing())
        plain = int((now - self._began) * PLAIN)
        blocks = any(policy.action is Action.BLOCK for policy in self.policies.values())
        dropped = int((now - self._began) / DROPPED_EVERY) if blocks else 0
        return {
            **self.counted,
            RECEIVED: 2 * protected + plain + dropped,
            SENT: protected + plain,
            "XfrmInPolBlock": dropped,
            "XfrmOutPolBlock": dropped,
        }


def carried(tunnel: Tunnel, now: float) -> int:
    """Packets so far, each way."""
    return max(0, int((now - tunnel.began) * tunnel.rate))


def records(association: Association, tunnel: Tunnel, now: float) -> Iterator[SaRecord]:
    """The kernel SAs of a tunnel."""
    packets = carried(tunnel, now)
    counters = SaCounters(packets * OCTETS, packets, 0, 0)
    child, sa = tunnel.child, association.sa
    for source, destination, spi, cpi in (
        (sa.remote, sa.local, child.spi_in, child.cpi_in),
        (sa.local, sa.remote, child.spi_out, child.cpi_out),
    ):
        yield SaRecord(source, destination, child.protocol, spi, child.reqid, child.mode, counters)
        if cpi:
            yield SaRecord(source, destination, 108, cpi.rjust(4, b"\0"), child.reqid, child.mode, counters)


def acquires(connection: Connection) -> Iterator[KernelEvent]:
    """What the kernel would ask for the packets of two hosts behind us with one behind the peer."""
    for child in connection.children:
        settings = child_of(connection.settings, child.name)
        ends = [span(texts(settings.get(side))[0]) for side in ("local_ts", "remote_ts") if settings.get(side)]
        if child.fine is None or len(ends) < 2 or None in ends:
            continue
        ours, theirs = (
            end._replace(first=somewhere[len(end.first)]) if not any(end.first) else end
            for end, somewhere in zip(ends, SOMEWHERE, strict=True)
            if end is not None
        )
        for place in range(1, 1 + CALLING_HOSTS):
            flow = Selector(
                host(nth(ours, place)),
                host(nth(theirs, 1)),
                TCP,
                one_port(40000 + place),
                one_port(theirs.port or HTTPS),
            )
            here, there = address(connection.settings, "local"), address(connection.settings, "remote")
            template = Template(here, there, ESP, 1, child.reqid)
            yield KernelEvent(KernelEventKind.ACQUIRE, template=template, flow=flow)


def nth(one: Span, place: int) -> bytes:
    """An address of a span, the last one where it has fewer."""
    number = min(int.from_bytes(one.first, "big") + place, int.from_bytes(one.last, "big"))
    return number.to_bytes(len(one.first), "big")


def answers(settings: Mapping[str, ViciValue]) -> bool:
    """Whether there is somebody at the address."""
    remote = packed(settings.get("remote_addrs"))
    return bool(remote) and ipaddress.ip_address(remote) not in SILENT_NET


def algorithms(proposals: ViciValue | None) -> Algorithms:
    """The first proposal; of `aes256-sha256-modp2048` AES_CBC, 256, HMAC_SHA2_256_128, PRF_HMAC_SHA2_256, MODP_2048."""
    found = Algorithms()
    first = proposals[0] if isinstance(proposals, list) and proposals else ""
    for word in first.split("-"):
        name = word.rstrip("0123456789")
        digits = word[len(name) :]
        if word in CHECKS:
            found = found._replace(integrity=CHECKS[word], prf=PRFS[word])
        elif name in NAMED_GROUPS and digits:
            found = found._replace(group=f"{name.upper()}_{digits}")
        elif word in WORDS or name in WORDS:
            bits = int(digits) if digits and word not in WORDS else 0
            found = found._replace(encryption=WORDS.get(word) or WORDS[name], bits=bits)
        elif name.startswith("aes") and "gcm" in word:  # aes256gcm16: its own check value
            found = found._replace(encryption="AES_GCM_16", bits=number(word.removeprefix("aes")))
    return found


def child_of(settings: Mapping[str, ViciValue], name: str) -> Mapping[str, ViciValue]:
    children = settings.get("children")
    found = children.get(name) if isinstance(children, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def identity(settings: Mapping[str, ViciValue], side: str) -> str:
    """What a side calls itself: its id, else its address."""
    found = settings.get(side)
    name = found.get("id") if isinstance(found, Mapping) else None
    if isinstance(name, str) and name and name != "%any":
        return name
    octets = address(settings, side)
    return str(ipaddress.ip_address(octets)) if octets else ""


def address(settings: Mapping[str, ViciValue], side: str) -> bytes:
    """Of a side. Ours may be any, with MOBIKE: it is then loopback, from where this host sends."""
    found = packed(settings.get(f"{side}_addrs"))
    if found or side != "local":
        return found
    return LOOPBACK.get(len(packed(settings.get("remote_addrs"))), b"")


def packed(addresses: ViciValue | None) -> bytes:
    """The first of a list of addresses; empty for `%any`."""
    try:
        return ipaddress.ip_address(addresses[0]).packed if isinstance(addresses, list) and addresses else b""
    except ValueError:
        return b""


def number(value: ViciValue | None) -> int:
    """`900s`, `900`; 0 for nothing."""
    digits = "".join(itertools.takewhile(str.isdigit, value)) if isinstance(value, str) else ""
    return int(digits) if digits else 0


def texts(value: ViciValue | None) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()
