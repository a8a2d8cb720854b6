"""`ipsec-agent shell`: which agent is asked, as whom, and on what kind of terminal."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import platformdirs

from agent.config import DEFAULT_PORT, Settings
from agent.mib import load_schema
from agent.shell.outcome import FAILED, INTERRUPTED, CannotDo
from agent.shell.packet import Packet
from agent.shell.session import Session, Terminal
from agent.snmp.client import Community, SnmpClient, SnmpError, UsmUser, read_configuration
from agent.snmp.client.credentials import (
    NONE,
    Credentials,
    authentication_number,
    privacy_number,
    user_of_passphrases,
)
from agent.snmp.identity import CONFIGURATION_FILE
from agent.snmp.pdu import Version
from agent.snmp.presence import local_address

HISTORY_FILE: Final = "shell_history"
FIRST_RETRIES: Final = 2  # until it is said that nobody is there: 7 seconds
RETRIES: Final = 4
VERSIONS: Final = {"1": Version.V1, "2c": Version.V2C}
AUTHENTICATION: Final = "sha256"
PRIVACY: Final = "aes128"


class ShellError(Exception):
    """The session cannot begin; the text says why and what is accepted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `host` empty: the agent of the state folder. `user`: an SNMPv3 user other than that
    of the snmp.conf; `community` for version 1 and 2c. `password_file`: passwords of `user`, `-` is not allowed since
    lines come from there."""

    settings: Settings
    host: str = ""
    port: int = 0
    user: str = ""
    auth: str = ""
    priv: str = ""
    password_file: Path | None = None
    community: str = ""
    community_file: Path | None = None
    version: str = "2c"
    configuration: Path | None = None
    command: str | None = None
    columns: int = 0


class Place(NamedTuple):
    host: str
    port: int


def run_shell(asked: Asked) -> int:
    """A session; the status of the last command. Raises ShellError."""
    try:
        place, credentials = _place(asked), _credentials(asked)
        return asyncio.run(_session(asked, place, credentials))
    except SnmpError as error:
        raise ShellError(str(error)) from None
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has had enough: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


async def _session(asked: Asked, place: Place, credentials: Credentials) -> int:
    from agent.shell.script import PlainTerminal, run_command, run_script, standard_input

    schema = load_schema()
    async with await SnmpClient.open(place.host, place.port, credentials, schema, retries=FIRST_RETRIES) as client:
        explain = None if asked.host else partial(explained, asked.settings)

        async def begin(terminal: Terminal) -> Session:
            session = await Session.open(client, schema, terminal, explain=explain)
            client.session.retries = RETRIES
            return session

        if asked.command is None and sys.stdin.isatty() and sys.stdout.isatty():
            return await _interactive(asked, begin)
        terminal = PlainTerminal(asked.columns)
        session = await begin(terminal)
        if asked.command is not None:
            return await run_command(session, asked.command)
        return await run_script(session, terminal, standard_input())


async def _interactive(asked: Asked, begin: Callable[[Terminal], Awaitable[Session]]) -> int:
    from prompt_toolkit.input import create_input
    from prompt_toolkit.output import Output
    from prompt_toolkit.output.plain_text import PlainTextOutput
    from prompt_toolkit.output.vt100 import Vt100_Output
    from prompt_toolkit.utils import is_dumb_terminal

    from agent.shell.history import open_history
    from agent.shell.interact import OutputTerminal, interact

    dumb = is_dumb_terminal()
    output: Output = PlainTextOutput(sys.stdout)
    if not dumb:
        output = terminal = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
        terminal.enable_cpr = False  # programs that talk to the shell on a pseudo-terminal answer no such questions
    session = await begin(OutputTerminal(output))
    session.say("? lists the commands, l the tables; Tab completes.")
    history = open_history(session, _history_file(asked))
    return await interact(session, create_input(), output, history, dumb=dumb)


def _history_file(asked: Asked) -> Path:
    """In the state folder for its own agent, where it may be written; else in the user's."""
    state = asked.settings.state
    if not asked.host and os.access(state, os.W_OK):
        return state / HISTORY_FILE
    return Path(platformdirs.user_state_dir("ipsec-agent")) / HISTORY_FILE


async def explained(settings: Settings, packet: Packet) -> str:
    """What becomes of a packet at the agent with these settings. Raises CannotDo."""
    from agent.inspect import InspectError, explain_packet

    try:
        return await asyncio.to_thread(
            explain_packet,
            settings,
            packet.source,
            packet.destination,
            packet.protocol,
            packet.source_port,
            packet.port,
            packet.forwarded,
            packet.decrypted,
            packet.interface,
        )
    except InspectError as error:
        raise CannotDo(str(error)) from None


# ---- which agent, as whom -------------------------------------------------------------


def _place(asked: Asked) -> Place:
    if not asked.host:
        found = local_address(asked.settings.state)
        if found is None:
            accepted = "--state of one that runs, or --host"
            raise ShellError(f"no agent says that it runs on {asked.settings.state}; accepted: {accepted}")
        return Place(found[0], asked.port or found[1])
    match = re.fullmatch(
        r"\[([0-9A-Fa-f:.%\w]+)\](?::(\d{1,5}))?|([^:\s\[\]]+)(?::(\d{1,5}))?|([0-9A-Fa-f:.]+)", asked.host
    )
    if match is None:
        accepted = "a name or address, with :PORT if need be, [ADDRESS]:PORT for IPv6"
        raise ShellError(f"--host {asked.host!r} is no host; accepted: {accepted}")
    port = int(match[2] or match[4] or 0)
    if port and asked.port and port != asked.port:
        raise ShellError("--host and --port name different ports; accepted: one of them")
    return Place(match[1] or match[3] or match[5], asked.port or port or DEFAULT_PORT)


def _credentials(asked: Asked) -> Credentials:
    if asked.community or asked.community_file:
        return _community(asked)
    path = asked.configuration or asked.settings.state / CONFIGURATION_FILE
    if not asked.user:
        if asked.host and asked.configuration is None and not path.exists():
            raise ShellError("as whom? accepted: --user, --community, or --conf with a snmp.conf")
        return read_configuration(path)
    known = read_configuration(path) if path.exists() and not asked.host else None
    auth, priv = authentication_number(asked.auth or AUTHENTICATION), privacy_number(asked.priv or PRIVACY)
    if isinstance(known, UsmUser) and not asked.auth and not asked.priv:
        auth, priv = known.authentication, known.privacy
    if auth == NONE and not asked.priv:
        priv = NONE
    auth_password, priv_password = _passwords(asked, auth != NONE, priv != NONE)
    return user_of_passphrases(asked.user, auth, auth_password, priv, priv_password)


def _community(asked: Asked) -> Community:
    if asked.user or (asked.community and asked.community_file):
        raise ShellError("--user, --community and --community-file: one of them")
    if asked.version not in VERSIONS:
        raise ShellError(f"--version {asked.version}: accepted: 1 or 2c with a community; users are version 3")
    name = asked.community or _read(asked.community_file, "--community-file").strip()
    return Community(name.encode(), VERSIONS[asked.version])


def _passwords(asked: Asked, auth: bool, priv: bool) -> tuple[str, str]:
    """From the file's lines, the second one for privacy; else from a prompt."""
    if asked.password_file is not None:
        lines = _read(asked.password_file, "--password-file").splitlines()
        if not 1 <= len(lines) <= 2:
            accepted = "one line, or one for authentication and one for privacy"
            raise ShellError(f"--password-file {asked.password_file} has {len(lines)} lines; accepted: {accepted}")
        return (lines[0] if auth else ""), (lines[-1] if priv else "")
    try:
        first = getpass.getpass(f"Authentication password of {asked.user}: ") if auth else ""
        second = getpass.getpass("Privacy password (empty: the same): ") if priv else ""
    except EOFError:
        raise ShellError("no password; accepted: --password-file where there is no terminal") from None
    return first, second or (first if priv else "")


def _read(path: Path | None, option: str) -> str:
    assert path is not None
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ShellError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
