"""The part of a draft that is about links: virtual interfaces of peers, routes for calling them, and packet sizes.

A peer with a virtual interface has no place among the rules of others, so its policies are
made here by themselves. Sources: ipsecPeerVirtualInterface, ipsecPeerPublicIfIndexMode,
ikePrfMtuMax, ipsecGlobContPrivateInterface, ipsecPeerSecondaryPeerIndex.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from agent.plan import flows, numbers, spd, virtual
from agent.plan.claims import Claims
from agent.plan.connections import Peer
from agent.plan.daemon import daemon_settings
from agent.plan.filtering import PRIORITY_MANGLE, PRIORITY_RAW, Chain, NamedSet, Part
from agent.plan.kinship import Kinship
from agent.plan.layered import Edit, Layered
from agent.plan.links import CallRoute, VirtualLink
from agent.plan.model import Child, ConfigurationView, Environment, Fine, Policy, Prefix, RowRef
from agent.plan.peer_selectors import negotiated
from agent.plan.phase2 import Phase2
from agent.plan.profiles import Profiles
from agent.plan.proposals import V1
from agent.plan.result import Filter, Plan
from agent.plan.spd import Way
from agent.plan.state import Clamped, State, edit_of
from agent.plan.virtual import PEERS, Networks, Virtual

PRIVATE: Final = "ipsecGlobContPrivateInterface"
LOOPBACK: Final = 1  # number of the link `lo`, in every network namespace
HEADERS: Final = {"ipv4": 40, "ipv6": 60}  # octets of IP and TCP, which MSS leaves out
SPOOFED: Final = "private_dropped"

Misfit = Callable[[Peer, Phase2], str]


class Interfaces:
    """`misfit` tells why phase 1 of a peer and a phase 2 do not go together."""

    def __init__(
        self,
        configuration: ConfigurationView,
        environment: Environment,
        profiles: Profiles,
        previous: Plan | None,
        state: State,
        claims: Claims,
        kinship: Kinship,
        misfit: Misfit,
    ) -> None:
        self._configuration, self._environment, self._profiles = configuration, environment, profiles
        self._claims, self._kinship, self._misfit = claims, kinship, misfit
        self._virtual = state.virtual.edit()
        self._clamped = state.clamped.edit()
        self.links: Edit[int, VirtualLink] = edit_of(previous.links if previous else None)
        self.calls: Edit[int, CallRoute] = edit_of(previous.calls if previous else None)
        self.touched = set[int]()  # peers whose interface may be different
        self.resized = set[int]()  # peers whose flows are other ones: reqids that sizes of packets go by

    def called(self, number: int, peer: Peer | None) -> None:
        """A peer may be called by another link than before."""
        wanted = None
        if peer is not None and peer.call and peer.remote is not None:
            wanted = CallRoute(number, peer.remote, peer.call)
        if wanted != self.calls.get(number):
            self.calls.put(number, wanted)

    def settle(self, peers: Edit[int, Peer]) -> None:
        """Make the interfaces that may be different."""
        networks = Networks(self._configuration)
        for number in sorted(self.touched):
            peer, old = peers.get(number), self._virtual.get(number)
            lack = self._environment.capabilities.interfaces_lack
            new = self._made(peer, networks, peers) if peer is not None and peer.virtual and not lack else None
            before = {policy.key: policy for policy in old.policies} if old is not None else {}
            for policy in new.policies if new is not None else ():
                self._claims.offer(policy, before.pop(policy.key, None))
            for policy in before.values():
                self._claims.withdraw(policy)
            for name in old.children if old is not None else ():
                if new is None or name not in new.children:
                    self._kinship.set_child(number, name, None, None)
            self._virtual.put(number, new)
            self.links.put(number, new.link if new is not None else None)

    def clamp(self, touched: Iterable[int], peers: Edit[int, Peer]) -> None:
        """Note what is the largest packet of peers whose children are other ones, once these are known."""
        usual = self._profiles.mtu(0, V1)
        for number in touched:
            peer = peers.get(number)
            wanted = None
            if peer is not None and peer.usable:
                mtu = self._profiles.mtu(peer.ike_profile, peer.version)
                children = self._kinship.children_of(number)
                found = {flow.reqid for child in children for flow in flows.standing(self._environment, child.name)}
                reqids = tuple(sorted(found.union(child.reqid for child in children)))
                wanted = Clamped(mtu, reqids) if reqids and mtu != usual else None
            if wanted != self._clamped.get(number):
                self._clamped.put(number, wanted)

    def done(self) -> tuple[Layered[int, Virtual], Layered[int, Clamped]]:
        return self._virtual.done(), self._clamped.done()

    # ---- one interface ------------------------------------------------------------------

    def _made(self, peer: Peer, networks: Networks, peers: Edit[int, Peer]) -> Virtual:
        number = peer.number
        link = self._link(peer, networks, peers)
        if number > numbers.LAST_WITH_INTERFACE:  # it cannot be made; what its routes should take is held back
            return Virtual((), link, ())
        standing = virtual.standing_policies(number)
        if self._environment.capabilities.nftables:
            standing += [*virtual.marked_policies(number), *virtual.own_policies(link)]
        policies = {policy.key: policy for policy in standing}
        phase2 = self._profiles.phase2(0, peer.ipsec_profile, peer.version)
        names: list[str] = []
        if not peer.usable or phase2.problem or self._misfit(peer, phase2):
            return Virtual(tuple(policies.values()), link, ())
        for place, one in enumerate(negotiated(networks.selectors(number), peer.version)):
            name = numbers.child_name(number, one.number)
            reqid, own = self._kinship.reqid(name), self._environment.own_addresses
            what = virtual.covered(one)
            fine = flows.fine(name, phase2.granularity, what, own, self._kinship.reqid)
            child = Child(
                *(name, number, one.number, reqid, phase2.compressed, phase2.heartbeats, one.starts, one.answers),
                virtual=True,
                fine=fine,
            )
            settings = virtual.child_settings(peer, one, phase2, 0 if fine is not None else reqid)
            self._kinship.set_child(number, name, child, settings)
            names.append(name)
            way = self._way(peer, phase2, name, reqid, fine, what)
            for policy in virtual.child_policies(peer, one, way, place) if way is not None else ():
                policies.setdefault(policy.key, policy)
        return Virtual(tuple(policies.values()), link, tuple(names))

    def _link(self, peer: Peer, networks: Networks, peers: Edit[int, Peer]) -> VirtualLink:
        takeovers = self._environment.takeovers
        primaries = [peers.get(one) for one in sorted(takeovers) if takeovers[one] == peer.number]
        stood_for = [one for one in primaries if one is not None and one.virtual]
        ways = dict[tuple[bytes, bytes], None]()
        for one in (peer, *stood_for):
            if one.local is not None and one.remote is not None:
                ways[one.local, one.remote] = None
            for child in negotiated(networks.selectors(one.number), one.version):
                name = numbers.child_name(one.number, child.number)
                for tunnel in (self._environment.tunnels.get(name), *flows.standing(self._environment, name)):
                    if tunnel is not None:
                        ways[tunnel.local, tunnel.remote] = None
        served = stood_for if peer.number in takeovers else [peer, *stood_for]
        mtu = self._profiles.mtu(peer.ike_profile, peer.version)
        return virtual.link_of(peer, mtu, networks, served, ways, daemon_settings(self._configuration).ike_port)

    def _way(
        self, peer: Peer, phase2: Phase2, name: str, reqid: int, fine: Fine | None, what: flows.Covered
    ) -> Way | None:
        tunnel, split = self._environment.tunnels.get(name), None
        if fine is not None:
            standing = flows.standing(self._environment, name)
            split, reqid = spd.Split(standing, flows.asking(what.parts, fine, standing)), flows.asked_by(fine, standing)
            tunnel = standing[-1] if standing else None
        # the interface's SAs are told from others by its number, so whoever shares the peer's address has no part in it
        any_inward = fine is not None
        if tunnel is not None:
            way = spd.way_of(tunnel, reqid)._replace(any_inward=any_inward, split=split)
            return way._replace(ipcomp=True) if phase2.compressed else way
        if peer.remote is None or peer.local is None:
            return None
        return Way(peer.local, peer.remote, phase2.protocol, spd.TUNNEL, False, reqid, any_inward, split)

    # ---- packet filter --------------------------------------------------------------------

    def filters(self, policies: Iterable[Policy]) -> dict[str, Filter]:
        """What is wanted of the packet filter; nothing where there is none."""
        found: dict[str, Filter] = {}
        if not self._environment.capabilities.nftables:
            return found
        private = self._configuration.scalar(PRIVATE)
        if isinstance(private, int) and private > 0:
            found["private"] = Filter(private_part(private, virtual.local_nets(policies)), frozenset())
        clamped = self._clamped.done()
        rows = frozenset(RowRef(PEERS, peer) for peer in clamped)
        part = mss_part(self._profiles.mtu(0, V1), clamped.values(), bool(self._environment.flows))
        found["mss"] = Filter(part, rows)
        return found


def private_part(interface: int, nets: Iterable[Prefix]) -> Part:
    """An inside source address from anywhere but the inside interface, a tunnel or this host is not true."""
    by_family: dict[int, list[str]] = {4: [], 16: []}
    for one in sorted(nets):
        by_family[len(one.address)].append(virtual.net_text(one))
    elsewhere = f"iif != {{ {LOOPBACK}, {interface} }} meta ipsec missing"
    verdict = f'counter name "{SPOOFED}" drop'
    sets: list[NamedSet] = []
    rules: list[str] = []
    for width, of, what in ((4, "type ipv4_addr", "ip"), (16, "type ipv6_addr", "ip6")):
        sets.append(NamedSet(f"private_nets{width}", of, tuple(by_family[width])))
        rules.append(f"{elsewhere} {what} saddr @private_nets{width} {verdict}")
    return Part((Chain("private_in", "prerouting", PRIORITY_RAW, tuple(rules)),), tuple(sets), frozenset({SPOOFED}))


def mss_part(usual: int, others: Iterable[Clamped], allotted: bool = False) -> Part:
    """TCP learns of the largest packet: in SYN packets into and out of tunnels the segment size is lowered to fit. The
    kernel never raises it. `allotted`: there may be SAs with reqids that the daemon allots."""
    by_mtu: dict[int, list[str]] = {}
    for one in others:
        by_mtu.setdefault(one.mtu, []).extend(map(str, one.reqids))
    sets = tuple(
        NamedSet(f"mss_{mtu}", "typeof ipsec out reqid", tuple(sorted(reqids)))
        for mtu, reqids in sorted(by_mtu.items())
    )
    every = f"{1 if allotted else numbers.REQID_FIRST}-{numbers.REQID_LAST}"

    def rules(way: str) -> tuple[str, ...]:
        ways = [(mtu, f"ipsec {way} reqid @mss_{mtu}") for mtu in sorted(by_mtu)]
        ways.append((usual, f"ipsec {way} reqid {every}"))
        return tuple(
            f"meta nfproto {family} {match} tcp flags syn tcp option maxseg size set {mtu - size} accept"
            for mtu, match in ways
            for family, size in HEADERS.items()
        )

    chains = (
        Chain("mss_forward_in", "forward", PRIORITY_MANGLE, rules("in")),
        Chain("mss_forward_out", "forward", PRIORITY_MANGLE, rules("out")),  # of another tunnel, perhaps
        Chain("mss_input", "input", PRIORITY_MANGLE, rules("in")),
        Chain("mss_output", "output", PRIORITY_MANGLE, rules("out")),
    )
    return Part(chains, sets)
