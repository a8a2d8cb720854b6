"""A configuration as a file: readable, stable, and back without loss."""

from __future__ import annotations

import contextlib
import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.mib import load_schema
from agent.mib.schema import Schema
from agent.store.configfile import FileError, read_configuration, toml_value, write_configuration
from agent.store.errors import SecretsError
from agent.store.load import ADMINISTRATION, Contents, Loader
from agent.store.passphrase import PassphraseLock, StoreKeyLock
from agent.store.secrets import Secrets
from agent.store.snapshot import Configuration
from tests.random_configuration import configuration, contents, opened
from tests.store_schema import SCHEMA as SMALL

REAL = load_schema()
PASSPHRASE = "correct horse"
KEY, OTHER_KEY = Secrets(os.urandom(32)), Secrets(os.urandom(32))
LOCK = PassphraseLock(PASSPHRASE, n=2)

PEER = Contents(
    {
        "ipsecGlobals": {0: {"ipsecGlobEnabled": 1}},
        "ipsecTrafficTable": {
            4: {"ipsecTrProto": 6, "ipsecTrLocalAddress": bytes([10, 0, 0, 0]), "ipsecTrLocalMaskLen": 8}
        },
        "ipsecPeerTable": {
            3: {
                "ipsecPeerDescription": b'the "Branch"',
                "ipsecPeerTrafficList": 4,
                "ipsecPeerPreSharedKey": b"a long secret",
            },
            12: {"ipsecPeerDescription": b"line\nbreak", "ipsecGwPeerRowStatus": 2},
        },
        "ipsecGwUserTable": {1: {"ipsecGwUserName": b"admin", "ipsecGwUserLevel": 1}},
    },
    administration=True,
)

READABLE = """\
# Configuration of ipsec-agent: what differs from the defaults, which docs/objects.md lists.
# A row's number is its instance in SNMP. Secrets read "*".
format = 1

[ipsecGlobals]
ipsecGlobEnabled = "true"

[[ipsecPeerTable]]
number = 3
ipsecPeerDescription = "the \\"Branch\\""
ipsecPeerTrafficList = 4
ipsecPeerPreSharedKey = "*"

[[ipsecPeerTable]]
number = 12
ipsecPeerDescription = "hex:6c696e650a627265616b"
ipsecGwPeerRowStatus = "notInService"

[[ipsecTrafficTable]]
number = 4
ipsecTrLocalAddress = "10.0.0.0"
ipsecTrLocalMaskLen = 8
ipsecTrProto = "tcp"
"""


def loaded(schema: Schema, text: str, on: Configuration | None = None, secrets: Secrets = KEY) -> Configuration:
    """What a load of the file makes of a configuration."""
    before = Configuration.empty(schema) if on is None else on
    candidate = Loader(read_configuration(schema, text).contents(secrets, PASSPHRASE), secrets).build(before)
    return before if candidate is None else candidate.after


def test_what_a_file_looks_like() -> None:
    made = configuration(REAL, PEER, KEY)
    assert write_configuration(made) == READABLE
    whole = write_configuration(made, administration=True)
    assert (
        whole.startswith(READABLE)
        and '[[administration.ipsecGwUserTable]]\nnumber = 1\nipsecGwUserName = "admin"' in whole
    )


def test_secrets_stand_sealed_at_the_end() -> None:
    made = configuration(REAL, PEER, KEY)
    text = write_configuration(made, secrets=KEY, lock=PassphraseLock(PASSPHRASE))
    assert text.startswith(READABLE) and "long secret" not in text
    section = tomllib.loads(text)["secrets"]
    assert (section["key"], section["cipher"], section["n"]) == ("scrypt", "aes-256-gcm", 1 << 15)
    assert list(section["ipsecPeerPreSharedKeyData"]) == ["3"]
    again = loaded(REAL, text, secrets=OTHER_KEY)
    assert opened(again, OTHER_KEY)["ipsecPeerPreSharedKeyData.3"] == b"a long secret"


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=contents(REAL))
def test_the_round_trip_is_the_identity(made: Contents) -> None:
    before = configuration(REAL, made, KEY)
    text = write_configuration(before, administration=True, secrets=KEY, lock=LOCK)
    after = loaded(REAL, text, secrets=OTHER_KEY)
    assert opened(after, OTHER_KEY) == opened(before, KEY)
    assert strip(write_configuration(after, administration=True, secrets=OTHER_KEY, lock=LOCK)) == strip(text)
    assert loaded(REAL, text, on=before) is before, "what is there already is not touched"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=contents(SMALL), other=contents(SMALL))
def test_whatever_was_there_before(made: Contents, other: Contents) -> None:
    before = configuration(SMALL, made, KEY)
    text = write_configuration(before, secrets=KEY, lock=StoreKeyLock(KEY))
    after = loaded(SMALL, text, on=configuration(SMALL, other, KEY))
    assert opened(after, KEY) == opened(before, KEY)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=contents(REAL))
def test_without_secrets_rows_that_are_there_keep_theirs(made: Contents) -> None:
    before = configuration(REAL, made, KEY)
    text = write_configuration(before, administration=True)
    assert loaded(REAL, text, on=before) is before


@pytest.mark.slow
@given(made=contents(REAL), other=contents(REAL))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_without_its_section_administration_stays_as_it_is(made: Contents, other: Contents) -> None:
    text = write_configuration(configuration(REAL, made, KEY))
    before = configuration(REAL, other, KEY)
    after = loaded(REAL, text, on=before)
    for name in ADMINISTRATION:
        assert after.table(name) is before.table(name)


def strip(text: str) -> str:
    """Without what is sealed, which is another one each time."""
    return text.partition("\n[secrets]\n")[0]


@settings(max_examples=300, deadline=None)
@given(octets=st.binary(max_size=24) | st.text(max_size=12).map(str.encode))
def test_octets_of_any_kind(octets: bytes) -> None:
    column = REAL.columns["ipsecPeerDescription"]
    document = f"format = 1\n[[ipsecPeerTable]]\nnumber = 1\nipsecPeerDescription = {toml_value(column, octets)}\n"
    assert read_configuration(REAL, document).rows["ipsecPeerTable"][1]["ipsecPeerDescription"] == octets


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200))
def test_garbage_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FileError):
        read_configuration(REAL, text)


@settings(max_examples=200, deadline=None)
@given(
    value=st.recursive(
        st.none().map(lambda _: "x") | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    at=st.sampled_from(
        ["ipsecGlobals", "ipsecPeerTable", "secrets", "administration", "format", "other", "row", "cell"]
    ),
)
def test_values_of_any_kind_in_any_place(value: object, at: str) -> None:
    from agent.store.configfile import _Reading

    places: dict[str, dict[str, object]] = {
        "row": {"format": 1, "ipsecPeerTable": [value]},
        "cell": {"format": 1, "ipsecPeerTable": [{"number": 1, "ipsecPeerTrafficList": value}]},
    }
    try:
        _Reading(REAL).read(places.get(at, {"format": 1, at: value}))
    except FileError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('ipsecPeerTrafficList = "4"', 'ipsecPeerTrafficList.1 = "4": accepted: a number'),
        ('ipsecPeerStartMode = "soon"', 'ipsecPeerStartMode.1 = "soon": no label of it; accepted: '),
        ('ipsecPeerLocalAddress = "10.0.0"', 'ipsecPeerLocalAddress.1 = "10.0.0": '),
        ("ipsecPeerNoSuch = 1", "ipsecPeerTable 1: ipsecPeerNoSuch is nothing that can be set in it"),
        ("ipsecGwPeerRowGeneration = 1", "ipsecPeerTable 1: ipsecGwPeerRowGeneration is nothing that can be set"),
        ('ipsecPeerDescription = "hex:0"', "ipsecPeerDescription.1"),
    ],
)
def test_mistakes_are_named(line: str, problem: str) -> None:
    with pytest.raises(FileError) as caught:
        read_configuration(REAL, f"format = 1\n[[ipsecPeerTable]]\nnumber = 1\n{line}\n[[nothing]]\nnumber = 1\n")
    assert caught.value.problems[0].startswith(problem) and "nothing: no table" in caught.value.problems[1]


def test_secrets_need_the_right_passphrase_and_their_own_place() -> None:
    made = configuration(REAL, PEER, KEY)
    text = write_configuration(made, secrets=KEY, lock=PassphraseLock(PASSPHRASE))
    file = read_configuration(REAL, text)
    with pytest.raises(SecretsError, match="accepted: the passphrase"):
        file.contents(KEY)
    with pytest.raises(SecretsError, match="does not open"):
        file.contents(KEY, "another passphrase")
    moved = read_configuration(REAL, text.replace('\n3 = "', '\n12 = "'))
    with pytest.raises(SecretsError, match=r"ipsecPeerPreSharedKeyData\.12"):
        moved.contents(KEY, PASSPHRASE)
    costly = read_configuration(REAL, text.replace("n = 32768", "n = 1073741824"))
    with pytest.raises(SecretsError, match="accepted: n a power of two"):
        costly.contents(KEY, PASSPHRASE)


def test_a_file_sealed_with_the_stores_key_opens_with_that_key_alone() -> None:
    text = write_configuration(configuration(REAL, PEER, KEY), secrets=KEY, lock=StoreKeyLock(KEY))
    assert opened(loaded(REAL, text), KEY)["ipsecPeerPreSharedKeyData.3"] == b"a long secret"
    with pytest.raises(SecretsError, match="another store"):
        read_configuration(REAL, text).contents(OTHER_KEY)
