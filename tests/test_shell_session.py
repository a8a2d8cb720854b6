"""Work at the shell beside a running agent: a peer of the guide line by line, rows made and removed, refusals."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.shell.commands import COMMANDS
from agent.shell.machine import Machine
from agent.shell.session import Session
from agent.snmp.client import Community, SnmpClient
from tests.shell_screen import SCHEMA, Paper, cells_of, typing
from tests.snmp_station import READ, until
from tests.station import COMMUNITY, Agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    running = Agent(tmp_path_factory.mktemp("shell") / "state")
    running.start().socket.close()
    try:
        yield running
    finally:
        assert running.stop() == 0


class Person:
    """Somebody who types."""

    def __init__(self, session: Session, paper: Paper) -> None:
        self.session, self.paper = session, paper

    async def types(self, line: str) -> list[str]:
        self.paper.text = self.paper.complaints = ""
        status = await self.session.execute(line)
        assert status == 0, (line, self.paper.complaints)
        return self.paper.text.splitlines()

    async def fails(self, line: str, status: int = 1) -> str:
        self.paper.text = self.paper.complaints = ""
        assert await self.session.execute(line) == status, (line, self.paper.text, self.paper.complaints)
        lines = self.paper.complaints.removesuffix("\n").split("\n")
        assert all(0 < len(line) < self.paper.columns for line in lines)
        return "".join(lines)


@asynccontextmanager
async def at_shell(agent: Agent, columns: int = 80, community: bytes = COMMUNITY) -> AsyncIterator[Person]:
    async with await SnmpClient.open("127.0.0.1", agent.port, Community(community), SCHEMA) as client:
        paper = Paper(columns)
        yield Person(await Session.open(client, SCHEMA, paper), paper)


@pytest.fixture
async def person(agent: Agent) -> AsyncIterator[Person]:
    """Each begins with no peers and rules."""
    async with at_shell(agent) as somebody:
        cleared = await somebody.types("ipsecGwCommand=clear_configuration")
        assert cleared == ["ipsecGwCommand( rw):  clear-configuration"]
        yield somebody


async def test_a_peer_of_the_guide_typed_line_by_line(person: Person) -> None:
    """Chapter 3: two nets, a host, a peer with a key, then what it shows."""
    assert person.session.prompt().endswith(":> ")
    host = person.session.prompt().removesuffix("> ")
    made = await person.types(
        "ipsecTrProto=dont-verify LocalAddress=192.168.1.0 LocalMaskLen=24 RemoteAddress=192.168.2.0 RemoteMaskLen=24"
    )
    assert made == [
        "00: ipsecTrProto.1(*rw):  dont-verify",
        "00: ipsecTrLocalAddress.1( rw):  192.168.1.0",
        "00: ipsecTrLocalMaskLen.1( rw):  24",
        "00: ipsecTrRemoteAddress.1( rw):  192.168.2.0",
        "00: ipsecTrRemoteMaskLen.1( rw):  24",
    ]
    await person.types("ipsecTrProto=TCP LocalAddress=192.168.1.7 LocalMaskLen=32 RemotePort=22")
    await person.types('ipsecTrNextIndex.1=2 Description.1="the two nets"')
    assert person.session.prompt() == f"{host}> ", "assignments select nothing"
    made = await person.types(
        'ipsecPeerTrafficList=1 Description="Branch west" PeerIds=192.0.2.2 DynamicAddress=192.0.2.2 '
        'PreSharedKey="a long secret"'
    )
    assert made[1] == '00: ipsecPeerDescription.1( rw):  "Branch west"'
    assert made[4] == '00: ipsecPeerPreSharedKey.1( rw):  "*"', "never shown"
    shown = await person.types("ipsecPeerTable")
    assert person.session.prompt() == f"{host}ipsecPeerTable> "
    assert shown[0] == "inx Index(ro)          Description(rw)    PeerIds(rw)        LocalAddress(rw)"
    assert shown[1] == "    TrafficList(*rw)   DynamicAddress(rw) VirtualInterface(rw)"
    assert ' 00 1                  "Branch west"      "192.0.2.2"        0.0.0.0' in shown
    assert not any("secret" in line for line in shown)
    # the selected table's prefix left out, labels with _ or -, abbreviated
    assert await person.types("Start:0=always_up Prio:00=3") == [
        "00: ipsecPeerStartMode.1( rw):  always-up",
        "00: ipsecPeerPriority.1( rw):  3",
    ]
    assert await person.types("Priority") == ["00: ipsecPeerPriority.1( rw):  3"]
    assert await person.types("ipsecPeerAdminStatus?") == [
        "ipsecPeerAdminStatus: (readwrite) up(1),down(2),dialup(4),callback(5),",
        "delete(15)",
    ]
    header, [row] = cells_of("\n".join(await person.types("ipsecTrafficTable:1")))
    assert row[header.index("RemotePort(rw)")] == "22" and row[header.index("Index(ro)")] == "2"
    assert person.session.prompt() == f"{host}ipsecPeerTable> ", "a row selects nothing"
    await person.types("ipsecGlobContDefaultRule=pass; ipsecGlobEnabled=true; ipsecGlobEnabled")
    assert person.paper.text.splitlines()[-1] == "ipsecGlobEnabled( rw):  true"


async def test_rows_keep_their_inx_until_the_next_display(person: Person) -> None:
    for name in ("a", "b", "c"):
        await person.types(f'ipsecTrProto=dont-verify Description="{name}"')
    await person.types("ipsecTrafficTable")
    assert await person.types("ipsecTrafficTable:00=delete") == ["00: ipsecTrAction.1(-rw):  delete"]
    assert await person.types("Description:2=cc") == ['02: ipsecTrDescription.3( rw):  "cc"']
    assert "no such row" in (await person.fails("Description:0")).lower()
    await person.types("ipsecTrafficTable")
    assert await person.types("Description:1") == ['01: ipsecTrDescription.3( rw):  "cc"']
    assert "no row :02; accepted: 00..01" in await person.fails("Description:2=x", 2)
    assert await person.types("Action:0=delete Action.3=delete") == [
        "00: ipsecTrAction.2(-rw):  delete",
        "01: ipsecTrAction.3(-rw):  delete",
    ]
    await person.types("ipsecTrafficTable")
    assert cells_of(person.paper.text)[1] == []


async def test_what_was_not_there_is_not_said_to_be_removed(person: Person) -> None:
    """A row number mistyped, or a row that somebody else has removed meanwhile."""
    await person.types("ipsecTrProto=dont-verify; ipsecTrafficTable")
    assert await person.types("ipsecTrAction.9=delete Action.1=delete") == [
        "ipsecTrAction.9: there was no such row",
        "00: ipsecTrAction.1(-rw):  delete",
    ]
    assert await person.types("ipsecTrafficTable:0=delete") == ["ipsecTrAction.1: there was no such row"]
    assert await person.types("ipsecGwTrafficRowStatus.7=destroy") == [
        "ipsecGwTrafficRowStatus.7: there was no such row"
    ]


async def test_what_can_be_assigned_has_its_unit(person: Person) -> None:
    assert await person.types("ipsecTrLocalMaskLen?") == ["ipsecTrLocalMaskLen: (readwrite) a number, in bits"]
    [line] = await person.types("ipsecGlobBlockTimeout?")
    assert line == "ipsecGlobBlockTimeout: (readwrite) a number 1..3600, in seconds"


async def test_a_new_row_is_never_somebody_elses(person: Person, agent: Agent) -> None:
    """Two shells make rows at the same time; none changes the other's."""
    async with at_shell(agent) as other:
        await other.types("ipsecTrProto=dont-verify Description=other")
        assert await person.types("ipsecTrProto=dont-verify Description=mine") != []
        rows = await person.types("ipsecTrDescription")
        assert [line.rpartition(" ")[2] for line in rows] == ['"other"', '"mine"']
        client = person.session.client
        real, raced = client.get, []

        async def late(names: list[str]) -> object:
            found = await real(names)
            if names == ["ipsecGwTrafficFree.0"] and not raced:
                raced.append(await other.types("ipsecTrProto=dont-verify Description=faster"))
            return found

        client.get = late  # type: ignore[method-assign, assignment]
        await person.types("ipsecTrProto=dont-verify Description=later")
        client.get = real  # type: ignore[method-assign]
        assert raced
        rows = await person.types("ipsecTrDescription")
        assert [line.rpartition(" ")[2] for line in rows] == ['"other"', '"mine"', '"faster"', '"later"']


async def test_all_or_nothing(person: Person) -> None:
    await person.types("ipsecTrProto=dont-verify LocalAddress=192.168.1.0 LocalMaskLen=24 Description=before")
    said = await person.fails("ipsecTrDescription.1=after ipsecTrLocalMaskLen.1=16")
    assert said == (
        "ipsecTrLocalMaskLen.1 = 16: the address has host bits beyond the mask; accepted: 192.168.0.0 with mask 16"
    )
    assert await person.types("ipsecTrDescription.1") == ['00: ipsecTrDescription.1( rw):  "before"']


REFUSALS = [
    ("ipsecPeerTrafficList=77", 1, "ipsecPeerTrafficList.1 = 77: there is no row 77 in ipsecTrafficTable; accepted: "),
    ("ipsecPeerDescription=x", 2, "a new row of ipsecPeerTable needs TrafficList, marked (*rw); to change a row: "),
    ("ipsecPeerDescription.9=x", 1, "ipsecPeerDescription.9 = "),
    ("ipsecPeerTrafficList=0 AdminStatus=often", 2, "ipsecPeerAdminStatus: often is no value; accepted: up(1),down(2)"),
    ("ipsecGlobBlockTimeout=86401", 2, "ipsecGlobBlockTimeout: 86401 is no value; accepted: a number 1..3600"),
    ("ipsecPeerIndex.1=3", 1, "ipsecPeerIndex can only be read"),
    ("ikeSaState=delete", 2, "which row? accepted: State:inx=delete"),
    ("ipsecPeerStatTable:0=delete", 1, "rows of ipsecPeerStatTable cannot be removed"),
    ("ipsecPeerTable=delete", 2, "ipsecPeerTable is a table; accepted: ipsecPeerTable:inx=delete, or one of"),
    ("ipsecPear", 2, "'ipsecPear' is no name; did you mean "),
    ("ipsecP", 2, "'ipsecP' may be "),
    ("99", 2, "99 is no table; accepted: 00.."),
    ('ipsecTrDescription="x', 2, "the quotation mark at character 20 has no end"),
    (
        'ipsecPeerPreSharedKey.1="secret"x',
        2,
        "behind the closing quotation mark at character 32 a blank or ; is expected",
    ),
    ("ipsecPeerPreSharedKey.1=not secret", 2, "a word without = among assignments; accepted: name=value, "),
    ("ipsecTrLocalAddress.1=1.2.3", 2, "ipsecTrLocalAddress: 1.2.3 is no value; accepted: an IPv4 address"),
    (
        "ipsecPeerPreSharedKey.1=" + "x" * 256,
        2,
        'ipsecPeerPreSharedKey: "*" (256 octets) is no value; accepted: text of',
    ),
    ("cmd=load path=nowhere", 1, 'load: path="nowhere": there is no configuration nowhere; accepted: '),
    ("cmd=load path=' = \": '", 1, 'load: path=" = \\": ": '),
    ("cmd=load", 1, "load: there is no configuration boot; accepted: "),
    ("cmd=copy path=nowhere", 1, "copy: no name of a configuration; accepted: "),
    ("cmd=put host=192.0.2.1", 1, "put: host=192.0.2.1: not supported yet"),
    ("cmd=reboot", 1, "reboot: is not done by this agent; accepted: save(1), load(2)"),
    ("cmd=", 2, 'biboAdmConfigCmd: "" is no value; accepted: save(1)'),
    ("cmd", 2, "usage: cmd=save|load|state|delete|copy|move "),
    ("cmd save path=west", 2, "usage: cmd=save|"),
    ("ikePropEncAlg=blowfish", 2, "ikePropEncAlg: blowfish is no value, did you mean blowfish-cbc? accepted: none(1),"),
    ("ikePropEncAlg=DES", 2, "ikePropEncAlg: DES is no value, did you mean des-cbc, des3-cbc? accepted: none(1),"),
    ("ikePrfAuthMethod.1001=dsa-sig", 2, "ikePrfAuthMethod: dsa-sig is no value, did you mean rsa-sig, dss-sig?"),
    ("ikeProfileTable:1=delete", 2, "ikeProfileTable has no row :01; accepted: 00, as ikeProfileTable showed them"),
    ("setup", 1, "the Setup Tool does not exist yet"),
    ("halt", 1, "halt: the gateway is shut down by its administrator"),
    ("explain 192.0.2.1 192.0.2.2", 1, "explain reads the stored configuration: "),
]


@pytest.mark.parametrize(("line", "status", "said"), REFUSALS)
async def test_what_is_wrong_is_said_in_words(person: Person, line: str, status: int, said: str) -> None:
    found = await person.fails(line, status)
    assert found.startswith(said) and "secret" not in found


async def test_a_refusal_is_broken_between_words_for_a_person_and_in_one_line_for_a_script(person: Person) -> None:
    line = "ipsecPeerTrafficList=77"
    await person.fails(line)
    assert person.paper.complaints == (
        "ipsecPeerTrafficList.1 = 77: there is no row 77 in ipsecTrafficTable;\x20\n"
        "accepted: 0 for none, or the number of a row\n"
    )
    asked = await person.types("ipsecTrProto?")
    assert len(asked) > 30 and all(len(line) < 80 and line.endswith((",", "(255)")) for line in asked)
    whole = "".join(asked)
    person.paper.person = False
    assert (await person.types("ipsecTrProto?")) == [whole]
    await person.session.execute(line)
    assert person.paper.complaints.count("\n") == 1


async def test_who_may_only_read_is_told_so(tmp_path: Path) -> None:
    async with typing(tmp_path / "state", community=READ) as typist:
        said = await typist.fails("ipsecGlobEnabled=true")
        assert said == "nothing was changed: you may only read, or not even that"
        assert "ipsecGlobEnabled( rw):  false" in await typist.types("ipsecGlobals")


async def test_named_configurations(person: Person) -> None:
    prompt = person.session.prompt()
    await person.types("ipsecTrProto=dont-verify Description=kept")
    assert await person.types("cmd=save path=west") == ["save: done"]
    assert await person.types("cmd=copy path=west pathnew=east; cmd=delete path=west") == ["copy: done", "delete: done"]
    await person.types("ipsecTrAction.1=delete")
    assert await person.types("cmd=load path=east") == ["load: done"]
    assert await person.types("ipsecTrDescription") == ['00: ipsecTrDescription.1( rw):  "kept"']
    assert person.session.prompt() == prompt
    assert await person.types("cmd=delete path=east") == ["delete: done"]
    told = await person.types("help cmd")
    assert " ".join(told).startswith("cmd=save|load|state|delete|copy|move [path=name] [pathnew=name]")


async def test_lists_and_help(person: Person) -> None:
    listed = " ".join(await person.types("l"))
    assert set(re.findall(r"\d\d (\w+)", listed)) == set(SCHEMA.tables)
    number = re.search(r"(\d\d) ipsecPeerTable\b", listed)
    assert number is not None
    await person.types(number[1])
    assert person.session.prompt().endswith(":ipsecPeerTable> "), "a table by its number"
    assert re.findall(r"\d\d (\w+)", " ".join(await person.types("l certmg"))) == ["certMgmtTable"]
    groups = await person.types("g")
    assert [line.split()[0] for line in groups] == [
        *("bibo", "ipsec", "ike", "xauth", "ikev2", "cert", "ipsecGw", "radius"),
    ]
    assert "xauthProfileTable" in " ".join(await person.types("g xauth"))
    page = await person.types("?")
    assert len(page) < 24 and all(len(line) < 80 for line in page)
    words = set(re.findall(r"[a-z?]+", " ".join(page)))
    assert {name for name, command in COMMANDS.items() if command.about} - {"?", "quit", "logout"} <= words
    told = "\n".join(await person.types("help ipsecPeerStartMode"))
    assert "on-demand(1),always-up(2)" in told and "default: on-demand" in told and "first packet" in told
    told = "\n".join(await person.types("help ipsecPeerTable"))
    assert "a row is made by assigning TrafficList" in told and "ipsecPeerDescription(rw)" in told
    assert "-c count" in " ".join(await person.types("help ping"))


async def test_debug_shows_what_happened(person: Person) -> None:
    person.paper.columns = 1000
    await person.types("ipsecTrProto=dont-verify")
    [started] = await person.types("debug show start")
    assert "start: ipsec-agent" in started
    shown = await person.types("debug show")
    assert 0 < len(shown) <= 20
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [a-z]+ ", line) for line in shown)
    assert await person.types("debug show peer-blocked") == []
    assert "usage: debug" in await person.fails("debug nonsense", 2)


async def test_events_are_followed_through_a_new_start_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.shell.events.LOOK_SECONDS", 0.01)

    def happens(number: int, text: str) -> None:
        live.update("ipsecGwEventTable", {number: {"ipsecGwEventText": text.encode(), "ipsecGwEventTime": 1}})

    async with typing(tmp_path / "state") as typist:
        live = typist.at.store.live
        for number in range(1, 71):
            happens(number, f"before {number}")
        work = asyncio.ensure_future(typist.session.execute("debug all"))
        await until(lambda: "Ctrl-C" in typist.paper.text)
        for number in range(71, 141):
            happens(number, f"now {number}")
        await until(lambda: "now 140" in typist.paper.text)
        assert [f"now {number}" in typist.paper.text for number in range(71, 141)] == [True] * 70
        assert "before" not in typist.paper.text
        live.update("ipsecGwEventTable", dict.fromkeys(range(1, 141)))
        happens(1, "started again")
        await until(lambda: "started again" in typist.paper.text)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


async def test_values_are_written_by_the_shell_in_a_refusal_too(person: Person) -> None:
    said = await person.fails("ipsecTrProto=igmp ipsecGwTrLocalAddress6=2001:DB8::1 LocalPort=3")
    assert said.startswith(("ipsecGwTrLocalAddress6.1 = 2001:db8::1: ", "ipsecTrLocalPort.1 = 3: "))


async def test_hosts_and_options_of_external_programs_are_checked(person: Person) -> None:
    for line in (
        "ping -f 127.0.0.1",
        "ping",
        "ping 127.0.0.1 127.0.0.2",
        "ping -c 0 127.0.0.1",
        "ping -c",
        'ping "127.0.0.1; id"',
        "ping '$(id)'",
        "ping -I --help 127.0.0.1",
        "traceroute -i eth0 127.0.0.1",
        "nslookup -debug example.org",
        "netstat -a",
        "ps aux",
    ):
        assert "accepted" in await person.fails(line, 2), line
    shown = await person.types("date")
    assert re.fullmatch(r"on this machine \(.+\):", shown[0])


@pytest.mark.skipif(not shutil.which("ip"), reason="ip is not installed")
async def test_what_the_machine_says(person: Person) -> None:
    for line in ("ifconfig", "ifstat", "netstat -i", "netstat -r", "ps"):
        shown = await person.types(line)
        assert shown[0].startswith("on this machine (") and all(text.isprintable() for text in shown)
        assert line == "netstat -r" or len(shown) > 1


async def test_a_session_may_be_kept_from_the_machine(person: Person) -> None:
    person.session.machine = Machine(frozenset({"date"}), "is for administrators", "the gateway")
    for line in ("ping 127.0.0.1", "ps", "netstat -r"):
        assert await person.fails(line) == f"{line.split()[0]} is for administrators"
    assert (await person.types("date"))[0].startswith("on the gateway (")


@pytest.mark.skipif(not shutil.which("ping"), reason="ping is not installed")
async def test_a_program_ends_with_its_command(person: Person) -> None:
    work = asyncio.ensure_future(person.session.execute("ping -n -c 10000 127.0.0.1"))
    async with asyncio.timeout(60):
        while "bytes" not in person.paper.text.partition("PING")[2].partition("\n")[2]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    pings = children("ping")
    assert pings
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not pings & children("ping")


def children(name: str) -> set[str]:
    """Processes of this one's that have the name."""
    done = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line.split()[1] == name}
