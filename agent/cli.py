"""The command `ipsec-agent`: serve, shell, explain, flush, user, export, import, load-spd, check, version.

Only argument handling; each command's work is imported when it is called, so that
`version` and mistakes answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from agent import __version__
from agent.config import Settings, SettingsError, as_running, load_settings

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


def _as_running(config: Path | None, **flags: Any) -> Settings:
    """Of a command that judges what an agent does: its backend counts, unless one is named."""
    from agent.snmp.presence import backend_of

    settings = _settings(config, **flags)
    return as_running(settings, backend_of(settings.state))


@app.command()
def serve(
    state: State = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="ADDRESS:PORT to answer on; may be given several times.")
    ] = None,
    ssh: Annotated[
        list[str] | None, typer.Option(help="ADDRESS:PORT to offer the shell on over SSH; may be given several times.")
    ] = None,
    ssh_idle: Annotated[int | None, typer.Option(help="Seconds until an idle session over SSH is ended.")] = None,
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
        ssh=ssh or None,
        ssh_idle=ssh_idle,
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
def shell(
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="Commands to carry out, ; between them, instead of asking.")
    ] = None,
    host: Annotated[str, typer.Option(help="Name or address of an agent elsewhere, with :PORT if need be.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="UDP port of the agent.", show_default=False)] = 0,
    asking: Annotated[str, typer.Option("--user", help="Ask as this SNMPv3 user; passwords are prompted for.")] = "",
    auth: Annotated[str, typer.Option(help="Authentication protocol of --user (sha256).")] = "",
    priv: Annotated[str, typer.Option(help="Privacy protocol of --user (aes128).")] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="Passwords of --user; a second line is that of privacy.")
    ] = None,
    community: Annotated[str, typer.Option(help="Ask by SNMPv2c with this community.")] = "",
    community_file: Annotated[Path | None, typer.Option(help="File with the community.")] = None,
    snmp_version: Annotated[str, typer.Option("--version", help="1 or 2c, with a community.")] = "2c",
    conf: Annotated[Path | None, typer.Option(help="snmp.conf that says who asks.")] = None,
    columns: Annotated[int, typer.Option(min=0, help="Width of tables in scripts; else COLUMNS or 80.")] = 0,
    state: State = None,
    backend: Backend = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """The SNMP shell: look at the gateway's tables and change them, at a terminal or by a script."""
    settings = _as_running(config, state=state, backend=backend, store=store)
    from agent.shell_command import Asked, ShellError, run_shell

    asked = Asked(
        settings,
        host,
        port,
        asking,
        auth,
        priv,
        password_file,
        community,
        community_file,
        snmp_version,
        conf,
        command,
        columns,
    )
    try:
        status = run_shell(asked)
    except ShellError as error:
        fail(str(error))
    raise typer.Exit(status)


@app.command()
def explain(
    src: Annotated[str, typer.Option(help="Source address of the packet.")],
    dst: Annotated[str, typer.Option(help="Destination address of the packet.")],
    proto: Annotated[str, typer.Option(help="Protocol: a number or icmp, tcp, udp, esp, …")] = "icmp",
    sport: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Source port; else 49152, and whether another makes a difference."),
    ] = None,
    dport: Annotated[int, typer.Option(min=0, max=65535, help="Destination port.")] = 0,
    arrives: Annotated[
        str,
        typer.Option("--in", metavar="IF", help="Interface it comes by, name or index; else that to its source."),
    ] = "",
    forwarded: Annotated[bool, typer.Option("--forwarded", help="The packet passes through this gateway.")] = False,
    decrypted: Annotated[int, typer.Option(min=0, help="Number of the peer whose tunnel the packet came out of.")] = 0,
    state: State = None,
    backend: Backend = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Say what happens to a packet, which rule decides it and why, from the stored configuration."""
    settings = _as_running(config, state=state, backend=backend, store=store)
    from agent.inspect import InspectError, explain_packet

    try:
        print(explain_packet(settings, src, dst, proto, sport, dport, forwarded, decrypted, arrives))
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


# ---- user -----------------------------------------------------------------------------

user = typer.Typer(no_args_is_help=True, help="SNMPv3 users of an agent, running or stopped.")
app.add_typer(user, name="user")

Name = Annotated[str, typer.Argument(help="Security name of the user.")]
Host = Annotated[str, typer.Option(help="ADDRESS:PORT of a running agent, instead of the state folder's.")]
Conf = Annotated[Path | None, typer.Option(help="snmp.conf that says who asks; else the state folder's.")]
As = Annotated[str, typer.Option("--user", help="Ask as this user; its passwords are prompted for.")]
PasswordFile = Annotated[
    str, typer.Option(help="File with the password; a second line is that of privacy. - is stdin.")
]
Generate = Annotated[bool, typer.Option("--generate", help="Make passwords and print them, this once.")]


def _user(command: str, where: tuple[Path | None, str | None, Path | None, str, Path | None, str], *rest: Any) -> None:
    """Run a command of users_command on the agent that (state, store, config, host, conf, as) say."""
    from agent import users_command as users

    state, store, config, host, conf, asking = where
    try:
        asked = users.Asked(_settings(config, state=state, store=store), host, conf, asking)
        print(getattr(users, command)(asked, *rest))
    except users.UserError as error:
        fail(str(error))


def _passwords(file: str, generate: bool) -> Any:
    from agent.users_command import PasswordSource

    if file and generate:
        fail("--password-file and --generate: one of them")
    return PasswordSource(file, generate)


@user.command("list")
def list_users(
    state: State = None, store: Store = None, config: Config = None, host: Host = "", conf: Conf = None, asking: As = ""
) -> None:
    """All users, what they may do, and by which protocols they are known."""
    _user("list_users", (state, store, config, host, conf, asking))


@user.command("add")
def add_user(
    name: Name,
    level: Annotated[str, typer.Option(help="admin, write or read.")] = "read",
    auth: Annotated[str, typer.Option(help="md5, sha1, sha224, sha256, sha384 or sha512.")] = "sha256",
    priv: Annotated[str, typer.Option(help="none, des, aes128, aes192, aes256, aes192c or aes256c.")] = "aes128",
    password_file: PasswordFile = "",
    generate: Generate = False,
    state: State = None,
    store: Store = None,
    config: Config = None,
    host: Host = "",
    conf: Conf = None,
    asking: As = "",
) -> None:
    """Make a user. Passwords are prompted for, unless they come from a file or are generated."""
    source = _passwords(password_file, generate)
    _user("add_user", (state, store, config, host, conf, asking), name, level, auth, priv, source)


@user.command("passwd")
def change_password(
    name: Name,
    auth: Annotated[str, typer.Option(help="Another authentication protocol.")] = "",
    priv: Annotated[str, typer.Option(help="Another privacy protocol.")] = "",
    password_file: PasswordFile = "",
    generate: Generate = False,
    state: State = None,
    store: Store = None,
    config: Config = None,
    host: Host = "",
    conf: Conf = None,
    asking: As = "",
) -> None:
    """Give a user new passwords; the state folder's snmp.conf follows if it names the user."""
    source = _passwords(password_file, generate)
    _user("change_password", (state, store, config, host, conf, asking), name, auth, priv, source)


@user.command("remove")
def remove_user(
    name: Name,
    state: State = None,
    store: Store = None,
    config: Config = None,
    host: Host = "",
    conf: Conf = None,
    asking: As = "",
) -> None:
    """Remove a user; the last one of level admin stays."""
    _user("remove_user", (state, store, config, host, conf, asking), name)


# ---- export and import ----------------------------------------------------------------

PassphraseFile = Annotated[
    str, typer.Option(help="File with the passphrase of the secrets; - is stdin. Prompted for unless given.")
]


@app.command("export")
def export_configuration(
    file: Annotated[Path | None, typer.Argument(help="File to write; standard output unless given.")] = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="With secrets, sealed with a passphrase.")] = False,
    passphrase_file: PassphraseFile = "",
    administration: Annotated[
        bool, typer.Option("--administration", help="With SNMP users, targets and sources.")
    ] = False,
    state: State = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Write the stored configuration as TOML. The agent may be running."""
    _transfer("export", (state, store, config, "", None, ""), file, secrets, passphrase_file, administration)


@app.command("import")
def import_configuration(
    file: Annotated[Path, typer.Argument(help="File that export wrote, or that looks like one.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would differ, and change nothing.")] = False,
    passphrase_file: PassphraseFile = "",
    allow_lockout: Annotated[
        bool, typer.Option("--allow-lockout", help="Also if it cuts the way to this machine.")
    ] = False,
    state: State = None,
    backend: Backend = None,
    store: Store = None,
    config: Config = None,
    host: Host = "",
    conf: Conf = None,
    asking: As = "",
) -> None:
    """Replace the whole configuration by that of a file, in one step. SNMP users, targets and sources stay unless
    the file has them, and so do the secrets of rows that stay."""
    where = (state, store, config, host, conf, asking)
    _transfer("import_file", where, file, dry_run, passphrase_file, allow_lockout, backend=backend)


def _transfer(
    command: str,
    where: tuple[Path | None, str | None, Path | None, str, Path | None, str],
    *rest: Any,
    backend: str | None = None,
) -> None:
    from agent import transfer
    from agent.users_command import Asked

    state, store, config, host, conf, asking = where
    try:
        asked = Asked(_settings(config, state=state, store=store, backend=backend), host, conf, asking)
        print(getattr(transfer, command)(asked, *rest))
    except transfer.TransferError as error:
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
    settings = _as_running(config, state=state, backend=backend, store=store)
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
