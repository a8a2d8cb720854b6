"""The modules, their compiled form and the traits agree."""

import shutil
import subprocess

import pytest

from agent.mib import load_schema
from agent.mib.ber import Wire
from agent.mib.compile import MIBS, MODULES, compiled_text
from agent.mib.compiled import COMPILED
from agent.mib.document import document
from agent.mib.schema import Access, Keeping, Role
from agent.mib.traits import TRAITS, SchemaError, check_traits
from agent.store.references import target_of

SCHEMA = load_schema()
PUBLISHED = (1, 3, 6, 1, 4, 1, 272, 4, 26)


@pytest.mark.slow
def test_compiled_json_is_what_the_modules_say() -> None:
    assert COMPILED.read_text() == compiled_text()


def test_modules_pass_smilint_but_for_hyphens() -> None:
    if not shutil.which("smilint"):
        pytest.skip("smilint is not installed")
    path = f"{MIBS}:{MIBS / 'base'}"
    for module in MODULES:
        out = subprocess.run(
            ["smilint", "-l", "4", str(MIBS / module)], env={"SMIPATH": path}, capture_output=True, text=True
        )
        assert [line for line in (out.stdout + out.stderr).splitlines() if "hyphen" not in line] == []


def test_snmptranslate_knows_the_names() -> None:
    if not shutil.which("snmptranslate"):
        pytest.skip("snmptranslate is not installed")
    path = f"{MIBS}:{MIBS / 'base'}"
    names = [column.name for column in SCHEMA.ordered]
    out = subprocess.run(
        ["snmptranslate", "-M", path, "-m", "ALL", "-IR", "-On", *names], capture_output=True, text=True
    )
    oids = [line for line in out.stdout.splitlines() if line]
    assert oids == ["." + ".".join(map(str, column.oid)) for column in SCHEMA.ordered]


def test_every_default_is_a_value_of_its_object() -> None:
    assert [c.name for c in SCHEMA.columns.values() if c.problem(c.default)] == []


def test_a_few_facts_of_the_published_modules() -> None:
    peer = SCHEMA.columns["ipsecPeerAdminStatus"]
    assert peer.oid == (1, 3, 6, 1, 4, 1, 272, 4, 26, 5, 1, 50)
    assert peer.labels == {"up": 1, "down": 2, "dialup": 4, "callback": 5, "delete": 15}
    assert peer.default == 1
    assert SCHEMA.columns["ikePrfGroup"].ranges == ((0, 16),)  # widened by 0, unset
    assert SCHEMA.columns["ipsecBundleInBytesNetto"].wire is Wire.COUNTER64
    assert SCHEMA.columns["ipsecPropAesKeySize"].labels["unset"] == 0
    assert SCHEMA.columns["ipsecPeerPreSharedKeyData"].access is Access.NOT_ACCESSIBLE


OF_THE_AGENT = {"certTable", "certRevListTable"}
"""Stored tables whose rows are not made by managers."""


def test_row_status_stands_with_the_stored_row() -> None:
    for table in SCHEMA.tables.values():
        if table.keeping is Keeping.STORED and not table.scalar:
            assert table.row_status is not None and table.row_status.table == table.name
            assert table.index is not None
            assert bool(table.creating) != (table.name in OF_THE_AGENT), table.name
            if table.oid[:9] == PUBLISHED and table.oid[9] != 200:
                assert (table.deleting is None) == (table.name in OF_THE_AGENT), table.name


def test_a_column_that_shows_the_row_number_is_kept_once() -> None:
    """The INDEX that is not accessible and the published number column are one cell, and former columns none."""
    peers = SCHEMA.tables["ipsecPeerTable"]
    row = SCHEMA.columns["ipsecPeerRow"]
    assert row.oid == (*peers.oid, 250) and row.access is Access.NOT_ACCESSIBLE
    assert peers.index is SCHEMA.columns["ipsecPeerIndex"] and row.position == peers.index.position
    assert not {"ipsecPeerRow", "ipsecPeerOperStatus"} & set(peers.by_name)
    former, now = SCHEMA.columns["ipsecPeerOperStatus"], SCHEMA.columns["ipsecPeerStatOperStatus"]
    assert (former.table, former.position) == (now.table, now.position) and former.oid == (*peers.oid, 44)
    assert SCHEMA.by_oid[former.oid] is former and former in SCHEMA.ordered


def test_what_the_fact_sheets_call_a_row_is_a_pointer_to_one() -> None:
    """Only to a row that is there, and no such row goes while it is pointed to. Groups and lists in a text are none."""
    tables = {"ikePrfCert": "certTable", "ipsecPeerCert": "certTable", "ipsecPeerXauthProfile": "xauthProfileTable"}
    tables |= {"ipsecPeerIkeProfile": "ikeProfileTable", "ipsecPeerIpsecProfile": "ipsecProfileTable"}
    tables |= {"certMgmtCaCertIndex": "certTable", "ikev2PrfProposal": "ikeProposalTable"}
    assert {name: target_of(SCHEMA.columns[name]) for name in tables} == tables


def test_traits_without_an_object_stop_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAITS, "ipsecNothing", TRAITS["ipsecGlobEnabled"])
    with pytest.raises(SchemaError, match="ipsecNothing: traits without an object"):
        check_traits(SCHEMA.tables.values(), {})


def test_what_acted_in_the_first_stage_still_does() -> None:
    acting = [
        c
        for c in SCHEMA.columns.values()
        if c.oid[:9] == PUBLISHED
        and c.oid[9] != 200
        and (c.writable or c.traits.role is Role.SEALED)
        and c.traits.stage == "skeleton"
    ]
    assert len(acting) >= 50 + 2  # and both LifePolicy columns


def test_values_are_shown_as_a_person_reads_them() -> None:
    columns = SCHEMA.columns
    assert columns["ipsecGlobContDefaultRule"].show(1) == "drop(1)"
    assert columns["ipsecTrLocalAddress"].show(bytes((10, 0, 0, 1))) == "10.0.0.1"
    assert columns["ipsecPeerDescription"].show(b"a\x1b[31m") == '"a\\x1b[31m"'
    assert columns["ipsecPeerPreSharedKey"].show(b"hush") == '"*"'
    assert columns["ikePrfGroup"].problem(17) == "accepted: 0..16"


def test_the_page_of_objects_is_what_the_schema_says() -> None:
    assert (MIBS.parent / "docs" / "objects.md").read_text() == document(SCHEMA)
