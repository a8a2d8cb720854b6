"""Flags beat the environment, the environment beats the file, and mistakes are named."""

from pathlib import Path

import pytest

from agent.config import Endpoint, SettingsError, as_running, load_settings, parse_endpoint
from agent.snmp.presence import announce, backend_of, withdraw


def test_flags_then_environment_then_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('listen = ["127.0.0.1:1", "[::1]:2"]\nread_community = "file"\nbackend = "linux"\n')
    monkeypatch.setenv("IPSEC_AGENT_READ_COMMUNITY", "environment")
    monkeypatch.setenv("IPSEC_AGENT_WRITE_COMMUNITY", "w")
    settings = load_settings({"write_community": "flag", "state": tmp_path}, file)
    assert settings.write_community == "flag"
    assert settings.read_community == "environment"
    assert settings.backend == "linux"
    assert settings.listen == [Endpoint("127.0.0.1", 1), Endpoint("::1", 2)]


def test_the_environment_may_name_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSEC_AGENT_LISTEN", "127.0.0.1:1161, [::1]:1161")
    assert [str(endpoint) for endpoint in load_settings({}).listen] == ["127.0.0.1:1161", "[::1]:1161"]


def test_the_shell_over_ssh_has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSEC_AGENT_SSH", "127.0.0.1, [::1]:22")
    settings = load_settings({"ssh_idle": 60})
    assert settings.ssh == [Endpoint("127.0.0.1", 2222), Endpoint("::1", 22)] and settings.ssh_idle == 60


def test_defaults_open_nothing_to_the_outside() -> None:
    settings = load_settings({})
    assert (settings.ssh, settings.ssh_idle) == ([], 900)
    assert settings.listen == [Endpoint("127.0.0.1", 1161)]
    assert (settings.read_community, settings.write_community, settings.backend) == ("", "", "memory")


def test_what_judges_an_agent_takes_its_backend_unless_one_is_named(tmp_path: Path) -> None:
    bare, named = load_settings({"state": tmp_path}), load_settings({"state": tmp_path, "backend": "memory"})
    assert backend_of(tmp_path) == "" and as_running(bare, backend_of(tmp_path)) is bare
    announce(tmp_path, [("127.0.0.1", 1161)], "linux")
    assert as_running(bare, backend_of(tmp_path)).backend == "linux"
    assert as_running(named, backend_of(tmp_path)).backend == "memory"
    assert as_running(bare, "some other version's") is bare
    withdraw(tmp_path)
    assert backend_of(tmp_path) == ""


def test_a_community_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "community"
    file.write_text("hush\n")
    assert load_settings({"write_community_file": file}).write_community == "hush"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"listen": ["nowhere:1161"]}, "'nowhere' in 'nowhere:1161' is no IP address"),
        ({"listen": ["127.0.0.1:70000"]}, "outside 0..65535"),
        ({"ssh": ["everywhere:22"]}, "ssh: 'everywhere' in 'everywhere:22' is no IP address"),
        ({"ssh_idle": 0}, "ssh_idle"),
        ({"backend": "bsd"}, "backend"),
        ({"read_community": "a", "write_community": "a"}, "are equal"),
        ({"read_community_file": Path("/nonexistent")}, "read_community_file /nonexistent: No such file"),
    ],
)
def test_what_is_wrong_is_named(flags: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(flags)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("lisen = []\n")
    with pytest.raises(SettingsError, match="lisen: no such setting; accepted: state, listen"):
        load_settings({}, file)


def test_an_address_alone_gets_the_default_port() -> None:
    assert parse_endpoint("[::1]") == ("::1", 1161)
    assert parse_endpoint("192.0.2.1") == ("192.0.2.1", 1161)
