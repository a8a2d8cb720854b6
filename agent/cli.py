"""The command `ipsec-agent`: serve, explain, flush, load-spd, check, version.

Only argument handling; each command's work is imported when it is called, so that
`version` and mistakes answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from agent import __version__
from agent.config import Settings, SettingsError, load_settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A Linux IPsec gateway configured and watched by SNMP.",
)

EXIT_WRONG_USE = 2

State = Annotated[Path | None, typer.Option(help="Folder for store, keys and run-time files.", show_default=False)]
Store = Annotated[str | None, typer.Option(help="Database URL; SQLite in the state folder unless given.")]
Backend = Annotated[str | None, typer.Option(help="memory: nothing is made real; linux: kernel and charon.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with these settings.", show_default=False)]


def fail(text: str) -> NoReturn:
    """Say what is wrong on standard error and end with status 2."""
    print(f"ipsec-agent: {text}", file=sys.stderr)
    raise typer.Exit(EXIT_WRONG_USE)


def _settings(config: Path | None, **flags: Any) -> Settings:
    try:
        return load_settings(flags, config)
    except SettingsError as error:
        fail(str(error))


@app.command()
def serve(
    state: State = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="ADDRESS:PORT to answer on; may be given several times.")
    ] = None,
    backend: Backend = None,
    store: Store = None,
    read_community: Annotated[str | None, typer.Option(help="SNMPv1/v2c community that may read.")] = None,
    write_community: Annotated[str | None, typer.Option(help="SNMPv1/v2c community that may read and write.")] = None,
    read_community_file: Annotated[Path | None, typer.Option(help="File with the read community.")] = None,
    write_community_file: Annotated[Path | None, typer.Option(help="File with the write community.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Config = None,
) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    settings = _settings(
        config,
        state=state,
        listen=listen or None,
        backend=backend,
        store=store,
        read_community=read_community,
        write_community=write_community,
        read_community_file=read_community_file,
        write_community_file=write_community_file,
        log_level=log_level,
    )
    from agent.serve import StartError, run

    try:
        run(settings)
    except StartError as error:
        fail(str(error))


@app.command()
def explain(
    src: Annotated[str, typer.Option(help="Source address of the packet.")],
    dst: Annotated[str, typer.Option(help="Destination address of the packet.")],
    proto: Annotated[str, typer.Option(help="Protocol: a number or icmp, tcp, udp, esp, …")] = "icmp",
    sport: Annotated[int, typer.Option(min=0, max=65535, help="Source port.")] = 0,
    dport: Annotated[int, typer.Option(min=0, max=65535, help="Destination port.")] = 0,
    forwarded: Annotated[bool, typer.Option("--forwarded", help="The packet passes through this gateway.")] = False,
    decrypted: Annotated[int, typer.Option(min=0, help="Number of the peer whose tunnel the packet came out of.")] = 0,
    state: State = None,
    backend: Backend = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Say what happens to a packet, which rule decides it and why, from the stored configuration."""
    settings = _settings(config, state=state, backend=backend, store=store)
    from agent.inspect import InspectError, explain_packet

    try:
        print(explain_packet(settings, src, dst, proto, sport, dport, forwarded, decrypted))
    except InspectError as error:
        fail(str(error))


@app.command()
def flush(state: State = None, backend: Backend = None, store: Store = None, config: Config = None) -> None:
    """Remove from kernel and charon what the agent made there, and nothing else. The agent must not be running."""
    settings = _settings(config, state=state, backend=backend or "linux", store=store)
    from agent.inspect import InspectError, flush_engine

    try:
        print(flush_engine(settings))
    except InspectError as error:
        fail(str(error))


@app.command("load-spd")
def load_spd(state: State = None, store: Store = None, config: Config = None) -> None:
    """Load the stored configuration's policies into the kernel, before the network and without charon."""
    settings = _settings(config, state=state, store=store, backend="linux")
    from agent.inspect import InspectError
    from agent.inspect import load_spd as load

    try:
        print(load(settings))
    except InspectError as error:
        fail(str(error))


@app.command()
def check(
    json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    state: State = None,
    backend: Backend = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Look at configuration and machine, and say what to do about each finding. Status: 0 nothing above a note,
    1 warnings, 2 errors."""
    settings = _settings(config, state=state, backend=backend, store=store)
    from agent.check import run

    text, status = run(settings, as_json=json)
    print(text)
    raise typer.Exit(status)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"ipsec-agent {__version__}")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
