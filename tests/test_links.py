"""Links, addresses and routes on the running kernel, in a namespace. Where it has no XFRM interfaces another kind of
virtual link stands for them: numbers, addresses and routes are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from agent.backends.links import NO_KIND, KernelLinks, probe
from agent.backends.rtnetlink import (
    GROUPS,
    RTM_DELROUTE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    XFRM_KIND,
    read_link,
    read_route,
)
from agent.backends.xfrm.netlink import NetlinkSocket
from agent.inspect import lead
from agent.plan.links import MAIN_TABLE, NOWHERE, Address, CallRoute, Route, RoutingRule, Standing, VirtualLink
from agent.plan.model import Prefix
from tests.xfrm_namespace import Namespace, cable, namespaces, until

NUMBER, NAME = 100_007, "ipsec7"
V6 = bytes.fromhex("20010db8000700000000000000000001")
pytestmark = pytest.mark.kernel

ADDRESSES = (
    Address(bytes([10, 7, 0, 1]), 30),
    Address(bytes([10, 7, 9, 1]), 32, bytes([10, 7, 9, 2])),
    Address(V6, 64),
)
ROUTES = (
    Route(Prefix(bytes([172, 20, 0, 0]), 16), NUMBER, 5),
    Route(Prefix(bytes.fromhex("20010db8ffff") + bytes(10), 48), NUMBER),
)
LINK = VirtualLink(7, NUMBER, NAME, 1300, ADDRESSES, ROUTES)


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces(2) as (one, other):
        yield one, other


def kind_in(ns: Namespace) -> str:
    return "ifb" if probe(ns.route_socket) else XFRM_KIND


@asynccontextmanager
async def links_in(ns: Namespace) -> AsyncIterator[KernelLinks]:
    links = KernelLinks(open_socket=ns.route_socket, kind=kind_in(ns))
    await links.start()
    try:
        yield links
    finally:
        await links.stop()


async def without_tentative(ns: Namespace) -> None:
    """Until IPv6 addresses are in force: also where no duplicates are looked for, a thread of the kernel's sees to
    that later, and announces it."""
    await until(lambda: "tentative" not in ns.ip("addr show"))


async def quiet(links: KernelLinks) -> None:
    """Until our own announcements have been looked at too."""
    await asyncio.sleep(0)
    await links.idle.wait()
    await asyncio.sleep(0.15)
    await links.idle.wait()


def test_a_link_comes_with_addresses_and_routes_and_goes(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]

    async def scenario() -> None:
        ns.ip("route add 198.51.100.0/24 dev lo")
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            assert f"{NUMBER}: {NAME}" in ns.ip("link show") and "mtu 1300" in ns.ip(f"link show {NAME}")
            addresses = ns.ip(f"addr show {NAME}")
            assert "inet 10.7.0.1/30" in addresses and "inet 10.7.9.1 peer 10.7.9.2/32" in addresses
            assert "inet6 2001:db8:7::1/64" in addresses
            assert f"172.20.0.0/16 dev {NAME} proto 196 scope link metric 5" in ns.ip("route show")
            assert f"2001:db8:ffff::/48 dev {NAME} proto 196" in ns.ip("-6 route show")
            links.want({7: LINK._replace(mtu=1280, addresses=ADDRESSES[:1], routes=ROUTES[1:])}, ())
            await quiet(links)
            addresses = ns.ip(f"addr show {NAME}")
            assert "mtu 1280" in addresses and "10.7.0.1/30" in addresses
            assert "10.7.9.1" not in addresses and "2001:db8:7::1" not in addresses
            assert "172.20.0.0" not in ns.ip("route show") and "2001:db8:ffff::/48" in ns.ip("-6 route show")
            links.want({}, ())
            await quiet(links)
            assert NAME not in ns.ip("link show") and "198.51.100.0/24" in ns.ip("route show")

    asyncio.run(scenario())


def test_drift_is_healed_and_what_others_added_stays(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            ns.ip(f"addr add 203.0.113.9/32 dev {NAME}")
            ns.ip(f"route add 203.0.113.64/26 dev {NAME}")
            ns.ip(f"addr del 10.7.0.1/30 dev {NAME}")
            ns.ip("route del 172.20.0.0/16")
            ns.ip(f"link set {NAME} mtu 1400 down")
            await until(lambda: "mtu 1300" in ns.ip(f"link show {NAME}") and "172.20.0.0/16" in ns.ip("route show"))
            assert "10.7.0.1/30" in ns.ip(f"addr show {NAME}") and "203.0.113.9" in ns.ip(f"addr show {NAME}")
            await quiet(links)
            ns.ip(f"route add 203.0.113.64/26 dev {NAME}")  # it went with the link
            ns.ip(f"link del {NAME}")
            await until(lambda: "10.7.0.1/30" in ns.ip("addr show"))
            ns.ip(f"route add 203.0.113.64/26 dev {NAME}")
            await quiet(links)
            assert "203.0.113.64/26" in ns.ip("route show")

    asyncio.run(scenario())


def test_it_outlives_the_agent_and_nothing_is_done_twice(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            await without_tentative(ns)
            await quiet(links)
        before = ns.ip("-d addr show")
        async with links_in(ns) as links:
            events = ns.route_socket((1, 5, 7, 9, 11))
            links.want({7: LINK}, ())
            await quiet(links)
            assert ns.ip("-d addr show") == before and events.receive() == []
            events.close()
        async with links_in(ns) as links:
            await links.purge()
            assert NAME not in ns.ip("link show")

    asyncio.run(scenario())


def test_a_link_shows_how_its_peer_is(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            links.stand(7, Standing.DORMANT)
            await quiet(links)
            await until(lambda: "state DORMANT mode DORMANT" in ns.ip(f"link show {NAME}"))
            links.stand(7, Standing.UP)
            await until(lambda: "state UP mode DORMANT" in ns.ip(f"link show {NAME}"))
            links.stand(7, Standing.DOWN)
            await until(lambda: ",UP" not in ns.ip(f"link show {NAME}"))
            await quiet(links)
            assert f"172.20.0.0/16 dev {NAME}" not in ns.ip("route show")
            links.stand(7, None)
            await until(lambda: "172.20.0.0/16" in ns.ip("route show"))
            assert "mode DEFAULT" in ns.ip(f"link show {NAME}")

    asyncio.run(scenario())


def test_what_is_not_ours_is_left_alone_and_reported(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]

    async def scenario() -> None:
        ns.ip(f"link add theirs index {NUMBER} type veth peer name other")
        ns.ip("link set theirs up")
        ns.ip("route add 172.20.0.0/16 dev lo metric 6")
        async with links_in(ns) as links:
            told: list[dict[int, str]] = []
            links.subscribe(lambda problems: told.append(dict(problems)))
            eight = VirtualLink(
                8, NUMBER + 1, "ipsec8", 0, (), (Route(Prefix(bytes([172, 20, 0, 0]), 16), NUMBER + 1, 6),)
            )
            links.want({7: LINK, 8: eight}, ())
            await quiet(links)
            assert "not ours (theirs)" in told[-1][7] and "172.20.0.0/16" in told[-1][8]
            assert "theirs" in ns.ip("link show")
            ns.ip("link del theirs")
            ns.ip("route del 172.20.0.0/16 dev lo")
            await until(lambda: told[-1] == {})
            assert NAME in ns.ip("link show")

    asyncio.run(scenario())


def test_a_peer_is_called_through_the_link_chosen(spaces: tuple[Namespace, Namespace]) -> None:
    ns, other = spaces

    async def scenario() -> None:
        for name, net in (("a0", "192.0.2"), ("b0", "198.51.100")):
            cable(ns, other, name)
            ns.ip(f"addr add {net}.1/24 dev {name}")
        ns.ip("route add default via 192.0.2.254 dev a0 metric 10")
        ns.ip("route add default via 198.51.100.254 dev b0 metric 20")
        index = int(ns.ip("-o link show b0").split(":")[0])
        far, near = bytes([203, 0, 113, 5]), bytes([198, 51, 100, 9])
        async with links_in(ns) as links:
            links.want({}, [CallRoute(1, far, index), CallRoute(2, near, index), CallRoute(3, far, 999)])
            told: list[dict[int, str]] = []
            links.subscribe(lambda problems: told.append(dict(problems)))
            await quiet(links)
            assert "via 198.51.100.254 dev b0" in ns.ip("route get 203.0.113.5")
            assert "198.51.100.9 dev b0" in ns.ip("route get 198.51.100.9")
            assert "no link with number 999" in told[-1][3]
            ns.ip("route replace default via 198.51.100.253 dev b0 metric 20")  # the host route follows
            await until(lambda: "via 198.51.100.253 dev b0" in ns.ip("route get 203.0.113.5"))
            links.want({}, ())
            await quiet(links)
            assert "dev a0" in ns.ip("route get 203.0.113.5") and "proto 196" not in ns.ip("route show")

    asyncio.run(scenario())


TABLE: Final = (
    Route(Prefix(bytes(4), 0), NUMBER, table=NUMBER),
    Route(Prefix(bytes(16), 0), NUMBER, table=NUMBER),
)
ANY = Prefix(bytes(4), 0)
HERE, THERE = Prefix(bytes([10, 1, 0, 0]), 16), Prefix(bytes([10, 9, 0, 0]), 16)
OWN6 = bytes.fromhex("20010db8000100000000000000000077")
HERE6 = Prefix(bytes.fromhex("20010db80001") + bytes(10), 48)
THERE6 = Prefix(bytes.fromhex("20010db80009") + bytes(10), 48)
RULES = (
    RoutingRule(ANY, ANY, MAIN_TABLE, 17, (500, 500), own=True),
    RoutingRule(ANY, Prefix(bytes([10, 9, 7, 7]), 32), MAIN_TABLE, own=True),
    RoutingRule(HERE, THERE, NUMBER, 17, (5000, 5009), (53, 53)),
    RoutingRule(HERE, Prefix(bytes([10, 9, 7, 0]), 24), NUMBER),
    RoutingRule(HERE6, THERE6, NUMBER),
)
LED = LINK._replace(routes=TABLE, rules=RULES, addresses=(Address(V6, 64),))


def with_two_ways(spaces: tuple[Namespace, Namespace]) -> Namespace:
    """A gateway with an inside net, and a default route in plain."""
    ns = spaces[0]
    for name, own, own6 in (
        ("plain", "203.0.113.1/24", "2001:db8:99::1/64"),
        ("i0", "10.1.0.1/24", "2001:db8:1::1/64"),
    ):
        cable(*spaces, name=name)
        ns.ip(f"addr add {own} dev {name}")
        ns.ip(f"-6 addr add {own6} dev {name} nodad")
    ns.ip("route add default via 203.0.113.2 dev plain")
    ns.ip("-6 route add default via 2001:db8:99::2 dev plain")
    ns.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    return ns


def by(ns: Namespace, question: str) -> str:
    """By which link the kernel would send it, or that it would not."""
    done = ns.command("ip", "route", "get", *question.split())
    if done.returncode or "unreachable" in done.stdout:
        return "nowhere"
    return done.stdout.partition(" dev ")[2].split()[0]


@pytest.mark.parametrize("forwarded", [False, True])
def test_rules_lead_to_the_link_by_addresses_protocol_and_ports(
    spaces: tuple[Namespace, Namespace], forwarded: bool
) -> None:
    """ipsecPeerTrafficPolicy …-syncrt: RTM_NEWRULE of protocol 196, asked before the main table."""
    ns = with_two_ways(spaces)
    source, source6 = ("10.1.0.2 iif i0", "2001:db8:1::2 iif i0") if forwarded else ("10.1.0.1", "2001:db8:1::1")
    there, there6 = f"10.9.7.1 from {source}", f"2001:db8:9::1 from {source6}"
    dns = f"10.9.1.1 from {source} ipproto udp sport 5004 dport 53"

    async def scenario() -> None:
        ns.ip("rule add from 10.5.0.0/16 lookup 77 priority 20000")
        others = ns.ip("rule show"), ns.ip("-6 rule show")
        async with links_in(ns) as links:
            links.want({7: LED}, ())
            await quiet(links)
            assert [by(ns, what) for what in (there, there6, dns)] == [NAME] * 3
            assert by(ns, dns.replace("5004", "5010")) == "plain"
            assert by(ns, dns.replace("udp", "tcp")) == "plain"
            assert by(ns, f"10.9.1.1 from {source}") == "plain"
            assert by(ns, "10.9.7.1") == "plain"  # of nobody's address
            assert by(ns, f"10.9.7.7 from {source}") == (NAME if forwarded else "plain")
            assert by(ns, f"10.9.7.1 from {source} ipproto udp sport 500") == (NAME if forwarded else "plain")
            assert "proto 196" in ns.ip("rule show")
            if not forwarded:
                assert by(ns, "2001:db8:9::1") == "plain"  # its own source would be the link's, which is not among them
                await until(lambda: by(ns, "fe80::7 from fe80::1 oif plain") != "nowhere")  # once the wire is noticed
            links.want({7: LED._replace(addresses=(Address(OWN6, 128),))}, ())
            await quiet(links)
            if not forwarded:
                assert by(ns, "2001:db8:9::1") == NAME  # now it is
            links.want({7: LINK}, ())
            await quiet(links)
            assert (ns.ip("rule show"), ns.ip("-6 rule show")) == others
            assert not ns.command("ip", "route", "show", "table", str(NUMBER)).stdout
            assert [by(ns, what) for what in (there, there6, dns)] == ["plain"] * 3

    asyncio.run(scenario())


def test_what_a_rule_leads_to_a_link_that_is_down_leaves_by_no_other(spaces: tuple[Namespace, Namespace]) -> None:
    """Nor while the link cannot be made."""
    ns = with_two_ways(spaces)
    there, there6 = "10.9.7.1 from 10.1.0.1", "2001:db8:9::1 from 2001:db8:1::1"

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({7: LED}, ())
            await quiet(links)
            links.stand(7, Standing.DOWN)
            await quiet(links)
            assert (by(ns, there), by(ns, there6)) == ("nowhere", "nowhere")
            links.stand(7, None)
            await quiet(links)
            assert (by(ns, there), by(ns, there6)) == (NAME, NAME)
            links.want({}, ())
            await quiet(links)
            assert (by(ns, there), by(ns, there6)) == ("plain", "plain")
            ns.ip(f"link add {NAME} type ifb")  # somebody else's has the name
            links.want({7: LED}, ())
            await quiet(links)
            assert (by(ns, there), by(ns, there6)) == ("nowhere", "nowhere")

    asyncio.run(scenario())


def test_routing_rules_are_healed_and_outlive_the_agent(spaces: tuple[Namespace, Namespace]) -> None:
    ns = with_two_ways(spaces)

    def rules() -> tuple[str, str]:
        return ns.ip("rule show"), ns.ip("-6 rule show")

    async def scenario() -> None:
        before = rules()
        async with links_in(ns) as links:
            links.want({7: LED}, ())
            await quiet(links)
            await without_tentative(ns)
            made = rules()
            ns.ip("rule del from 10.1.0.0/16 to 10.9.7.0/24")
            ns.ip("-6 rule del from 2001:db8:1::/48 to 2001:db8:9::/48")
            await until(lambda: rules() == made)
            ns.ip(
                "rule add from 10.1.0.0/16 to 10.8.0.0/16 lookup main priority 20100 protocol 196"
            )  # bears our number
            await until(lambda: rules() == made)
            ns.ip(f"route flush table {NUMBER}")
            await until(lambda: by(ns, "10.9.7.1 from 10.1.0.1") == NAME)
        assert rules() == made
        async with links_in(ns) as links:
            events = ns.route_socket(GROUPS)
            links.want({7: LED}, ())
            await quiet(links)
            assert rules() == made and events.receive() == []
            events.close()
        async with links_in(ns) as links:
            await links.purge()
            assert rules() == before and not ns.command("ip", "route", "show", "table", str(NUMBER)).stdout

    asyncio.run(scenario())


def test_of_two_peers_the_first_comes_first_whoever_was_there_before(spaces: tuple[Namespace, Namespace]) -> None:
    """Of overlapping selectors: ipsecPeerPriority, then the number. A rule with less in it may stand behind one with
    more, and goes alone."""
    ns = with_two_ways(spaces)
    number = NUMBER + 1
    wide = RoutingRule(HERE, Prefix(bytes([10, 8, 0, 0]), 15), number)
    eight = VirtualLink(8, number, "ipsec8", 0, (), (Route(ANY, number, table=number),), (wide,), 1)
    there = "10.9.7.1 from 10.1.0.1"

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({7: LED._replace(priority=2)}, ())
            await quiet(links)
            links.want({7: LED._replace(priority=2), 8: eight}, ())
            await quiet(links)
            assert by(ns, there) == "ipsec8"
            links.want({7: LED, 8: eight}, ())
            await quiet(links)
            assert by(ns, there) == NAME and by(ns, "10.9.6.1 from 10.1.0.1") == "ipsec8"
            links.want({7: LED}, ())
            await quiet(links)
            assert by(ns, there) == NAME and by(ns, "10.9.6.1 from 10.1.0.1") == "plain"

    asyncio.run(scenario())


@pytest.mark.slow
def test_what_a_link_that_is_down_would_take_does_not_leave_by_a_larger_net(
    spaces: tuple[Namespace, Namespace],
) -> None:
    """Nor while the link cannot be made; a route of the administrator's to the same net goes before."""
    ns = spaces[0]
    there, there6 = "172.20.3.4", "2001:db8:ffff::9"

    def way(address: str) -> str:
        done = ns.command("ip", "route", "get", address)
        if done.returncode:
            assert "unreachable" in done.stderr or "No route to host" in done.stderr, done.stderr
            return "nowhere"
        return "nowhere" if "unreachable" in done.stdout else done.stdout.partition(" dev ")[2].split()[0]

    async def scenario() -> None:
        cable(*spaces, name="plain")
        ns.ip("addr add 203.0.113.1/24 dev plain")
        ns.ip("-6 addr add 2001:db8:99::1/64 dev plain nodad")
        ns.ip("route add default via 203.0.113.2 dev plain")
        ns.ip("-6 route add default via 2001:db8:99::2 dev plain")
        assert (way(there), way(there6)) == ("plain", "plain")
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            assert (way(there), way(there6)) == (NAME, NAME)
            links.stand(7, Standing.DOWN)
            await quiet(links)
            assert (way(there), way(there6)) == ("nowhere", "nowhere")
            ns.ip("route add 172.20.0.0/16 via 203.0.113.2 metric 500")
            assert way(there) == "plain"
            ns.ip("route del 172.20.0.0/16 metric 500")
            before = ns.ip("route show table main"), ns.ip("-6 route show table main")
            links.look_again()
            await quiet(links)
            assert before == (ns.ip("route show table main"), ns.ip("-6 route show table main"))
            ns.ip("link add ipsec8 type ifb")  # somebody else's has the name
            eight = VirtualLink(
                8, NUMBER + 1, "ipsec8", 0, (), (Route(Prefix(bytes([172, 21, 0, 0]), 16), NUMBER + 1),)
            )
            links.want({7: LINK, 8: eight}, ())
            await quiet(links)
            assert way("172.21.1.1") == "nowhere"
            links.want({7: LINK}, (), removing=False)
            await quiet(links)
            assert way("172.21.1.1") == "nowhere"
            links.want({}, ())
            await quiet(links)
            assert (way(there), way(there6), way("172.21.1.1")) == ("plain", "plain", "plain")

    asyncio.run(scenario())


def test_nothing_is_without_a_guard_in_between(spaces: tuple[Namespace, Namespace]) -> None:
    """Neither while thousands of links are being made nor while a route becomes another: what leads nowhere comes
    before anything else and goes after."""
    ns = spaces[0]

    def heard(watching: NetlinkSocket) -> list[tuple[int, bytes, bool]]:
        """(message type, destination or nothing for a link, whether it leads nowhere)"""
        found = []
        while messages := watching.receive():
            for message in messages:
                route = read_route(message) if message.type in (RTM_NEWROUTE, RTM_DELROUTE) else None
                if route is not None and route.ours:
                    destination = route.route.destination.address[:2]
                    found.append((message.type, destination, route.route.interface == NOWHERE))
                elif message.type == RTM_NEWLINK and read_link(message).number == NUMBER:
                    found.append((RTM_NEWLINK, b"", False))
        return found

    async def scenario() -> None:
        wide, narrow = (Route(Prefix(bytes([172, net, 0, 0]), length), NUMBER) for net, length in ((16, 12), (20, 16)))
        async with links_in(ns) as links:
            with ns.route_socket((1, 7)) as watching:
                links.want({7: LINK._replace(routes=(wide,))}, ())
                await quiet(links)
                told = heard(watching)
                guard = (RTM_NEWROUTE, bytes([172, 16]), True)
                assert told.index(guard) < told.index((RTM_NEWLINK, b"", False))
                links.want({7: LINK._replace(routes=(narrow,))}, ())
                await quiet(links)
                assert [each for each in heard(watching) if each[1]] == [
                    (RTM_NEWROUTE, bytes([172, 20]), True),
                    (RTM_DELROUTE, bytes([172, 16]), False),
                    (RTM_NEWROUTE, bytes([172, 20]), False),
                    (RTM_DELROUTE, bytes([172, 16]), True),
                ]

    asyncio.run(scenario())


def test_interfaces_and_routes_are_there_before_the_network_is(spaces: tuple[Namespace, Namespace]) -> None:
    """`load-spd` makes them; the agent finds nothing to do. What is there already stays for the agent to judge."""
    ns = spaces[0]

    async def scenario() -> None:
        async with links_in(ns) as links:
            links.want({8: VirtualLink(8, NUMBER + 1, "ipsec8", 0)}, ())
            await quiet(links)
        await lead({7: LINK}, KernelLinks(open_socket=ns.route_socket, kind=kind_in(ns)))
        assert f"172.20.0.0/16 dev {NAME}" in ns.ip("route show")
        assert "unreachable 172.20.0.0/16" in ns.ip("route show") and "ipsec8" in ns.ip("link show")
        await without_tentative(ns)
        before = ns.ip("-d addr show")
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            assert "ipsec8" not in ns.ip("link show")
        assert ns.ip(f"-d addr show {NAME}") in before

    asyncio.run(scenario())


@pytest.mark.slow
def test_routes_of_others_may_come_and_go(spaces: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    """A router's table changes many times a second; each time ours would be listed."""
    ns = spaces[0]

    async def scenario() -> None:
        cable(*spaces, name="plain")
        async with links_in(ns) as links:
            links.want({7: LINK}, ())
            await quiet(links)
            await without_tentative(ns)
            await asyncio.sleep(0.3)
            await quiet(links)
            looked = 0
            reconcile = links._reconcile

            async def counted() -> None:
                nonlocal looked
                looked += 1
                await reconcile()

            monkeypatch.setattr(links, "_reconcile", counted)
            for number in range(5):
                ns.ip(f"route add 198.51.{number}.0/24 dev plain")
                await asyncio.sleep(0.15)
            ns.ip("addr add 203.0.113.1/24 dev plain")
            await asyncio.sleep(0.3)
            assert looked == 0
            ns.ip(f"route del 172.20.0.0/16 dev {NAME}")
            await until(lambda: f"172.20.0.0/16 dev {NAME}" in ns.ip("route show"))

    asyncio.run(scenario())


def test_a_kernel_without_xfrm_interfaces_says_so(spaces: tuple[Namespace, Namespace]) -> None:
    ns = spaces[0]
    reason = probe(ns.route_socket)
    assert reason in ("", NO_KIND) and "ipsecprobe" not in ns.ip("link show")
    if not reason:
        return

    async def scenario() -> None:
        links = KernelLinks(open_socket=ns.route_socket)
        told: list[dict[int, str]] = []
        links.subscribe(lambda problems: told.append(dict(problems)))
        await links.start()
        links.want({7: LINK}, ())
        await quiet(links)
        assert told == [{7: NO_KIND}]
        await links.stop()

    asyncio.run(scenario())
