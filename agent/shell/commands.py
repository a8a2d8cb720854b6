"""The shell's commands, as a table: what calls them, how they are used, what they do.

Whatever is no command is a name of the MIB. Commands of the original that make no sense on a
Linux gateway are here too, each with a line that says what to do instead.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.mib.schema import Column, Keeping, Role, Table
from agent.shell import machine, packet
from agent.shell.display import type_line
from agent.shell.events import debug
from agent.shell.outcome import OK, CannotDo, Problem
from agent.shell.values import show
from agent.shell.view import pad

if TYPE_CHECKING:
    from agent.shell.session import Session

Run = Callable[["Session", Sequence[str]], "Awaitable[int | None] | int | None"]


@dataclass(frozen=True, slots=True)
class Command:
    """`about`: what it does, empty where it does nothing here. `full`: the usage with all options."""

    run: Run
    usage: str
    about: str
    full: str = ""


OVERVIEW: Final = """\
name              displays a table and selects it, a group, or a variable
name?             what can be assigned to it
name:inx=value    changes the row shown as inx; name.N=value that of number N
name=value        changes a scalar; in a table it makes a new row, and needs a
                  variable marked (*rw)
table:inx=delete  removes a row
a=1 b=2           assignments on a line are carried out together or not at all
Values with blanks stand in "", commands are separated by ; and names may be
abbreviated, those of the selected table without its prefix.

l [part]  g [group]    tables with their numbers, groups of tables
help name              what a table, variable or command is
cmd=save path=name     keeps the configuration; load, delete, copy, move
explain from to ...    what becomes of a packet, and by which rule
debug show|all|kind    events: the last ones, or as they happen
setup                  the Setup Tool
date  ps  ifstat  ifconfig  netstat -i|-r    of the machine it runs on
ping  traceroute  nslookup                   from there; help ping: options
exit                   ends the session, as Ctrl-D does"""
"""The page of `?`; it fits a screen of 24 lines."""
GROUP: Final = re.compile(r"ipsecGw|[a-z]+\d*")
LIST_GAP: Final = 2
CMD_USAGE: Final = "cmd=save|load|state|delete|copy|move [path=name] [pathnew=name] [timeout=seconds]"


# ---- looking around -------------------------------------------------------------------


def list_tables(session: Session, words: Sequence[str]) -> None:
    """All tables by number, or those whose name holds a word."""
    wanted = [word.lower() for word in words[1:]]
    tables = [t for t in session.vocabulary.tables if all(word in t.name.lower() for word in wanted)]
    if not tables:
        raise Problem(f"no table's name holds {' and '.join(words[1:])}")
    _say_list(session, [f"{session.vocabulary.numbers[table.name]:02} {table.name}" for table in tables])


def list_groups(session: Session, words: Sequence[str]) -> None:
    """Groups of tables, or the tables of a group."""
    groups: dict[str, list[Table]] = {}
    for table in session.vocabulary.tables:
        found = GROUP.match(table.name)
        groups.setdefault(found[0] if found else table.name, []).append(table)
    if len(words) == 1:
        for name, tables in groups.items():
            session.say(
                f"{name:10} {len(tables):3} {'tables' if len(tables) > 1 else 'table'}, such as {tables[0].name}"
            )
        return
    by_key = {name.lower(): tables for name, tables in groups.items()}
    tables = by_key.get(words[1].lower(), [])
    if not tables:
        raise Problem(f"{words[1]!r} is no group; accepted: {', '.join(groups)}")
    _say_list(session, [f"{session.vocabulary.numbers[table.name]:02} {table.name}" for table in tables])


def _say_list(session: Session, entries: Sequence[str]) -> None:
    """In columns, from top to bottom."""
    wide = max(map(len, entries)) + LIST_GAP
    across = max(1, (session.terminal.columns - 1 + LIST_GAP) // wide)
    down = -(-len(entries) // across)
    for at in range(down):
        session.say("".join(pad(entry, wide) for entry in entries[at::down]).rstrip())


def tell_help(session: Session, words: Sequence[str]) -> None:
    """Of a command its usage, of a name of the MIB what it is; without either all commands."""
    if len(words) == 1:
        session.say(OVERVIEW)
        return
    word = words[1].removesuffix("?")
    if (command := COMMANDS.get(word)) is not None:
        session.say(f"{_wrapped(command.full or command.usage)}\n    {command.about or 'not done by this shell'}")
        return
    found = session.vocabulary.find(word, session.selected)
    if isinstance(found, Table):
        _about_table(session, found)
    else:
        _about_column(session, found)


def _wrapped(usage: str) -> str:
    return "\n".join(textwrap.wrap(usage, 78, subsequent_indent="    "))


def _about_table(session: Session, table: Table) -> None:
    vocabulary = session.vocabulary
    kind = "scalars" if table.scalar else "a table, configured" if table.keeping is Keeping.STORED else "a table, live"
    session.say(f"{table.name}: {kind}, {'.'.join(map(str, table.oid))}")
    _say_wrapped(session, table.description)
    if table.creating:
        session.say(f"    a row is made by assigning {' or '.join(map(vocabulary.short, table.creating))}")
    remover = vocabulary.remover(table)
    if remover is not None and not table.scalar:
        session.say(f"    a row is removed by {table.name}:inx=delete")
    for column in vocabulary.columns(table):
        session.say(f"    {column.name}({vocabulary.mark(column)})")


def _about_column(session: Session, column: Column) -> None:
    session.tell(type_line(column))
    _say_wrapped(session, column.description)
    for what, text in (("effect", column.traits.effect), ("limit", column.traits.limit)):
        if text:
            _say_wrapped(session, f"{what}: {text}")
    if column.writable and column.traits.role is not Role.SECRET:
        session.say(f"    default: {show(column, column.default)}")
    session.say(f"    {'.'.join(map(str, column.oid))}, of {column.table}")


def _say_wrapped(session: Session, text: str) -> None:
    wide = max(session.terminal.columns - 1, 20)
    for line in textwrap.wrap(" ".join(text.split()), wide, initial_indent="    ", subsequent_indent="    "):
        session.say(line)


# ---- doing ----------------------------------------------------------------------------


async def explain(session: Session, words: Sequence[str]) -> None:
    """Raises Problem."""
    if session.explain is None:
        raise CannotDo("explain reads the stored configuration: ask on the gateway itself")
    session.tell(await session.explain(packet.read_packet(words[1:])))


def named_configurations(session: Session, words: Sequence[str]) -> None:
    """`cmd` without an assignment."""
    raise Problem(f"usage: {CMD_USAGE}")


async def setup(session: Session, words: Sequence[str]) -> int:
    """Raises CannotDo."""
    if session.setup is None:
        raise CannotDo("the Setup Tool does not exist yet; all of its settings are in the tables, see l")
    return await session.setup()


def leave(session: Session, words: Sequence[str]) -> int:
    """The session ends behind this command."""
    session.ended = True
    return OK


def _instead(text: str) -> Command:
    def refuse(session: Session, words: Sequence[str]) -> None:
        raise CannotDo(f"{words[0]}: {text}")

    return Command(refuse, text, "")


COMMANDS: Final[dict[str, Command]] = {
    "l": Command(list_tables, "l [part of a name]", "lists the tables with their numbers"),
    "g": Command(list_groups, "g [group]", "lists groups of tables, or the tables of one"),
    "?": Command(tell_help, "?", "this page"),
    "help": Command(tell_help, "help name", "what a table, variable or command is"),
    "cmd": Command(
        named_configurations, "cmd=save path=name", "keeps the configuration under a name, brings it back", CMD_USAGE
    ),
    "explain": Command(explain, "explain from to …", "what becomes of a packet, and by which rule", packet.USAGE),
    "debug": Command(debug, "debug show|all|kind ...", "events: the last ones, or as they happen"),
    "setup": Command(setup, "setup", "the Setup Tool"),
    "date": Command(machine.date, "date", "the time, on the machine that this shell runs on"),
    "ps": Command(machine.run, "ps", "processes, on that machine"),
    "ifstat": Command(machine.run, "ifstat", "interfaces and their counters, on that machine"),
    "ifconfig": Command(machine.run, "ifconfig", "addresses, on that machine"),
    "netstat": Command(machine.run, "netstat -i|-r", "interfaces or routes, on that machine"),
    "ping": Command(machine.run, "ping [options] host", "from that machine", machine.TOOLS["ping"].usage),
    "traceroute": Command(
        machine.run, "traceroute [options] host", "from that machine", machine.TOOLS["traceroute"].usage
    ),
    "nslookup": Command(machine.run, machine.TOOLS["nslookup"].usage, "asked on that machine"),
    "exit": Command(leave, "exit", "ends the session, as Ctrl-D does"),
    "quit": Command(leave, "quit", ""),
    "logout": Command(leave, "logout", ""),
    "halt": _instead("the gateway is shut down by its administrator: systemctl poweroff"),
    "reboot": _instead("the gateway is restarted by its administrator: systemctl reboot"),
    "update": _instead("the agent is updated as its installation says (docs/install.md)"),
    "isdnlogin": _instead("there is no ISDN here"),
    "trace": _instead("packets are looked at with tcpdump, on the gateway; events with debug"),
    "telnet": _instead("use ssh, on your own machine"),
    "minipad": _instead("there is no X.25 here"),
    "rtelnet": _instead("use ssh, on your own machine"),
    "modem": _instead("there is no modem here"),
    "snmpset": _instead("assignments are SETs here: name=value, name:inx=value"),
    "passwd": _instead("ipsec-agent user passwd, or ipsecGwUserTable"),
}
"""By the word that calls them."""


async def call(session: Session, words: Sequence[str]) -> int:
    """Run the command that the first word names. Raises Problem, SnmpError."""
    made = COMMANDS[words[0]].run(session, words)
    status = await made if isinstance(made, Awaitable) else made
    return OK if status is None else status
