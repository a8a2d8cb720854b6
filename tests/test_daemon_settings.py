"""The IKE daemon's own settings: from the objects to its file, and what the log shows of IPsec."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends.charon.config import INSIDE, Options, give_up_seconds, render
from agent.backends.charon.logfile import OCTETS_A_TURN, LogFile, shown
from agent.backends.memory import MemoryHost, MemoryIke, MemorySpd
from agent.mib.ber import Value
from agent.monitor.changes import ConfigurationChanges
from agent.plan.capabilities import CHARON
from agent.plan.check import RuleError, check_rules
from agent.plan.daemon import DaemonSettings, daemon_settings
from agent.plan.model import Action, Direction
from agent.plan.planner import make_plan
from agent.severity import SeverityFilter
from agent.store.events import Event
from agent.store.hooks import AGENT, Edit
from tests.plan_helpers import DictConfiguration, configuration, environment, first_match, packet
from tests.test_reconcile_run import HERE, Bench
from tests.xfrm_namespace import until

DEFAULTS = DaemonSettings()


def with_scalars(**scalars: Value) -> DictConfiguration:
    made = configuration({1: ["protect 10.1.0.0/16 10.2.0.0/16"]})
    made.scalars |= scalars
    return made


def test_defaults_are_those_of_the_mib() -> None:
    assert daemon_settings(DictConfiguration()) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("ipsecGlobIkePort", 5500, "ike_port", 5500),
        ("ipsecGlobMaxRetries", 3, "retries", 3),
        ("ipsecGlobRetryTimeout0milli", 250, "first_milliseconds", 250),
        ("ipsecGlobRetryTimeoutMaxsec", 0, "longest_seconds", 0),
        ("ipsecGlobMaxNegotiationTimeoutsec", 20, "half_open_seconds", 20),
        ("ipsecTuneSAIHashLines", 1000, "sa_lines", 1024),
        ("ipsecTuneSAIHashLines", 1, "sa_lines", 1),
        *(
            ("ipsecGlobContIkeLoggingLevel", level, "log_level", charons)
            for level, charons in ((0, -1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (9, 3), (10, 3), (127, 3))
        ),
    ],
)
def test_each_object_is_one_setting(name: str, value: int, field: str, expected: int) -> None:
    plan = make_plan(with_scalars(**{name: value}), environment())
    assert plan.daemon == DEFAULTS._replace(**{field: expected})
    off = with_scalars(**{name: value, "ipsecGlobEnabled": 2})
    assert make_plan(off, environment()).daemon == plan.daemon


def test_a_change_follows_in_the_next_plan() -> None:
    before = with_scalars()
    plan = make_plan(before, environment())
    after, changes = before.edited(("ipsecGlobals", 0, {"ipsecGlobMaxRetries": 2, "ipsecGlobIkePort": 5500}))
    following = make_plan(after, environment(), plan, changes)
    assert following.daemon == DEFAULTS._replace(retries=2, ike_port=5500)
    assert dict(following.policies) == dict(make_plan(after, environment()).policies)


@pytest.mark.parametrize(("port", "passes"), [(500, False), (5500, True), (4500, True)])
def test_the_exemption_of_ike_moves_with_its_port(port: int, passes: bool) -> None:
    plan = make_plan(with_scalars(ipsecGlobIkePort=5500), environment())
    for direction, text in (
        (Direction.OUT, f"out 192.0.2.1 > 198.51.100.9 udp/{port}/500"),
        (Direction.IN, f"in 198.51.100.9 > 192.0.2.1 udp/500/{port}"),
    ):
        policy = first_match(plan.policies, direction, packet(text))
        assert policy is not None
        assert (policy.action is Action.ALLOW) is passes


@pytest.mark.parametrize(
    ("table", "name", "value", "text"),
    [
        ("ipsecGlobals", "ipsecGlobIkePort", 0, "accepted: 1..65535"),
        ("ipsecGlobals", "ipsecGlobIkePort", 65536, "accepted: 1..65535"),
        ("ipsecGlobals", "ipsecGlobIkePort", 4500, "NAT traversal"),
        ("ipsecGlobals", "ipsecGlobMaxRetries", -1, "accepted: 0..100"),
        ("ipsecGlobals", "ipsecGlobRetryTimeout0milli", 0, "accepted: 10.."),
        ("ipsecGlobals", "ipsecGlobRetryTimeoutMaxsec", -1, "0 for no bound"),
        ("ipsecTuning", "ipsecTuneSAIHashLines", 0, "accepted: 1.."),
    ],
)
def test_what_the_daemon_cannot_take_is_refused(table: str, name: str, value: int, text: str) -> None:
    before = DictConfiguration()
    after, changes = before.edited((table, 0, {name: value}))
    with pytest.raises(RuleError, match=text):
        check_rules(before, after, changes, [(table, 0, name, value)], CHARON)


def test_the_file_says_what_the_settings_say() -> None:
    options = Options().of(DaemonSettings(5500, 3, 250, 7, 20, 2, 64))
    text = render(INSIDE, options)
    for line in (
        "port = 5500",
        "port_nat_t = 4500",
        "retransmit_tries = 3",
        "retransmit_timeout = 0.25",
        "retransmit_limit = 7",
        "half_open_timeout = 20",
        "default = 2",
        "ikesa_table_size = 64",
        "ikesa_table_segments = 16",
    ):
        assert f"    {line}\n" in text
    assert "ikesa_table_segments = 2\n" in render(INSIDE, Options(sa_lines=2))


def test_time_until_a_silent_peer_is_given_up() -> None:
    assert give_up_seconds(Options(retransmit_tries=1, retransmit_timeout=1.0)) == pytest.approx(1 + 1.8)
    assert give_up_seconds(Options(retransmit_tries=2, retransmit_timeout=1.0, retransmit_limit=2)) == 1 + 1.8 + 2
    unbounded = Options(retransmit_tries=2, retransmit_timeout=10.0, retransmit_limit=0)
    assert give_up_seconds(unbounded) == pytest.approx(10 + 18 + 32.4)


class Waiting(MemoryIke):
    """A daemon that reads one setting at its start only."""

    async def configure(self, settings: DaemonSettings) -> str:
        await super().configure(settings)
        return "" if settings.sa_lines == DEFAULTS.sa_lines else "ipsecTuneSAIHashLines: from the next start on"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, MemorySpd(), Waiting(), MemoryHost(own=[HERE]))
    await bench.start()
    yield bench
    await bench.stop()


def pending(bench: Bench) -> str:
    value = bench.store.live.table("ipsecGwStatus").row(0)
    assert value is not None
    octets = value["ipsecGwIkeDaemonPending"]
    assert isinstance(octets, bytes)
    return octets.decode()


async def test_the_daemon_is_told_and_what_waits_is_shown(bench: Bench) -> None:
    assert isinstance(bench.ike, MemoryIke)
    await bench.set(("ipsecGlobals", 0, {"ipsecGlobMaxRetries": 4}))
    assert bench.ike.daemon.retries == 4 and pending(bench) == ""
    await bench.set(("ipsecTuning", 0, {"ipsecTuneSAIHashLines": 4096}))
    assert bench.ike.daemon.sa_lines == 4096
    assert pending(bench) == "ipsecTuneSAIHashLines: from the next start on"
    await bench.set(("ipsecTuning", 0, {"ipsecTuneSAIHashLines": 256}))
    assert pending(bench) == ""


# ---- the log -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logger", "level", "most", "passes"),
    [
        ("agent.monitor.peers", logging.INFO, 8, True),
        ("agent.monitor.peers", logging.INFO, 7, True),
        ("agent.monitor.peers", logging.INFO, 6, False),
        ("agent.backends.charon.log", logging.INFO, 4, False),
        ("agent.backends.reconcile", logging.WARNING, 5, True),
        ("agent.backends.reconcile", logging.WARNING, 4, False),
        ("agent.plan", logging.CRITICAL, 2, False),
        ("agent.store.audit", logging.INFO, 1, True),
        ("agent.snmp.server", logging.DEBUG, 1, True),
    ],
)
async def test_ipsec_messages_that_are_not_urgent_enough_stay_out(
    bench: Bench, logger: str, level: int, most: int, passes: bool
) -> None:
    urgent = SeverityFilter()
    bench.store.subscribe(urgent, replay=True)
    await bench.set(("ipsecGlobals", 0, {"ipsecGlobMaxSysLogLevel": most}))
    record = logging.LogRecord(logger, level, __file__, 1, "text", None, None)
    assert urgent.filter(record) is passes


def test_lines_of_charon_reach_the_agents_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "charon.log"
    path.write_text("2026-01-02T03:04:05 01[DMN] what was there before\n")
    file = LogFile(path)
    file._begin()
    with caplog.at_level(logging.INFO):
        with path.open("a") as log:
            log.write("2026-01-02T03:04:05 03[IKE] <peer-1|3> IKE_SA peer-1[3] established\n2026-01-02T03:04:05 05[N")
        file.read()
        with path.open("a") as log:
            log.write("ET] sending packet\n")
        file.read()
        path.rename(tmp_path / "charon.log.1")
        path.write_text("2026-01-02T03:04:06 01[DMN] begun anew\n")
        file.read()
    assert [record.getMessage() for record in caplog.records] == [
        "[IKE] peer-1: IKE_SA peer-1[3] established",
        "[NET] sending packet",
        "[DMN] begun anew",
    ]


def test_a_flood_of_charon_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "charon.log"
    path.touch()
    file = LogFile(path)
    file._begin()
    path.write_text("x" * OCTETS_A_TURN + "\nlast\n")
    with caplog.at_level(logging.INFO):
        file.read()
    assert "6 octets of charon's log are not repeated" in caplog.messages[0] and caplog.messages[-1] == "last"


def test_lines_that_are_no_log_lines_are_shown_as_they_are() -> None:
    assert shown("00[LIB] without a time") == "00[LIB] without a time"


# ---- labels --------------------------------------------------------------------------------

DESCRIBED = {
    "ipsecPeerDescription": {"ipsecPeerTrafficList": 0},
    "ikePropDescription": {"ikePropEncAlg": 7},
    "ipsecTrDescription": {"ipsecTrProto": 255},
    "ipsecPropDescription": {"ipsecPropProto": 1},
    "ikePrfDescription": {"ikePrfProposal": 0},
    "ipsecPrfDescription": {"ipsecPrfProposal": 0},
    "ikev2PrfDescription": {"ikev2PrfIndex": 1},
    "ipsecPeerTrafficDescription": {"ipsecPeerTrafficLocalAddress": bytes(4)},
}


@pytest.mark.parametrize("name", DESCRIBED)
async def test_a_description_names_its_row_in_events(bench: Bench, name: str) -> None:
    told: list[Event] = []
    bench.store.events.subscribe(told.append)
    bench.store.subscribe(ConfigurationChanges(bench.store.events))
    column = bench.schema.columns[name]
    values: dict[str, Value] = {**DESCRIBED[name], name: b"the printers"}
    await bench.store.commit([Edit(bench.schema.columns[c], 1, v) for c, v in values.items()], AGENT)
    await until(lambda: any(f'{column.table} 1 "the printers"' in event.text for event in told))


async def test_a_row_that_fails_is_named_by_its_description(bench: Bench) -> None:
    told: list[Event] = []
    bench.store.events.subscribe(told.append)
    await bench.set(
        ("ikeProposalTable", 1, {"ikePropEncAlg": 7, "ikePropHashAlg": 6, "ikePropDescription": b"old one"}),
        ("ikeProfileTable", 1, {"ikePrfProposal": 1}),
        ("ipsecTrafficTable", 1, {"ipsecTrProto": 255}),
        ("ipsecPeerTable", 1, {"ipsecPeerTrafficList": 1, "ipsecPeerIkeProfile": 1, "ipsecPeerDescription": b"branch"}),
        ("ipsecGlobals", 0, {"ipsecGlobEnabled": 1}),
    )
    texts = [event.text for event in told]
    assert any('ikeProposalTable 1 "old one": ' in text for text in texts), texts
    assert any('ipsecPeerTable 1 "branch": ' in text for text in texts), texts
