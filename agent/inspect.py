"""Working on a state folder from outside the agent: what happens to a packet, the SPD before the network, its removal.

`explain` makes the same plan as the agent, from the stored configuration and this host's
addresses and routes; which tunnels are up it does not know, and need not: whether a packet
is protected does not depend on it. `load_spd` makes that plan real as far as the kernel goes,
so that from boot until the agent starts nothing leaves in plain that a rule protects: there is
no file of the last SPD beside the store that could be older than what a SET was answered for.
Of a damaged store it is the plan of the newest copy: after a reboot the kernel has nothing, and an
older protection is better than none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.backends.engine import EngineError, Host, Route
from agent.backends.flush import flush
from agent.backends.installing import in_order
from agent.backends.links import KernelLinks
from agent.backends.peer_states import read_settings, stand_ins, still_lost
from agent.backends.policies import show_selector
from agent.backends.remembered import REQIDS, TAKEOVERS, takeovers_of
from agent.backends.sole import Sole
from agent.backends.surroundings import PEER_TABLE, Surroundings
from agent.config import Settings
from agent.mib import load_schema
from agent.plan import inbound, outbound
from agent.plan.explain import EPHEMERAL, PORT_LAST, WITH_PORTS, explain_all, source_ports
from agent.plan.links import VirtualLink, steered
from agent.plan.model import Capabilities, Flow, PolicyKey
from agent.plan.peers import PEERS
from agent.plan.planner import Plan, make_plan
from agent.serve import CHARON_FOLDER, capabilities_here
from agent.store.errors import StoreError, StoreMissing
from agent.store.lock import StoreLock
from agent.store.store import StoredState, read_served, read_store

MOST_PEERS = 20  # that a message names
MOST_PORTS = 64  # ranges of source ports that are looked at where none is said
LED = "; a selector leads it to that interface, whatever the routes say (ipsecPeerTrafficPolicy)"


class InspectError(Exception):
    """It cannot be told or done; the text says why and what is accepted."""


def explain_packet(
    settings: Settings,
    src: str,
    dst: str,
    proto: str,
    sport: int | None,
    dport: int,
    forwarded: bool,
    decrypted: int,
    arrives: str = "",
) -> str:
    """What becomes of the packet, by which rule. `arrives`: the interface it comes in by, '' for that towards its
    source; of ICMP the ports are type and code. `sport` None: any, and where it matters the answer says so. Raises
    InspectError."""
    source, destination = _address(src), _address(dst)
    if len(source) != len(destination):
        raise InspectError(f"source {src} and destination {dst} are of different families; accepted: two of one family")
    state = stored(settings)
    plan, routes = asyncio.run(plan_of(settings, state, (source, destination)))
    own = plan.environment.own_addresses
    if forwarded and destination in own:
        raise InspectError(f"destination {dst} is an address of this host; accepted: a packet that is not forwarded")
    peers = [row.number for row in plan.configuration.rows(PEERS)] if decrypted else []
    if decrypted and decrypted not in peers:
        some = ", ".join(map(str, peers[:MOST_PEERS])) + (", …" if len(peers) > MOST_PEERS else "")
        accepted = f"the number of one of {some}" if peers else "none, there are no peers"
        raise InspectError(f"there is no peer {decrypted}; accepted: {accepted}")
    way = "forward" if forwarded else "in" if destination in own and source not in own else "out"
    if (arrives or decrypted) and way == "out":  # what the host makes itself neither arrives nor comes out of a tunnel
        way = "forward"
    comes = 0
    if way != "out":
        comes = _interface(plan, arrives) if arrives else routes[0].interface
    flow = Flow(source, destination, _protocol(proto), 0, dport, way, decrypted, comes)
    if sport is None and flow.protocol in WITH_PORTS:
        return _from_any_port(plan, flow, routes[1])
    return _becomes(plan, [flow._replace(source_port=sport or 0)], routes[1])[0]


def _becomes(plan: Plan, flows: Sequence[Flow], route: Route) -> list[str]:
    """What becomes of packets that leave by this route, unless a selector leads them elsewhere."""
    led = [steered(plan.links.values(), flow) if flow.way != "in" else 0 for flow in flows]
    leaving = [
        flow._replace(to_interface=to or route.interface) if flow.way != "in" else flow
        for flow, to in zip(flows, led, strict=True)
    ]
    return [f"{found}{LED if to else ''}" for found, to in zip(explain_all(plan, leaving), led, strict=True)]


def _from_any_port(plan: Plan, flow: Flow, route: Route) -> str:
    """The answer for a usual source port, and the others there are."""
    begin = source_ports(plan, flow)
    ranges = [(first, last - 1) for first, last in itertools.pairwise((*begin, PORT_LAST + 1))]
    others = ranges[:MOST_PORTS]
    ports = [EPHEMERAL, *(first or last for first, last in others)]
    answer, *answers = _becomes(plan, [flow._replace(source_port=port) for port in ports], route)
    differing: dict[str, list[str]] = {}
    for (first, last), other in zip(others, answers, strict=True):
        if other != answer:
            differing.setdefault(other, []).append(str(first) if first == last else f"{first}-{last}")
    told = [f"from {', '.join(ranges)}: {other}" for other, ranges in differing.items()]
    if len(ranges) > MOST_PORTS:
        told.append(f"rules tell {len(ranges)} ranges of source ports apart: --sport asks for one")
    return f"{answer} [from source port {EPHEMERAL}; {'; '.join(told)}]" if told else answer


def _interface(plan: Plan, text: str) -> int:
    """Index of an interface by name or index."""
    interfaces = plan.environment.interfaces
    for index, name in interfaces.items():
        if text in (name, str(index)):
            return index
    names = ", ".join(f"{name} ({index})" for index, name in sorted(interfaces.items()))
    raise InspectError(f"{text!r} is no interface of this host; accepted: {names or 'none, there are none'}")


def flush_engine(settings: Settings) -> str:
    """Remove our policies, tunnels and charon; one line that says how many. Raises InspectError."""
    if not settings.state.is_dir():
        raise InspectError(f"there is no state folder {settings.state}; accepted: the --state that the agent was given")
    try:
        lock = StoreLock(settings.state)
    except StoreError as error:
        raise InspectError(f"{error}; its policies would come back at once") from None
    try:
        policies, connections, charon = asyncio.run(_flush(settings.state / CHARON_FOLDER))
    except EngineError as error:
        raise InspectError(str(error)) from None
    finally:
        lock.release()
    ended = "charon ended" if charon else f"no charon of {settings.state} was running"
    return f"removed: policies {policies}, connections {connections}; {ended}"


async def _flush(run_folder: Path) -> tuple[int, int, bool]:
    """How many policies and connections went, and whether charon ran: then its tunnels end in order, and it too."""
    from agent.backends.charon.ike import CharonIke
    from agent.backends.links import KernelLinks
    from agent.backends.memory import MemoryIke
    from agent.backends.nftables import NftTable, find_nft
    from agent.backends.spd import KernelSpd

    def no_secrets(peer: int, sealed: bytes) -> bytes:
        raise EngineError("flush loads no secret")

    spd, charon, sole = KernelSpd(), CharonIke(run_folder, no_secrets), Sole()
    await spd.start()
    try:
        if find_nft() is not None:
            await NftTable().purge()
        links = KernelLinks()
        await links.start()
        await links.purge()
        await links.stop()
        if not charon.daemon.alive():
            return *await flush(spd, MemoryIke()), False
        await charon.start()
        try:
            return *await flush(spd, charon), True
        finally:
            await charon.shutdown()
    finally:
        await spd.stop()
        sole.release()


def load_spd(settings: Settings) -> str:
    """Put the policies of the stored configuration into the kernel, with no charon and before there is a network; one
    line that says how many. Ours that are there are replaced, others' stay. Raises InspectError, also where it was
    done with an older copy."""
    try:
        state = read_served(load_schema(), settings.store, settings.state)
    except StoreMissing as error:  # before the agent's first start
        return f"no policies loaded: {error}"
    except StoreError as error:
        raise InspectError(f"no policies loaded: {error}") from None
    try:
        wanted, failed = asyncio.run(_load(state))
    except EngineError as error:
        raise InspectError(str(error)) from None
    if failed:
        key, text = next(iter(failed.items()))
        raise InspectError(
            f"policies loaded: {wanted - len(failed)} of {wanted}; the first that is not, "
            f"{key.direction.name.lower()} {show_selector(key.selector)}: {text}"
        )
    if state.damage:
        raise InspectError(f"policies loaded: {wanted}; {state.damage}")
    off = "" if wanted else "; IPsec is switched off (ipsecGlobEnabled)"
    return f"policies loaded: {wanted}{off}"


async def _load(state: StoredState) -> tuple[int, Mapping[PolicyKey, str]]:
    """How many policies are wanted, and those that the kernel does not take, with the reason."""
    from agent.backends.host import LinuxHost, literal
    from agent.backends.spd import KernelSpd

    class Early(LinuxHost):
        """Before the network nobody answers for names: a peer with one blocks until the agent has looked it up."""

        async def resolve(self, name: str) -> tuple[bytes, ...]:
            return () if (address := literal(name)) is None else (address,)

    sole, spd = Sole(), KernelSpd()
    try:
        plan, _ = await _plan_on(Early(), capabilities_here("linux"), state)
        await spd.start()
        try:
            held = await spd.observe()
            strays = [key for key, policy in held.items() if policy.ours and key not in plan.policies]
            missing = [
                policy
                for key, policy in plan.policies.items()
                if (there := held.get(key)) is None or there[2:] != (*policy[1:4], True)
            ]
            failed = await spd.apply(strays, in_order(missing, held))
            await _mark(plan)
            await lead(plan.links, KernelLinks())
            return len(plan.policies), failed
        finally:
            await spd.stop()
    finally:
        sole.release()


async def lead(wanted: Mapping[int, VirtualLink], links: KernelLinks) -> None:
    """Have virtual interfaces, their routes, and what stands behind these, there before the network is. Raises
    EngineError. What cannot be made is told by the agent."""
    if not wanted:
        return
    await links.start()
    try:
        links.want(wanted, (), removing=False)
        await links.idle.wait()
    finally:
        await links.stop()


async def _mark(plan: Plan) -> None:
    """Have the packet filter do what the policies count on. Raises EngineError."""
    from agent.backends.nftables import NftTable

    wanted = {name: plan.filters[name].part for name in (inbound.PART, outbound.PART) if name in plan.filters}
    if not wanted:
        return
    table = NftTable()
    await table.start()
    try:
        for name, part in wanted.items():
            table.want(name, part)
        await table.idle.wait()
        if problem := next(filter(None, map(table.problem, wanted)), ""):
            raise EngineError(problem)
    finally:
        await table.stop()


def stored(settings: Settings) -> StoredState:
    try:
        return read_store(load_schema(), settings.store, settings.state)
    except StoreMissing as error:
        raise InspectError(f"{error}; accepted: the --state, and --store, that the agent was given") from None
    except StoreError as error:
        raise InspectError(str(error)) from None


async def plan_of(
    settings: Settings, state: StoredState, towards: Sequence[bytes] = ()
) -> tuple[Plan, Sequence[Route]]:
    """The plan for the stored configuration on this host, and its routes to some addresses."""
    host: Host
    if settings.backend == "memory":
        from agent.backends.memory import MemoryHost

        host = MemoryHost(interfaces=dict(socket.if_nameindex()))
    else:
        from agent.backends.host import LinuxHost

        host = LinuxHost()
    return await _plan_on(host, capabilities_here(settings.backend), state, towards)


async def _plan_on(
    host: Host, capabilities: Capabilities, state: StoredState, towards: Sequence[bytes] = ()
) -> tuple[Plan, Sequence[Route]]:
    """The plan on a host, which is started and stopped here, and the host's routes."""
    await host.start()
    surroundings = Surroundings(host, capabilities, lambda: None)
    try:
        await surroundings.rebuild(state.configuration)
        takeovers = takeovers_of(state.numbers.get(TAKEOVERS, {}))
        if takeovers:
            settings = {row.number: read_settings(row) for row in state.configuration.rows(PEER_TABLE)}
            surroundings.stood_for(stand_ins(still_lost(takeovers, settings), settings))
        environment = surroundings.environment(state.numbers.get(REQIDS, {}))
        return make_plan(state.configuration, environment), [host.route_to(address) for address in towards]
    finally:
        await surroundings.stop()
        await host.stop()


def _address(text: str) -> bytes:
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise InspectError(f"{text!r} is no address; accepted: an IPv4 or IPv6 address") from None


def _protocol(text: str) -> int:
    if text.isdigit() and int(text) <= 255:
        return int(text)
    try:
        return socket.getprotobyname({"icmp6": "ipv6-icmp"}.get(text, text))
    except OSError:
        raise InspectError(f"{text!r} is no protocol; accepted: 0..255, icmp, tcp, udp, …") from None
