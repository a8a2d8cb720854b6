"""Lines, values and lines of a table by themselves: what is shown can be typed, and nothing that is shown does harm."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mib.ber import LIMITS, NUMERIC, Value, Wire
from agent.mib.schema import Access, Column, Role
from agent.shell.completion import ShellCompleter
from agent.shell.history import may_hold_secret
from agent.shell.language import Assignment, LineError, Word, read_line
from agent.shell.machine import TOOLS, is_host
from agent.shell.outcome import Problem
from agent.shell.packet import Packet, read_packet
from agent.shell.session import Session
from agent.shell.values import harmless, parse, quoted, show
from agent.shell.view import lay_out, pieces, width
from agent.shell.vocabulary import NameProblem
from tests.shell_screen import SCHEMA, VOCABULARY, Paper, cells_of, value_of

TYPED = [column for column in SCHEMA.columns.values() if column.access is not Access.NOT_ACCESSIBLE]


def items(line: str) -> list[Word | Assignment]:
    [command] = read_line(line)
    return list(command.items)


def test_a_line_is_commands_of_words_and_assignments() -> None:
    assert items("ipsecPeerTable") == [Word("ipsecPeerTable")]
    assert items('Description:02="Branch; west" Priority.3=4') == [
        Assignment("Description", 2, None, "Branch; west", quoted=True),
        Assignment("Priority", None, 3, "4"),
    ]
    assert [command.text for command in read_line(' l ;; g ike;"; x" ')] == ["l", "g ike", '"; x"']
    assert items("a = 1 b= c='it is'") == [
        *(Assignment("a", None, None, "1"), Assignment("b", None, None, "")),
        Assignment("c", None, None, "it is", quoted=True),
    ]
    assert items("explain --src=1 2001:db8::1 ping -c 3") == [
        Word(word) for word in ("explain", "--src=1", "2001:db8::1", "ping", "-c", "3")
    ]
    assert items(r'x="\x1b\n\"\\ \q"') == [Assignment("x", None, None, '\x1b\n"\\ \\q', quoted=True)]
    assert read_line("   # a remark; l") == [] == read_line("  ;; ")


@pytest.mark.parametrize("line", ['x="a', "x='a", 'x="a"b', '"a"b', 'x="a\\"'])
def test_a_quotation_mark_without_its_fellow_is_refused(line: str) -> None:
    with pytest.raises(LineError):
        read_line(line)


@given(st.text())
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        commands = read_line(line)
    except LineError:
        return
    assert all(command.items for command in commands)


@given(st.binary())
def test_any_string_is_typed_as_it_is_shown(octets: bytes) -> None:
    shown = quoted(octets)
    assert shown.isprintable()
    [item] = items(f"x={shown}")
    assert isinstance(item, Assignment) and item.value.encode("utf-8", "surrogateescape") == octets


def values(column: Column) -> st.SearchStrategy[Value]:
    if column.labels:
        return st.sampled_from(list(column.names))
    if column.wire is Wire.IP_ADDRESS:
        return st.binary(min_size=4, max_size=4)
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=20).map(lambda arcs: (1, 3, *arcs))
    bounds = column.ranges or (LIMITS.get(column.wire, (0, 60)),)
    if column.wire in NUMERIC:
        return st.one_of(*(st.integers(low, high) for low, high in bounds))
    return st.one_of(*(st.binary(min_size=low, max_size=min(high, low + 40)) for low, high in bounds))


@given(st.data())
def test_any_value_of_any_object_is_typed_as_it_is_shown(data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(TYPED))
    value = data.draw(values(column))
    shown = show(column, value)
    assert shown.isprintable() and shown
    if column.traits.role is not Role.SECRET:
        assert value_of(column, shown) == value


def test_labels_are_the_same_with_a_hyphen_or_an_underscore() -> None:
    column = SCHEMA.columns["ipsecPeerStartMode"]
    assert {parse(column, text) for text in ("always-up", "always_up", "ALWAYS-UP", "always-up(2)", "2")} == {2}


@given(st.binary(max_size=200))
def test_what_is_harmless_holds_no_control_characters(octets: bytes) -> None:
    text = harmless(octets.decode("utf-8", "surrogateescape"))
    assert text.isprintable()
    text.encode()


# ---- tables ---------------------------------------------------------------------------

CELLS = st.text(st.characters(categories=["L", "N", "P", "S"], max_codepoint=0xFFFF), min_size=1, max_size=300)


@given(st.integers(20, 200), st.integers(1, 12), st.data())
def test_a_table_keeps_within_its_width_and_is_read_back(columns: int, across: int, data: st.DataObject) -> None:
    header = [f"Column{number}(rw)" for number in range(across)]
    ascii_cells = st.text(st.sampled_from("abc0189.-\"'"), min_size=1, max_size=250)
    rows = data.draw(st.lists(st.lists(ascii_cells, min_size=across, max_size=across), max_size=4))
    lines = list(lay_out(header, rows, columns))
    assert all(len(line) < max(columns, 23 + 1) for line in lines)
    assert cells_of("\n".join(lines)) == (header, rows)


@given(CELLS, st.integers(2, 80))
def test_long_text_is_divided_by_the_columns_it_takes(text: str, columns: int) -> None:
    parts = list(pieces(text, columns))
    assert "".join(parts) == text
    assert all(0 < width(part) <= columns or width(part) == 0 for part in parts)


@given(st.lists(st.text("abcxyz.0", min_size=1, max_size=9), min_size=1, max_size=40), st.sampled_from(" ,"))
def test_words_are_not_broken(words: list[str], mark: str) -> None:
    text = mark.join(words)
    assert {word for part in pieces(text, 20) for word in part.split(mark)} - {""} == set(words)


def test_a_string_of_64_kilobytes_is_shown_in_lines() -> None:
    shown = quoted(b"\x1b[2J\x07" * 13_000)
    lines = list(lay_out(["Data(ro)"], [[shown]], 80))
    assert all(len(line) < 80 and line.isprintable() for line in lines)
    assert cells_of("\n".join(lines)) == (["Data(ro)"], [[shown]])


# ---- names ----------------------------------------------------------------------------


def test_every_column_has_a_name_of_its_own_without_the_tables_prefix() -> None:
    for table in VOCABULARY.tables:
        short = [VOCABULARY.short(column) for column in VOCABULARY.columns(table)]
        assert len(set(short)) == len(short), table.name
        assert all(re.match("[A-Z]", name) for name in short), table.name
        for column in VOCABULARY.columns(table):
            assert VOCABULARY.find(VOCABULARY.short(column).lower(), table) is column
            assert VOCABULARY.find(column.name.upper(), None) is column


def test_names_are_abbreviated_while_unambiguous() -> None:
    peers, rules = SCHEMA.tables["ipsecPeerTable"], SCHEMA.tables["ipsecTrafficTable"]
    assert VOCABULARY.find("ipsecPeer", None) is peers
    assert VOCABULARY.find("descr", peers) is SCHEMA.columns["ipsecPeerDescription"]
    assert VOCABULARY.find("descr", rules) is SCHEMA.columns["ipsecTrDescription"]
    assert VOCABULARY.find("ipsecPeerDesc", rules) is SCHEMA.columns["ipsecPeerDescription"]
    assert VOCABULARY.find("05", None) is VOCABULARY.tables[5]
    with pytest.raises(NameProblem, match=r"may be .*LocalAddress.*LocalMaskLen"):
        VOCABULARY.find("local", rules)


def session() -> Session:
    return Session(None, SCHEMA, Paper(), "box")  # type: ignore[arg-type] -- nothing is asked of an agent


SECRET_LINES = [
    'ipsecPeerPreSharedKey.1="x"',
    "ipsecpeerpresharedkey:0=x",
    "ipsecPeerTable; PreSh:0=x",
    "presharedkey:0=x",
    "ipsecPeerPreSharedKy.1=x",
    'ipsecPeerPreSharedKey.1="x',
    "ipsecGwUserName=a AuthPassword=b",
    "l;ipsecGwTargetCommunity.1=public",
]


@pytest.mark.parametrize("line", SECRET_LINES)
def test_lines_with_secrets_are_forgotten(line: str) -> None:
    assert may_hold_secret(session(), line)


@pytest.mark.parametrize(
    "line", ["l", "ipsecPeerTable", "ipsecPeerDescription.1=x", "cmd=save path=west", "ping -c 3 192.0.2.1", "x y z"]
)
def test_other_lines_are_remembered(line: str) -> None:
    assert not may_hold_secret(session(), line)


def completed(typed: str, table: str = "") -> set[str]:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    at = session()
    at.selected = SCHEMA.tables.get(table)
    found = ShellCompleter(at).get_completions(Document(typed), CompleteEvent(completion_requested=True))
    return {typed[: len(typed) + each.start_position] + each.text for each in found}


def test_completion() -> None:
    assert completed("ipsecPeerTa") == {"ipsecPeerTable"}
    assert {"ipsecPeerStartMode", "ipsecPeerStatTable"} <= completed("ipsecPeerSt"), "no column is led past"
    assert completed("ipsecPeerTrafficL") >= {"ipsecPeerTrafficList"} <= completed("ipsecPeerTraffic")
    assert completed("ipsecTraf") == {"ipsecTrafficTable", "ipsecTrafficSelectorTable"}
    assert completed("l; help ipsecPeerTa") == {"l; help ipsecPeerTable"}
    assert "expl" + "ain" in completed("ex") and "exit" in completed("ex")
    assert completed('Description:0="a; b" StartM', "ipsecPeerTable") == {
        'Description:0="a; b" StartMode',
    }
    assert completed("StartMode:0=always_", "ipsecPeerTable") == {"StartMode:0=always-up"}
    assert completed("ipsecGlobEnabled=") == {"ipsecGlobEnabled=true", "ipsecGlobEnabled=false"}
    assert completed("cmd=sa") == {"cmd=save"}
    assert completed("cmd=save pathn") == {"cmd=save pathnew="}
    assert completed("debug peer-") == {"debug peer-up", "debug peer-down", "debug peer-blocked"}
    assert completed("ping ipsec") == set()
    assert completed('Description:0="ipsecPeerTa', "ipsecPeerTable") == set()


# ---- the machine ----------------------------------------------------------------------


@given(st.text(max_size=40))
def test_a_host_is_never_an_option(text: str) -> None:
    if is_host(text):
        assert not text.startswith("-") and re.fullmatch(r"[\w.:%-]+", text, re.ASCII | re.DOTALL)


def test_programs_have_usages_that_begin_with_their_name() -> None:
    for called, tool in TOOLS.items():
        assert tool.usage.startswith(called)
        assert all(option in tool.usage for option in tool.options if option not in ("-4", "-6"))


def test_a_packet_is_read_as_it_is_typed() -> None:
    assert read_packet(["192.0.2.1", "192.0.2.2"]) == Packet("192.0.2.1", "192.0.2.2")
    assert read_packet(["192.0.2.1", "192.0.2.2", "tcp", "80", "1024", "forwarded", "decrypted=3"]) == Packet(
        *("192.0.2.1", "192.0.2.2", "tcp", 1024, 80), forwarded=True, decrypted=3
    )


@pytest.mark.parametrize("stray", ["--decrypted=3", "--decrypted", "-f", "from=eth0", "Decrypted=3"])
def test_what_belongs_to_no_packet_is_answered_by_how_one_is_typed(stray: str) -> None:
    with pytest.raises(Problem, match=rf"'{stray}' does not belong .*; usage: explain source .*decrypted=peer"):
        read_packet(["192.0.2.1", "192.0.2.2", stray])


def test_a_tunnel_is_named_by_the_number_of_its_peer() -> None:
    with pytest.raises(Problem, match="'west' is no number of a peer; accepted: decrypted=1, …"):
        read_packet(["192.0.2.1", "192.0.2.2", "decrypted=west"])


# ---- the room -------------------------------------------------------------------------


def test_the_shell_knows_the_mib_and_the_snmp_client_and_nothing_else_of_the_agent() -> None:
    folder = Path(__file__).parent.parent / "agent" / "shell"
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.partition(".")[0] == "agent":
                    assert name.startswith(("agent.shell", "agent.mib", "agent.snmp.client")), (file.name, name)
