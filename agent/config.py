"""Settings of the agent: flags, then environment (IPSEC_AGENT_…), then a TOML file, then defaults.

Each setting is one field below; the command line, the environment and the file use its
name (`--read-community`, `IPSEC_AGENT_READ_COMMUNITY`, `read_community = "…"`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

DEFAULT_PORT = 1161
SSH_PORT = 2222
SSH_IDLE_SECONDS = 900
ROOT_STATE = Path("/var/lib/ipsec-agent")


class SettingsError(Exception):
    """A setting is wrong; the text names it, its value and what is accepted."""


class Endpoint(NamedTuple):
    """An address and port to listen on; IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, default_port: int = DEFAULT_PORT) -> Endpoint:
    """`192.0.2.1:161`, `[2001:db8::1]:161`, or an address alone. Raises ValueError."""
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?", text.strip())
    accepted = "accepted: ADDRESS:PORT, [IPV6-ADDRESS]:PORT or an address alone"
    if not match:
        raise ValueError(f"{text!r} is no address to listen on; {accepted}")
    host = match[1] or match[3]
    port = int(match[2] or match[4] or default_port)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} in {text!r} is no IP address; {accepted}") from None
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} in {text!r} is outside 0..65535")
    return Endpoint(str(address), port)


def default_state() -> Path:
    """/var/lib/ipsec-agent for root, else the user's state folder (XDG_STATE_HOME)."""
    return ROOT_STATE if os.geteuid() == 0 else Path(platformdirs.user_state_dir("ipsec-agent"))


def _endpoints(value: Any) -> Any:
    if isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value) if part]
    return [part if isinstance(part, Endpoint) else parse_endpoint(str(part)) for part in value]


def _ssh_endpoints(value: Any) -> Any:
    if isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value) if part]
    return [part if isinstance(part, Endpoint) else parse_endpoint(str(part), SSH_PORT) for part in value]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """What `serve` needs to know. Unknown names in the file are refused."""

    model_config = SettingsConfigDict(env_prefix="IPSEC_AGENT_", extra="forbid", frozen=True)

    state: Path = Field(default_factory=default_state, description="folder for store, keys and run-time files")
    listen: Annotated[list[Endpoint], NoDecode, BeforeValidator(_endpoints)] = Field(
        default=[Endpoint("127.0.0.1", DEFAULT_PORT)], description="UDP addresses to answer SNMP on"
    )
    ssh: Annotated[list[Endpoint], NoDecode, BeforeValidator(_ssh_endpoints)] = Field(
        default=[], description="TCP addresses to offer the shell on over SSH; none unless given"
    )
    ssh_idle: int = Field(
        default=SSH_IDLE_SECONDS, ge=1, le=86400, description="seconds without a key until a session over SSH is ended"
    )
    backend: Literal["memory", "linux"] = Field(
        default="memory", description="memory: nothing is made real; linux: kernel and charon"
    )
    store: str = Field(default="", description="URL of the database; SQLite in the state folder unless given")
    read_community: str = Field(default="", description="SNMPv1/v2c community that may read")
    write_community: str = Field(default="", description="SNMPv1/v2c community that may read and write")
    read_community_file: Path | None = Field(default=None, description="file with the read community")
    write_community_file: Path | None = Field(default=None, description="file with the write community")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="least level logged"
    )

    @field_validator("state")
    @classmethod
    def _absolute(cls, state: Path) -> Path:
        return state.expanduser().absolute()

    @field_validator("listen")
    @classmethod
    def _some(cls, listen: list[Endpoint]) -> list[Endpoint]:
        if not listen:
            raise ValueError("at least one address is needed")
        return listen

    @model_validator(mode="after")
    def _communities(self) -> Settings:
        for name in ("read_community", "write_community"):
            path: Path | None = getattr(self, f"{name}_file")
            if path is None:
                continue
            if getattr(self, name):
                raise ValueError(f"{name} and {name}_file are both given; accepted: one of them")
            try:
                text = path.read_text().strip()
            except OSError as error:
                raise ValueError(f"{name}_file {path}: {error.strerror}") from None
            if not text:
                raise ValueError(f"{name}_file {path} is empty")
            object.__setattr__(self, name, text)
        if self.read_community and self.read_community == self.write_community:
            raise ValueError("read_community and write_community are equal; accepted: two different ones, or one alone")
        return self


def load_settings(flags: dict[str, Any], file: Path | None = None) -> Settings:
    """Settings from flags (None = not given), environment and file. Raises SettingsError."""
    if file is not None and not file.is_file():
        raise SettingsError(f"configuration file {file}: no such file")

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = (TomlConfigSettingsSource(settings_cls, file),) if file else ()
            return (init_settings, env_settings, *toml)

    try:
        return FromFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_plain(problem) for problem in error.errors())) from None
    except ValueError as error:  # a file that is no TOML
        raise SettingsError(f"{file}: {error}") from None


def as_running(settings: Settings, backend: str) -> Settings:
    """The same with the backend of the agent that runs ('' for none), unless flag, environment or file named one."""
    if backend not in get_args(Settings.model_fields["backend"].annotation) or "backend" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"backend": backend})


def _plain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such setting; accepted: {', '.join(Settings.model_fields)}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {text}"
