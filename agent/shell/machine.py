"""What the shell does on the machine it runs on, which need not be the agent's: it says so each time.

Programs run without a shell of the system, with arguments that a table allows, without input,
and what they write passes through `harmless` like everything else. Which of them a session may
use is its `Machine`: all of them at a local terminal; over SSH, where it is the gateway that
they run on, what the server grants.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.shell.outcome import FAILED, OK, CannotDo, Problem
from agent.shell.values import harmless

if TYPE_CHECKING:
    from agent.shell.session import Session

Check = Callable[[str], bool]
KILL_SECONDS: Final = 2.0  # a program that was told to end has so long to do it
CHUNK: Final = 4096  # octets


def is_host(text: str) -> bool:
    """An address or a name of RFC 1123: nothing that a program could take for an option."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    return len(text) <= 253 and re.fullmatch(rf"{label}(\.{label})*\.?", text) is not None


def _between(low: int, high: int) -> Check:
    def check(text: str) -> bool:
        return re.fullmatch(r"\d{1,6}", text) is not None and low <= int(text) <= high

    return check


def _is_interface(text: str) -> bool:
    return is_host(text) or re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", text) is not None


@dataclass(frozen=True, slots=True)
class Tool:
    """`variants`: programs with their fixed arguments, run one after the other. `options`: those that can be given,
    with what checks their value, None where they have none. `hosts`: least and most names or addresses."""

    variants: tuple[tuple[str, ...], ...]
    usage: str
    options: dict[str, Check | None]
    hosts: tuple[int, int] = (0, 0)
    defaults: tuple[str, ...] = ()


FAMILIES: Final[dict[str, Check | None]] = {"-4": None, "-6": None, "-n": None}

TOOLS: Final[dict[str, Tool]] = {
    "ping": Tool(
        (("ping",),),
        "ping [-4|-6] [-n] [-c count] [-s octets] [-i seconds] [-W seconds] [-I source] host",
        {
            **FAMILIES,
            "-c": _between(1, 10000),
            "-s": _between(0, 65507),
            "-i": _between(1, 3600),
            "-W": _between(1, 3600),
            "-I": _is_interface,
        },
        hosts=(1, 1),
        defaults=("-c", "4"),
    ),
    "traceroute": Tool(
        (("traceroute",),),
        "traceroute [-4|-6] [-n] [-I] [-m hops] [-q probes] [-w seconds] [-s source] host",
        {
            **FAMILIES,
            "-I": None,
            "-m": _between(1, 255),
            "-q": _between(1, 10),
            "-w": _between(1, 60),
            "-s": is_host,
        },
        hosts=(1, 1),
    ),
    "nslookup": Tool((("nslookup",),), "nslookup host [server]", {}, hosts=(1, 2)),
    "ps": Tool((("ps", "-e", "-o", "pid,ppid,user,stat,etime,rss,comm"),), "ps", {}),
    "ifstat": Tool((("ip", "-s", "-h", "link", "show"),), "ifstat", {}),
    "ifconfig": Tool((("ip", "-brief", "address", "show"),), "ifconfig", {}),
    "netstat -i": Tool((("ip", "-s", "-h", "link", "show"),), "netstat -i", {}),
    "netstat -r": Tool((("ip", "route", "show"), ("ip", "-6", "route", "show")), "netstat -r", {}),
}
"""By the words that call them."""

LOCAL: Final = frozenset({*(name.partition(" ")[0] for name in TOOLS), "date"})
"""All of them, for somebody who has a terminal of the machine anyway."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`allowed`: commands that a session may use; `why_not`: what is said of the others; `called`: how the machine
    is spoken of."""

    allowed: frozenset[str] = LOCAL
    why_not: str = "is not allowed in this session"
    called: str = "this machine"


async def run(session: Session, words: Sequence[str]) -> int:
    """ping, traceroute and so on, until it ends or the command is interrupted. Raises Problem."""
    _check_allowed(session, words[0])
    name = next((called for called in (" ".join(words[:2]), words[0]) if called in TOOLS), "")
    if not name:
        known = [tool.usage for called, tool in TOOLS.items() if called.partition(" ")[0] == words[0]]
        raise Problem(f"accepted: {' or '.join(known)}")
    tool = TOOLS[name]
    arguments = _checked(tool, words[len(name.split()) :])
    _say_where(session)
    status = OK
    for variant in tool.variants:
        program = shutil.which(variant[0])
        if program is None:
            raise CannotDo(f"{variant[0]} is not installed on {session.machine.called}")
        status = max(status, await _run(session, [program, *variant[1:], *arguments]))
    return status


def date(session: Session, words: Sequence[str]) -> int:
    """Raises Problem."""
    _check_allowed(session, "date")
    if len(words) > 1:
        raise CannotDo("the clock is not set from here")
    now = datetime.datetime.now().astimezone()
    _say_where(session)
    session.say(now.strftime("%a %Y-%m-%d %H:%M:%S %Z (%z)"))
    return OK


def _check_allowed(session: Session, command: str) -> None:
    if command not in session.machine.allowed:
        raise CannotDo(f"{command} {session.machine.why_not}")


def _say_where(session: Session) -> None:
    session.say(f"on {session.machine.called} ({harmless(socket.gethostname())}):")


def _checked(tool: Tool, arguments: Sequence[str]) -> list[str]:
    """The arguments as the program gets them. Raises Problem."""
    options: list[str] = []
    hosts: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in tool.options:
            options.append(argument)
            check = tool.options[argument]
            if check is not None:
                value = rest.pop(0) if rest else ""
                if not check(value):
                    raise Problem(f"{argument} {value!r}: no value of it; accepted: {tool.usage}")
                options.append(value)
        elif is_host(argument) and len(hosts) < tool.hosts[1]:
            hosts.append(argument)
        else:
            raise Problem(f"{harmless(argument)!r}: no argument of it; accepted: {tool.usage}")
    if len(hosts) < tool.hosts[0]:
        raise Problem(f"which host? accepted: {tool.usage}")
    if tool.defaults and tool.defaults[0] not in options:
        options += tool.defaults
    return [*options, *hosts]


async def _run(session: Session, command: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        held = b""
        while octets := await process.stdout.read(CHUNK):
            lines = (held + octets).split(b"\n")
            held = lines.pop()
            for line in lines:
                session.say(harmless(line.decode("utf-8", "surrogateescape").expandtabs()))
        if held:
            session.say(harmless(held.decode("utf-8", "surrogateescape").expandtabs()))
        return OK if await process.wait() == 0 else FAILED
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Of a program that still runs, when the command is interrupted."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), KILL_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
