"""Virtual interfaces, what leads to them, and host routes for calling: made, kept so, and taken away.

Works level by level: what there is is listed over rtnetlink, compared with what is wanted,
and the difference is carried out; announcements of the kernel, a new plan, a peer's state
and every minute are reasons to look again. Only what bears our numbers is changed or
removed: links by number and interface id, addresses, routes and routing rules by protocol
number. Stopping leaves everything. Sources: rtnetlink(7), guide 3.4, ipsecPeerVirtualInterface,
ipsecPeerPublicIfIndexMode, ipsecPeerIfStateMode, ipsecPeerTrafficPolicy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final, TypeVar

from agent.backends import tasks
from agent.backends.engine import EngineError, LinksTold
from agent.backends.routing_rules import NO_ROOM, placed
from agent.backends.rtnetlink import (
    ADDRESS_MESSAGE,
    CREATE,
    EXCLUSIVE,
    FAMILIES,
    GROUPS,
    IPV6_DEFAULT_METRIC,
    LINK_MESSAGE,
    LINKMODE_DEFAULT,
    LINKMODE_DORMANT,
    ROUTE_MESSAGE,
    RTA_OIF,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTM_SETLINK,
    RULE_MESSAGE,
    XFRM_KIND,
    AddressSeen,
    LinkSeen,
    RouteSeen,
    RouteSocketFactory,
    RuleSeen,
    address_body,
    found,
    link_by_index,
    new_link,
    number,
    open_route_socket,
    read_address,
    read_link,
    read_rule,
    route_body,
    routes_of,
    rule_body,
    set_link,
    u32,
)
from agent.backends.xfrm.messages import encode_attribute
from agent.backends.xfrm.netlink import Message, NetlinkSocket, Overrun, close_all
from agent.plan.links import (
    MAIN_TABLE,
    NOWHERE,
    Address,
    CallRoute,
    Route,
    Standing,
    VirtualLink,
    covers,
    guards,
    routing_rules,
)
from agent.plan.model import Prefix
from agent.plan.numbers import INTERFACE_BASE, ROUTE_PROTOCOL, is_our_interface

logger = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_SECONDS: Final = 0.1  # announcements come by the dozen
PER_TURN: Final = 128  # links, routes or rules seen to before the loop may do something else
DUMP_ATTEMPTS: Final = 5
RETRY_SECONDS: Final = 15.0  # what failed is tried again at the latest then
NO_KIND: Final = "the kernel has no XFRM interfaces (module xfrm_interface)"
NO_RULES: Final = "the kernel has no routing rules (CONFIG_IP_MULTIPLE_TABLES)"
HIGHEST_LINK: Final = 0x7FFFFFFF
PROBE_NAME: Final = "ipsecprobe"


def probe(open_socket: RouteSocketFactory = open_route_socket) -> str:
    """Why XFRM interfaces cannot be had, '' when they can. Asks for one without an interface id, which a kernel that
    has them refuses as such (an old one makes it, and it is removed again); the module is loaded by that."""
    try:
        with open_socket(()) as asker:
            refusal = asker.batch([(RTM_NEWLINK, new_link(0, PROBE_NAME, XFRM_KIND, 0))], flags=CREATE | EXCLUSIVE).get(
                0
            )
            if refusal is None:
                body = LINK_MESSAGE.encode({}) + encode_attribute(3, PROBE_NAME.encode() + b"\0")
                asker.batch([(RTM_DELLINK, body)])
                return ""
    except (EngineError, Overrun) as error:
        return str(error)
    if refusal.number == errno.EOPNOTSUPP:
        return NO_KIND
    return ""  # EINVAL: it knows them; EPERM: nobody who may not make them has to know


class KernelLinks:
    """`told` gets the peers whose links or routes cannot be made, with the reason, whenever that is news. `kind` is for
    tests on kernels without XFRM interfaces."""

    def __init__(self, *, open_socket: RouteSocketFactory = open_route_socket, kind: str = XFRM_KIND) -> None:
        self._open, self._kind = open_socket, kind
        self._requests: NetlinkSocket | None = None
        self._events: NetlinkSocket | None = None
        self._told: list[LinksTold] = []
        self._links: Mapping[int, VirtualLink] = {}
        self._calls: tuple[CallRoute, ...] = ()
        self._standing: dict[int, Standing] = {}
        self._problems: dict[int, str] = {}
        self._removing = True
        self._wanted = False  # before the first plan everything would seem unwanted
        self._wake, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises EngineError."""
        self._requests = self._open(())
        self._events = self._open(GROUPS)
        loop = asyncio.get_running_loop()
        self._events.watch(self._changed, self._told_of)
        self._task = loop.create_task(self._run())

    async def stop(self) -> None:
        """End; what is there stays."""
        await tasks.end(self._task)
        self._task = None
        close_all(self._events, self._requests)
        self._events = self._requests = None

    def subscribe(self, told: LinksTold) -> None:
        self._told.append(told)

    def want(self, links: Mapping[int, VirtualLink], calls: Iterable[CallRoute], *, removing: bool = True) -> None:
        """The links by peer, and the routes for calling, from now on. Without `removing` what is wanted no more stays
        for the moment."""
        self._links, self._calls, self._removing = links, tuple(calls), removing
        self._wanted = True
        self._awaken()

    def stand(self, peer: int, standing: Standing | None) -> None:
        """What a peer's interface is to show; None: nothing of its own, it is simply up."""
        if self._standing.get(peer) is standing:
            return
        if standing is None:
            del self._standing[peer]
        else:
            self._standing[peer] = standing
        self._awaken()

    def look_again(self) -> None:
        self._awaken()

    async def purge(self) -> None:
        """Remove all that is ours. Raises EngineError."""
        self._links, self._calls, self._wanted, self._removing = {}, (), True, True
        await self._reconcile()

    # ---- the work -----------------------------------------------------------------------

    def _awaken(self) -> None:
        if self._wanted:
            self.idle.clear()
            self._wake.set()

    def _told_of(self, message: Message) -> bool:
        return bool(self._problems) or self._concerns_us(message)  # somebody else's change may be what solves them

    def _changed(self) -> None:
        if self._links or self._calls:
            self._awaken()

    def _concerns_us(self, message: Message) -> bool:
        """Whether an announcement is about what we keep, or a link that peers are called through; a router announces
        thousands of routes that are neither."""
        called = {call.interface for call in self._calls}
        if message.type in (RTM_NEWRULE, RTM_DELRULE):
            return read_rule(message) is not None
        if message.type in (RTM_NEWROUTE, RTM_DELROUTE):
            head = ROUTE_MESSAGE.decode(message.data, message.start)
            by = number(found(message, ROUTE_MESSAGE.size).get(RTA_OIF))
            return head["protocol"] == ROUTE_PROTOCOL or by > INTERFACE_BASE or by in called
        layout = LINK_MESSAGE if message.type in (RTM_NEWLINK, RTM_DELLINK) else ADDRESS_MESSAGE
        index = layout.decode(message.data, message.start)["index"]
        return index > INTERFACE_BASE or index in called

    async def _run(self) -> None:
        while True:
            retry = RETRY_SECONDS if self._problems else None
            try:
                async with asyncio.timeout(retry):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            try:
                await self._reconcile()
            except EngineError as error:
                logger.warning("links and routes cannot be looked at: %s", error)
            except Exception:
                logger.exception("links and routes could not be kept")
            if not self._wake.is_set():
                self.idle.set()

    async def _reconcile(self) -> None:
        problems: dict[int, str] = {}
        wanted = {link.number: link for link in self._links.values()}
        seen = {link.number: link for link in map(read_link, await self._dump(RTM_GETLINK, LINK_MESSAGE.encode({})))}
        ours = {index for index, link in seen.items() if self._is_ours(link)}
        for index in ours - wanted.keys() if self._removing else ():
            self._do(RTM_DELLINK, link_by_index(index))
        if not (wanted or self._calls or ours or await self._our_routes() or await self._our_rules()):
            self._say({})
            return
        if not seen.keys() >= wanted.keys():  # before the first is made: thousands take longer than policies wait
            unguarded = guards(self._links.values())
            await self._make_routes(sorted(unguarded.keys() - await self._our_route_set()), unguarded, problems)
        up = set[int]()
        async for link in in_turns(wanted.values()):
            problem = self._keep_link(link, seen.get(link.number))
            if problem:
                problems[link.peer] = problem
            elif self._is_up(link):
                up.add(link.number)
        made = {index: link for index, link in wanted.items() if link.peer not in problems}
        await self._keep_addresses(made, problems)
        await self._keep_routes({index: made[index] for index in up}, seen, problems)
        await self._keep_rules(problems)
        self._say(problems)

    def _is_ours(self, link: LinkSeen) -> bool:
        if link.kind != self._kind:
            return False
        return is_our_interface(link.number, link.if_id) if self._kind == XFRM_KIND else link.number > INTERFACE_BASE

    def _is_up(self, link: VirtualLink) -> bool:
        return self._standing.get(link.peer) is not Standing.DOWN

    def _keep_link(self, link: VirtualLink, seen: LinkSeen | None) -> str:
        """Make it, or make it as wanted; why not."""
        if link.number > HIGHEST_LINK:
            return f"interface {link.name}: links are numbered up to {HIGHEST_LINK}, it would be {link.number}"
        if seen is not None and not self._is_ours(seen):
            return f"there is a link with number {link.number} that is not ours ({seen.name})"
        if seen is None:
            problem = self._do(
                RTM_NEWLINK, new_link(link.number, link.name, self._kind, link.number), flags=CREATE | EXCLUSIVE
            )
            if problem:
                return NO_KIND if problem.startswith("Unknown device type") else f"interface {link.name}: {problem}"
            seen = LinkSeen(link.number, link.name, self._kind, link.number, 0, False, LINKMODE_DEFAULT, 0)
        standing = self._standing.get(link.peer)
        shows = standing in (Standing.DORMANT, Standing.UP)
        linkmode = LINKMODE_DORMANT if shows else LINKMODE_DEFAULT
        up = self._is_up(link)
        problem = ""
        if seen.up != up or (link.mtu and seen.mtu != link.mtu) or seen.linkmode != linkmode:
            body = set_link(link.number, up=up, mtu=link.mtu, linkmode=linkmode)
            problem = self._do(RTM_SETLINK, body)
        if not problem and shows and seen.operstate != standing:
            problem = self._do(RTM_SETLINK, set_link(link.number, operstate=int(standing or 0)))
        return f"interface {link.name}: {problem}" if problem else ""

    # ---- addresses and routes -------------------------------------------------------------

    async def _keep_addresses(self, wanted: Mapping[int, VirtualLink], problems: dict[int, str]) -> None:
        held: dict[int, dict[Address, AddressSeen]] = {}
        for message in await self._dump(RTM_GETADDR, ADDRESS_MESSAGE.encode({})):
            seen = read_address(message)
            if seen is not None and seen.link in wanted:
                held.setdefault(seen.link, {})[seen.address] = seen
        for index, link in wanted.items():
            there = held.get(index, {})
            for address, seen in there.items():
                if seen.ours and address not in link.addresses:
                    self._do(RTM_DELADDR, address_body(index, address))
            for address in link.addresses:
                if address in there:
                    continue
                problem = self._do(RTM_NEWADDR, address_body(index, address), flags=CREATE | EXCLUSIVE)
                if problem:
                    problems.setdefault(link.peer, f"address {show(address.address, address.length)}: {problem}")

    async def _keep_routes(
        self, links: Mapping[int, VirtualLink], seen: Mapping[int, LinkSeen], problems: dict[int, str]
    ) -> None:
        wanted = guards(self._links.values())
        wanted |= {_as_listed(route): link.peer for link in links.values() for route in link.routes}
        for call in self._calls:
            if call.interface not in seen:
                problems.setdefault(call.peer, f"there is no link with number {call.interface}")
                continue
            wanted[_as_listed(await self._route_for(call))] = call.peer
        ours = await self._our_route_set()
        new, old = wanted.keys() - ours, (ours - wanted.keys() if self._removing else set[Route]())
        # what leads nowhere comes first and goes last: in between a packet finds an interface, or nothing
        await self._make_routes([route for route in new if route.interface == NOWHERE], wanted, problems)
        await self._remove_routes(route for route in old if route.interface != NOWHERE)
        await self._make_routes([route for route in new if route.interface != NOWHERE], wanted, problems)
        await self._remove_routes(route for route in old if route.interface == NOWHERE)

    async def _make_routes(self, routes: Iterable[Route], peers: Mapping[Route, int], problems: dict[int, str]) -> None:
        async for route in in_turns(routes):
            problem = self._do(RTM_NEWROUTE, route_body(route), flags=CREATE | EXCLUSIVE)
            if problem:
                where = show(route.destination.address, route.destination.length)
                problems.setdefault(peers[route], f"route to {where}: {problem}")

    async def _remove_routes(self, routes: Iterable[Route]) -> None:
        async for route in in_turns(routes):
            self._do(RTM_DELROUTE, route_body(route))

    async def _our_route_set(self) -> set[Route]:
        return {one.route for one in await self._our_routes()}

    async def _keep_rules(self, problems: dict[int, str]) -> None:
        """Those that come before those that go: nothing is led elsewhere in between. A table has its routes, or what
        stands behind them, already."""
        wanted = routing_rules(self._links.values())
        held = await self._our_rules()
        places = placed(wanted, held)
        async for seen in in_turns(sorted(set(places).difference(held))):
            problem = self._do(RTM_NEWRULE, rule_body(*seen), flags=CREATE | EXCLUSIVE)
            if problem:
                what = f"{show(*seen.rule.source)} to {show(*seen.rule.destination)}"
                problems.setdefault(wanted[seen.rule], f"routing rule {what}: {problem}")
        for rule in wanted.keys() - {seen.rule for seen in places} if len(places) < len(wanted) else ():
            problems.setdefault(wanted[rule], NO_ROOM)
        async for seen in in_turns(set(held).difference(places) if self._removing else ()):
            self._do(RTM_DELRULE, rule_body(*seen))

    async def _our_rules(self) -> list[RuleSeen]:
        """[] where the kernel has none."""
        listed: list[RuleSeen] = []
        for family in FAMILIES.values():
            with contextlib.suppress(EngineError):  # making one will tell
                messages = await self._dump(RTM_GETRULE, RULE_MESSAGE.encode({"family": int(family)}))
                listed += (seen for seen in map(read_rule, messages) if seen is not None)
        return listed

    async def _our_routes(self) -> list[RouteSeen]:
        return [one for one in await self._routes(table=0, protocol=ROUTE_PROTOCOL) if one.ours]

    async def _route_for(self, call: CallRoute) -> Route:
        """The host route, through the gateway that the best other route over this link would use."""
        width = len(call.destination)
        best = None
        for one in await self._routes(family=int(FAMILIES[width]), interface=call.interface):
            route = one.route
            if one.ours or route.interface != call.interface or not covers(route.destination, call.destination):
                continue
            rank = (-route.destination.length, route.metric)
            if best is None or rank < best[0]:
                best = rank, route
        gateway = best[1].gateway if best is not None else b""
        return Route(Prefix(call.destination, width * 8), call.interface, 0, gateway)

    async def _routes(
        self, *, table: int = MAIN_TABLE, family: int = 0, protocol: int = 0, interface: int = 0
    ) -> list[RouteSeen]:
        """Routes of a table, 0 for any that may have ours, of one family or both, narrowed by the kernel where it can.

        Raises EngineError."""
        families = (family,) if family else tuple(map(int, FAMILIES.values()))
        listed: list[RouteSeen] = []
        for each in families:
            body = ROUTE_MESSAGE.encode({"family": each, "table": table, "protocol": protocol})
            if interface:
                body += encode_attribute(RTA_OIF, u32(interface))
            listed += routes_of(iter([await self._dump(RTM_GETROUTE, body, strictly=True)]))
        return listed

    # ---- the kernel -------------------------------------------------------------------------

    def _do(self, type: int, body: bytes, *, flags: int = 0) -> str:
        """Carry out one request; why it was refused. What is to be removed and is gone is no failure."""
        assert self._requests is not None
        try:
            refusal = self._requests.batch([(type, body)], flags).get(0)
        except (EngineError, Overrun) as error:
            return str(error)
        if refusal is None:
            return ""
        gone = refusal.number in (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT)
        if gone and type in (RTM_DELLINK, RTM_DELADDR, RTM_DELROUTE, RTM_DELRULE):
            return ""
        if type == RTM_NEWRULE and refusal.number in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return NO_RULES
        if refusal.number == errno.EEXIST:
            return "there is one already, another peer's or not ours"
        return refusal.text

    async def _dump(self, type: int, body: bytes, *, strictly: bool = False) -> list[Message]:
        for _ in range(DUMP_ATTEMPTS):
            found: list[Message] = []
            try:
                with self._open(()) as dumper:
                    if strictly:
                        dumper.check_strictly()
                    for part in dumper.dump(type, body):
                        found += part
                        await asyncio.sleep(0)
            except Overrun:
                continue
            return found
        raise EngineError("links and routes change too fast to be listed")

    def _say(self, problems: dict[int, str]) -> None:
        if problems == self._problems:
            return
        for peer, text in problems.items():
            if self._problems.get(peer) != text:
                logger.warning("peer %d: %s", peer, text)
        self._problems = problems
        for told in self._told:
            told(problems)


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Each of them; now and then the loop may do something else in between."""
    for count, item in enumerate(items, 1):
        if count % PER_TURN == 0:
            await asyncio.sleep(0)
        yield item


def show(address: bytes, length: int) -> str:
    return f"{ipaddress.ip_address(address)}/{length}"


def _as_listed(route: Route) -> Route:
    """As the kernel lists it: an IPv6 route without a metric has one."""
    if len(route.destination.address) == 16 and not route.metric:
        return route._replace(metric=IPV6_DEFAULT_METRIC)
    return route
