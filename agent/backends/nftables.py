"""Our nftables table: made as a whole by `nft`, looked at again, and healed when somebody touches it.

Whoever wants something in it hands a `Part` over (plan/filtering.py) and is told whether it
is in force. All parts are one transaction, so no packet meets half of it; a part that the
kernel refuses is left out, so that it does not take the others along. Counters keep their
values while the rest is replaced. What others have in nftables is never looked at. Stopping
leaves the table; `purge` removes it. Sources: nft(8), linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agent.backends import tasks
from agent.backends.engine import Counted, EngineError, FilterListener
from agent.backends.xfrm.messages import attributes
from agent.backends.xfrm.netlink import Message, NetlinkSocket, close_all
from agent.plan.filtering import Part, check_names, script
from agent.plan.numbers import NFT_TABLE

logger = logging.getLogger(__name__)

FAMILY: Final = "inet"
NETLINK_NETFILTER: Final = 12
GROUP_NFTABLES: Final = 7  # NFNLGRP_NFTABLES
TABLE_NAME: Final = 1  # NFTA_TABLE_NAME, NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_TABLE …
GENERIC_OCTETS: Final = 4
SETTLE_SECONDS: Final = 0.05  # wishes that come together are one transaction
COMMAND_SECONDS: Final = 20.0
NO_NFTABLES: Final = "Operation not supported"  # what nft says of a kernel without it: then there is no table either
OBJECTS: Final = ("chain", "set", "counter")  # of what a table of ours holds; all are named

PROBE: Final = """
table inet ipsec_agent_probe {
  counter c { }
  set s { typeof ipsec out reqid; flags interval; auto-merge; elements = { 65536-65540 } }
  chain a { type filter hook prerouting priority -300; policy accept
    iif != 1 meta ipsec missing ip saddr 192.0.2.0/24 counter name "c" drop
    iif 1 meta mark set meta mark or 0x1
  }
  chain b { type filter hook forward priority -150; policy accept
    ipsec out reqid @s tcp flags syn tcp option maxseg size set 1200
    ipsec in reqid 65536 tcp flags syn tcp option maxseg size set 1200
  }
  chain c { type route hook output priority -160; policy accept
    rt ipsec exists meta l4proto { 4, 41 } accept
    rt ipsec missing oif != { 1, 2 } ip6 saddr != { 2001:db8::1 } accept
    meta mark set meta mark and 0xfff or 0x1000
  }
}
"""
"""What our parts are made of, for `probe`: it is checked by the kernel and never in force."""


def find_nft() -> str | None:
    return shutil.which("nft", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin")


def probe(command: Sequence[str] = ()) -> str:
    """Why nftables cannot be used here; '' when all that our parts need is there. Takes some 20 ms."""
    found = find_nft()
    if not command and found is None:
        return "there is no nft command (package nftables)"
    words = [*(command or (str(found),)), "-c", "-f", "-"]
    try:
        done = subprocess.run(
            words, input=PROBE, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nft: {error}"
    return first_error(done.stderr) if done.returncode else ""


class NftTable:
    """`command`: how to call nft, for tests in another network namespace; `open_events` makes a socket in it."""

    def __init__(
        self,
        command: Sequence[str] = (),
        open_events: Callable[[], NetlinkSocket] = lambda: NetlinkSocket(NETLINK_NETFILTER, (GROUP_NFTABLES,)),
    ) -> None:
        self._command = tuple(command)
        self._open_events = open_events
        self._events: NetlinkSocket | None = None
        self._wanted: dict[str, Part] = {}
        self._problems: dict[str, str] = {}
        self._listeners: list[FilterListener] = []
        self._wake, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self._anew = False  # not only compare: make it again
        self._again = False  # making or removing it failed
        self._reference: list[str] | None = None  # how nft lists what we made last
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Nothing is touched before the first `want`. Where nftables is missing, that is told by `problem`."""
        with contextlib.suppress(EngineError):
            self._events = self._open_events()
            # of busy hosts' tables (bans that come and go, containers) much is announced; only ours is looked at
            self._events.watch(self._changed, is_ours)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; the table stays."""
        await tasks.end(self._task)
        close_all(self._events)
        self._task = self._events = None

    def subscribe(self, listener: FilterListener) -> None:
        """Called on the loop when a part's `problem` may be another than before."""
        self._listeners.append(listener)

    def want(self, name: str, part: Part | None) -> None:
        """What this purpose wants from now on, None for nothing; made real soon. Raises ValueError for names that are
        not the part's own."""
        if part is not None:
            check_names(name, part)
        if self._wanted.get(name) == part and not (part is None and self._reference is None):
            return
        if part is None:
            self._wanted.pop(name, None)
        else:
            self._wanted[name] = part
        self._anew = True
        self._awaken()

    def problem(self, name: str) -> str:
        """Why a part is not in force, '' when it is (or is about to be)."""
        return self._problems.get(name, "")

    def look_again(self) -> None:
        """Compare with what is there, and try again what failed."""
        if self._problems or self._again:
            self._anew, self._again = True, False
        self._awaken()

    async def counters(self) -> Mapping[str, Counted]:
        """Values of all our counters. Raises EngineError."""
        return {
            entry["name"]: Counted(entry["packets"], entry["bytes"])
            for kind, entry in await self._list()
            if kind == "counter"
        }

    async def purge(self) -> None:
        """Remove the table, nothing when there is none. Raises EngineError."""
        where = f"{FAMILY} {NFT_TABLE}"
        self._reference = None
        try:
            await self._nft(f"table {where}\ndelete table {where}\n")
        except EngineError as error:
            if NO_NFTABLES not in str(error):
                raise

    # ---- the work -----------------------------------------------------------------------

    def _awaken(self) -> None:
        self.idle.clear()
        self._wake.set()

    def _changed(self) -> None:
        if self._reference is not None:
            self._awaken()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            try:
                if self._anew or await self._touched():
                    self._anew = False
                    await self._make()
            except EngineError as error:
                self._again = True
                self._say(dict.fromkeys(self._wanted, str(error)))
            except Exception as defect:
                logger.exception("nftables: our table could not be made")
                self._again = True
                self._say(dict.fromkeys(self._wanted, f"nftables: {defect}"))
            if not self._wake.is_set():
                self.idle.set()

    async def _touched(self) -> bool:
        if self._reference is None:
            return False
        if listing(await self._list()) == self._reference:
            return False
        logger.warning("nftables: table %s was changed by somebody else; it is made again", NFT_TABLE)
        return True

    async def _make(self) -> None:
        wanted = dict(self._wanted)
        held = await self._list()
        if not wanted:
            if held:
                await self.purge()
            self._reference = None
            self._say({})
            return
        problems: dict[str, str] = {}
        try:
            await self._replace(wanted.values(), held)
        except EngineError as error:
            for name, part in list(wanted.items()):
                problem = await self._refused(part)
                if problem:
                    problems[name] = problem
                    del wanted[name]
            if not problems:  # each is good alone; the table was perhaps touched between
                problems = dict.fromkeys(wanted, str(error))
            else:
                await self._replace(wanted.values(), await self._list())
        self._reference = listing(await self._list())
        self._say(problems)

    async def _replace(self, parts: Iterable[Part], held: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        parts = list(parts)
        counters = frozenset[str]().union(*(part.counters for part in parts))
        stale = [
            (kind, entry["name"])
            for kind, entry in held
            if kind in OBJECTS and not (kind == "counter" and entry["name"] in counters)
        ]
        await self._nft(script(FAMILY, NFT_TABLE, parts, stale))

    async def _refused(self, part: Part) -> str:
        """What the kernel has against a part alone, '' when nothing."""
        try:
            await self._nft(script(FAMILY, f"{NFT_TABLE}_trial", [part], ()), "-c")
        except EngineError as error:
            return str(error)
        return ""

    def _say(self, problems: dict[str, str]) -> None:
        if problems == self._problems:
            return
        for name, text in problems.items():
            if self._problems.get(name) != text:
                logger.warning("nftables: %s is not in force: %s", name, text)
        self._problems = problems
        for listener in self._listeners:
            listener()

    # ---- nft ----------------------------------------------------------------------------

    async def _list(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(kind, entry) of all in our table, [] where there is none."""
        try:
            text = await self._nft("", "-j", "list", "table", FAMILY, NFT_TABLE)
        except EngineError as error:
            if "No such file or directory" in str(error):
                return []
            raise
        entries = json.loads(text)["nftables"]
        return [(kind, entry) for each in entries for kind, entry in each.items() if kind != "metainfo"]

    async def _nft(self, text: str, *arguments: str) -> str:
        """Run nft, with a script on its input unless the arguments are a command. Raises EngineError with its first
        error."""
        command = self._command or ((found,) if (found := find_nft()) else ())
        if not command:
            raise EngineError("there is no nft command (package nftables)")
        if text:
            arguments = (*arguments, "-f", "-")
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment()
            )
        except OSError as error:
            raise EngineError(f"nft: {error.strerror}") from error
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate(text.encode())
        except TimeoutError:
            raise EngineError(f"nft did not end within {COMMAND_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise EngineError(first_error(err.decode("utf-8", "replace")))
        return out.decode()


def is_ours(message: Message) -> bool:
    """Whether an announcement is about our table: its name is the first attribute of all of them
    (linux/netfilter/nf_tables.h) behind four octets of struct nfgenmsg."""
    name = NFT_TABLE.encode() + b"\0"
    return any(
        type == TABLE_NAME and message.data[start:end] == name
        for type, start, end in attributes(message.data, message.start + GENERIC_OCTETS, message.end)
    )


def listing(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Entries of a table in a form that is equal for equal contents: without handles and counts."""
    return sorted(f"{kind} {json.dumps(_without_counts(entry), sort_keys=True)}" for kind, entry in _in_place(entries))


def _in_place(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rules with their place in their chain, sets with their elements in order."""
    places: dict[str, int] = {}
    for kind, entry in entries:
        if kind == "rule":
            places[entry["chain"]] = places.get(entry["chain"], 0) + 1
            entry = {**entry, "place": places[entry["chain"]]}
        elif kind == "set":
            entry = {**entry, "elem": sorted(json.dumps(element) for element in entry.get("elem", ()))}
        yield kind, entry


def _without_counts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_counts(each) for key, each in value.items() if key not in {"handle", "packets", "bytes"}}
    if isinstance(value, list):
        return [_without_counts(each) for each in value]
    return value


def first_error(stderr: str) -> str:
    """`/dev/stdin:13:4-69: Error: Could not process rule: Operation not supported`, the line it is about → both."""
    lines = stderr.strip().splitlines()
    for at, line in enumerate(lines):
        _, found, text = line.partition("Error: ")
        if found:
            about = lines[at + 1].strip() if at + 1 < len(lines) else ""
            return f"nft: {text}" + (f" ({about})" if about else "")
    return f"nft: {lines[0] if lines else 'failed without a word'}"


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
