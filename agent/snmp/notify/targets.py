"""Who is notified: ipsecGwTargetTable, with communities opened and users found."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.snmp.notify.filters import Filter, filters_by_target
from agent.snmp.pdu import Version
from agent.snmp.users import Opening, number_of, octets_of
from agent.snmp.usm import User
from agent.store.edits import refusal
from agent.store.errors import ErrorStatus, SecretsError
from agent.store.hooks import Edit, Origin, RowChange
from agent.store.snapshot import Configuration, Row

log = logging.getLogger(__name__)

TARGET_TABLE: Final = "ipsecGwTargetTable"
KIND: Final = "ipsecGwTargetKind"
VERSION: Final = "ipsecGwTargetVersion"
INFORM: Final = 2  # ipsecGwTargetKind
VERSIONS: Final = {1: Version.V1, 2: Version.V2C, 3: Version.V3}  # by ipsecGwTargetVersion


@dataclass(frozen=True, slots=True)
class Target:
    """One receiver. `timeout` in seconds; `user` only where the version is 3; `engine_id` may be empty."""

    number: int
    name: str
    address: str
    port: int
    inform: bool
    version: Version
    community: bytes = field(repr=False)
    user: User | None = field(repr=False)
    timeout: float
    retries: int
    engine_id: bytes
    filters: tuple[Filter, ...]


def read_targets(configuration: Configuration, secrets: Opening, users: Mapping[bytes, User]) -> dict[int, Target]:
    """Active targets that something can be sent to; what is wrong with the others is logged."""
    filters = filters_by_target(configuration)
    by_row = {user.row: user for user in users.values()}
    found: dict[int, Target] = {}
    for row in configuration.rows(TARGET_TABLE):
        try:
            found[row.number] = _target(row, secrets, by_row, filters.get(row.number, ()))
        except (ValueError, SecretsError) as error:
            log.warning("target %d gets no notifications: %s", row.number, error)
    return found


def check_targets(
    before: Configuration,
    after: Configuration,
    rows: tuple[RowChange, ...],
    edits: Sequence[Edit],
    origin: Origin,
) -> None:
    """A `Check` of agent.store.hooks: what no message can be. Raises Refused."""
    for change in rows:
        row = change.after
        if change.table != TARGET_TABLE or row is None:
            continue
        if row[KIND] == INFORM and VERSIONS.get(number_of(row[VERSION])) is Version.V1:
            at = next(
                (n for n, e in enumerate(edits) if e.number == row.number and e.column.name in (KIND, VERSION)), 0
            )
            raise refusal(
                ErrorStatus.INCONSISTENT_VALUE, at, edits[at], "SNMPv1 has no informs", "trap, or version v2c or v3"
            )


def _target(row: Row, secrets: Opening, users: Mapping[int, User], filters: tuple[Filter, ...]) -> Target:
    """Raises ValueError, SecretsError."""
    version = VERSIONS[number_of(row[VERSION])]
    inform = row[KIND] == INFORM
    address = octets_of(row["ipsecGwTargetAddress"])
    if len(address) not in (4, 16):
        raise ValueError("ipsecGwTargetAddress is empty; accepted: 4 or 16 octets")
    if inform and version is Version.V1:
        raise ValueError("ipsecGwTargetKind is inform, which SNMPv1 does not have; accepted: trap, or v2c and v3")
    number = number_of(row["ipsecGwTargetUser"])
    user = users.get(number) if version is Version.V3 else None
    if version is Version.V3 and user is None:
        raise ValueError(
            f"ipsecGwTargetUser {number} cannot be used; accepted: an ipsecGwUserIndex of a user with authentication"
        )
    if inform and user is not None and not user.auth_master:
        raise ValueError(
            f"user {user.name} changed its keys by usmUserTable, so they fit this agent only; accepted: a user whose"
            " passwords were set by ipsecGwUserTable"
        )
    sealed = octets_of(row["ipsecGwTargetCommunityData"])
    community = b""
    if sealed and version is not Version.V3:
        community = secrets.open(TARGET_TABLE, row.number, "ipsecGwTargetCommunityData", sealed)
    return Target(
        number=row.number,
        name=octets_of(row["ipsecGwTargetName"]).decode("utf-8", "replace") or str(row.number),
        address=str(ipaddress.ip_address(address)),
        port=number_of(row["ipsecGwTargetPort"]),
        inform=inform,
        version=version,
        community=community,
        user=user,
        timeout=number_of(row["ipsecGwTargetTimeout"]) / 100,
        retries=number_of(row["ipsecGwTargetRetries"]),
        engine_id=octets_of(row["ipsecGwTargetEngine"]),
        filters=filters,
    )
