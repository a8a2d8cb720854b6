"""Our nftables table on the running kernel: one transaction, kept counters, healing, and only ours is touched."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from agent.backends.engine import EngineError
from agent.backends.nftables import GROUP_NFTABLES, NETLINK_NETFILTER, NftTable, find_nft, first_error, probe
from agent.backends.xfrm.netlink import NetlinkSocket
from agent.plan.filtering import PRIORITY_FILTER, PRIORITY_RAW, Chain, NamedSet, Part, quoted
from tests.xfrm_namespace import Namespace, namespaces, until

pytestmark = pytest.mark.kernel

COUNTING = Part(
    (Chain("seen_in", "input", PRIORITY_FILTER, ('ip protocol icmp counter name "seen_icmp"',)),),
    counters=frozenset({"seen_icmp"}),
)
DROPPING = Part(
    (Chain("dropped_in", "input", PRIORITY_RAW, ("ip saddr @dropped_nets drop",)),),
    (NamedSet("dropped_nets", "type ipv4_addr", ("192.0.2.0/24", "192.0.2.7", "198.51.100.1-198.51.100.9")),),
)


@pytest.fixture
def ns() -> Iterator[Namespace]:
    if find_nft() is None or shutil.which("ping") is None:
        pytest.skip("needs nft and ping")
    with namespaces(1) as (namespace,):
        reason = probe(("ip", "netns", "exec", namespace.name, "nft"))
        if reason:
            pytest.skip(reason)
        yield namespace


@asynccontextmanager
async def table_in(ns: Namespace) -> AsyncIterator[NftTable]:
    table = NftTable(
        ("ip", "netns", "exec", ns.name, "nft"),
        lambda: ns.run(lambda: NetlinkSocket(NETLINK_NETFILTER, (GROUP_NFTABLES,))),
    )
    await table.start()
    try:
        yield table
    finally:
        await table.stop()


def rules(ns: Namespace) -> str:
    return ns.command("nft", "list", "ruleset").stdout


def test_parts_come_and_go_and_counters_keep_their_values(ns: Namespace) -> None:
    async def scenario() -> None:
        async with table_in(ns) as table:
            table.want("seen", COUNTING)
            await table.idle.wait()
            assert ns.command("ping", "-c", "2", "-i", "0.01", "127.0.0.1").returncode == 0
            assert (await table.counters())["seen_icmp"].packets == 4
            table.want("dropped", DROPPING)
            await table.idle.wait()
            assert "192.0.2.0/24" in rules(ns) and "198.51.100.1-198.51.100.9" in rules(ns)
            assert (await table.counters())["seen_icmp"].packets == 4
            table.want("seen", None)
            await table.idle.wait()
            assert await table.counters() == {} and "icmp" not in rules(ns)
            table.want("dropped", None)
            await table.idle.wait()
            assert rules(ns) == ""

    asyncio.run(scenario())


def test_it_outlives_the_agent_and_the_next_one_adopts_it(ns: Namespace) -> None:
    async def scenario() -> None:
        async with table_in(ns) as table:
            table.want("seen", COUNTING)
            await table.idle.wait()
        ns.command("ping", "-c", "1", "127.0.0.1")
        async with table_in(ns) as table:
            table.want("seen", COUNTING)
            await table.idle.wait()
            assert (await table.counters())["seen_icmp"].packets == 2
        async with table_in(ns) as table:  # one that wants nothing any more
            table.want("seen", None)
            await table.idle.wait()
            assert rules(ns) == ""

    asyncio.run(scenario())


def test_what_others_remove_is_made_again_and_what_is_theirs_stays(ns: Namespace) -> None:
    async def scenario() -> None:
        ns.command("nft", "add", "table", "inet", "theirs")
        async with table_in(ns) as table:
            table.want("dropped", DROPPING)
            await table.idle.wait()
            ns.command("nft", "delete", "table", "inet", "ipsec_agent")
            await until(lambda: "dropped_in" in rules(ns))
            await table.idle.wait()
            ns.command("nft", "delete", "element", "inet", "ipsec_agent", "dropped_nets", "{ 192.0.2.0/24 }")
            await until(lambda: "192.0.2.0/24" in rules(ns))
            await table.idle.wait()
            ns.command("nft", "insert", "rule", "inet", "ipsec_agent", "dropped_in", "accept")
            await until(lambda: "\t\taccept" not in rules(ns))
            await table.purge()
            assert rules(ns) == "table inet theirs {\n}\n"

    asyncio.run(scenario())


def test_a_part_that_the_kernel_refuses_does_not_take_the_others_along(ns: Namespace) -> None:
    wrong = Part((Chain("wrong_out", "postrouting", 0, ("ipsec in reqid 7 drop",)),))  # not on this hook

    async def scenario() -> None:
        async with table_in(ns) as table:
            told: list[str] = []
            table.subscribe(lambda: told.append(table.problem("wrong")))
            table.want("wrong", wrong)
            table.want("seen", COUNTING)
            await table.idle.wait()
            assert "Operation not supported" in table.problem("wrong") and "ipsec in reqid 7" in table.problem("wrong")
            assert table.problem("seen") == "" and "seen_icmp" in rules(ns) and "wrong" not in rules(ns)
            table.want("wrong", None)
            await table.idle.wait()
            assert table.problem("wrong") == "" and len(told) == 2

    asyncio.run(scenario())


def test_tables_of_others_may_be_busy(ns: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts ban and unban many times a second; each time `nft` would be run."""

    async def scenario() -> None:
        async with table_in(ns) as table:
            table.want("seen", COUNTING)
            await table.idle.wait()
            await asyncio.sleep(0.2)  # what was announced of our own table has been looked at
            await table.idle.wait()
            asked = 0
            listed = table._list

            async def counted() -> object:
                nonlocal asked
                asked += 1
                return await listed()

            monkeypatch.setattr(table, "_list", counted)
            ns.command("nft", "add table inet others; add set inet others s { type ipv4_addr; }")
            for number in range(5):
                ns.command("nft", f"add element inet others s {{ 192.0.2.{number} }}")
                await asyncio.sleep(0.1)
            assert asked == 0
            ns.command("nft", "flush chain inet ipsec_agent seen_in")
            await until(lambda: "protocol icmp" in rules(ns))
            assert asked

    asyncio.run(scenario())


def test_a_table_that_could_not_be_removed_is_tried_again(ns: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with table_in(ns) as table:
            table.want("seen", COUNTING)
            await table.idle.wait()
            asked = table._nft

            async def fails(text: str, *arguments: str) -> str:
                if text:
                    raise EngineError("Device or resource busy")
                return await asked(text, *arguments)

            monkeypatch.setattr(table, "_nft", fails)
            table.want("seen", None)
            await table.idle.wait()
            monkeypatch.setattr(table, "_nft", asked)
            assert rules(ns)
            table.look_again()
            await table.idle.wait()
            assert rules(ns) == ""

    asyncio.run(scenario())


def test_without_nft_a_part_says_so() -> None:
    async def scenario() -> None:
        table = NftTable(("/nonexistent/nft",))
        await table.start()
        table.want("seen", COUNTING)
        await table.idle.wait()
        assert "No such file" in table.problem("seen")
        await table.stop()

    asyncio.run(scenario())
    assert "No such file" in probe(("/nonexistent/nft",))


def test_names_are_the_parts_own() -> None:
    table = NftTable()
    with pytest.raises(ValueError, match="seen_in"):
        table.want("other", COUNTING)


@pytest.mark.parametrize("text", ["", 'a"b', "a\nb", "x" * 128])
def test_what_nft_cannot_hold_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="nft"):
        quoted(text)


def test_the_first_error_names_the_rule() -> None:
    stderr = "/dev/stdin:3:4-9: Error: Could not process rule: Operation not supported\n   ipsec in\n   ^^^^\n"
    assert first_error(stderr) == "nft: Could not process rule: Operation not supported (ipsec in)"
    assert first_error("") == "nft: failed without a word"
