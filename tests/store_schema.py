"""A small schema with one of everything the store knows: chains, heads, references, secrets, transient objects."""

from __future__ import annotations

from collections.abc import Mapping

from agent.mib.ber import Value, Wire
from agent.mib.schema import NO_TRAITS, Access, Column, Keeping, Role, Schema, Table, Traits

ROOT = (1, 3, 6, 1, 4, 1, 99999)
STATUS_LABELS = {
    "active": 1, "notInService": 2, "notReady": 3, "createAndGo": 4, "createAndWait": 5, "destroy": 6,
}  # fmt: skip
YES_NO = {"true": 1, "false": 2}


class _Columns:
    """Collects the columns of one table."""

    def __init__(self, table: str, oid: tuple[int, ...]) -> None:
        self.table, self.oid = table, oid
        self.made: list[Column] = []

    def add(
        self,
        name: str,
        default: Value = 0,
        wire: Wire = Wire.INTEGER,
        *,
        labels: Mapping[str, int] | None = None,
        ranges: tuple[tuple[int, int], ...] = (),
        access: Access = Access.READ_WRITE,
        traits: Traits = NO_TRAITS,
    ) -> None:
        position = len(self.made)
        self.made.append(
            Column(
                name, self.table, (*self.oid, position + 1), position, wire, "", labels or {}, ranges, access,
                default, "", "", traits,
            )
        )  # fmt: skip

    def row_columns(self, prefix: str) -> None:
        self.add(f"{prefix}RowStatus", 1, labels=STATUS_LABELS, traits=Traits(role=Role.ROW_STATUS))
        self.add(f"{prefix}RowGeneration", 0, Wire.GAUGE32, traits=Traits(role=Role.ROW_GENERATION))

    def index(self, name: str) -> None:
        self.add(name, 1, ranges=((1, 2**31 - 1),), access=Access.READ_ONLY, traits=Traits(role=Role.INDEX))


def _peers() -> Table:
    columns = _Columns("peerTable", (*ROOT, 1, 1))
    columns.index("peerIndex")
    columns.add("peerRules", traits=Traits(role=Role.CREATING, heads="ruleTable"))
    columns.add("peerName", b"", Wire.OCTET_STRING, ranges=((0, 16),))
    columns.add("peerProfile", traits=Traits(refers="profileTable"))
    columns.add("peerAdmin", 1, labels={"up": 1, "down": 2, "delete": 15}, traits=Traits(deletes=15))
    columns.add("peerWeight", 10, ranges=((0, 100),))
    columns.add("peerAddress", bytes(4), Wire.IP_ADDRESS)
    columns.add("peerLater", 3, labels={"a": 1, "b": 3}, traits=Traits(stage="later"))
    columns.add("peerKey", b"", Wire.OCTET_STRING, ranges=((0, 64),),
                traits=Traits(role=Role.SECRET, sealed_in="peerKeyData"))  # fmt: skip
    columns.add("peerKeyData", b"", Wire.OCTET_STRING, access=Access.NOT_ACCESSIBLE, traits=Traits(role=Role.SEALED))
    columns.add("peerBorn", 0, access=Access.READ_ONLY)
    columns.row_columns("peer")
    return Table("peerTable", (*ROOT, 1), Keeping.STORED, False, tuple(columns.made), "", "")


def _rules() -> Table:
    columns = _Columns("ruleTable", (*ROOT, 2, 1))
    columns.index("ruleIndex")
    columns.add("ruleNext", traits=Traits(links="ruleTable"))
    columns.add("ruleProto", 255, ranges=((0, 255),), traits=Traits(role=Role.CREATING))
    columns.add("ruleAction", 4, labels={"delete": 1, "pass": 3, "protect": 4, "drop": 5}, traits=Traits(deletes=1))
    columns.add("ruleProfile", traits=Traits(refers="profileTable"))
    columns.row_columns("rule")
    return Table("ruleTable", (*ROOT, 2), Keeping.STORED, False, tuple(columns.made), "", "")


def _profiles() -> Table:
    """Its deleting column makes the row too, like that of phase 2 proposals."""
    columns = _Columns("profileTable", (*ROOT, 3, 1))
    columns.index("profileIndex")
    columns.add("profileKind", 1, labels={"esp": 1, "ah": 2, "delete": 8}, traits=Traits(Role.CREATING, deletes=8))
    columns.add("profileObject", (0, 0), Wire.OBJECT_IDENTIFIER)
    columns.row_columns("profile")
    return Table("profileTable", (*ROOT, 3), Keeping.STORED, False, tuple(columns.made), "", "")


def _users() -> Table:
    """Written by the agent alone."""
    columns = _Columns("userTable", (*ROOT, 4, 1))
    columns.index("userIndex")
    columns.add("userName", b"", Wire.OCTET_STRING, access=Access.READ_ONLY)
    columns.add("userKey", b"", Wire.OCTET_STRING, access=Access.NOT_ACCESSIBLE, traits=Traits(role=Role.SEALED))
    columns.add("userRowStatus", 1, labels=STATUS_LABELS, access=Access.READ_ONLY, traits=Traits(role=Role.ROW_STATUS))
    return Table("userTable", (*ROOT, 4), Keeping.STORED, False, tuple(columns.made), "", "")


def _gate() -> Table:
    columns = _Columns("gate", (*ROOT, 5))
    columns.add("gateName", b"", Wire.OCTET_STRING)
    columns.add("gateOn", 2, labels=YES_NO)
    columns.add("gateFirst", traits=Traits(heads="ruleTable"))
    columns.add("gateProfile", traits=Traits(refers="profileTable"))
    columns.add("gateForce", 2, labels=YES_NO, traits=Traits(role=Role.TRANSIENT))
    return Table("gate", (*ROOT, 5), Keeping.STORED, True, tuple(columns.made), "", "")


def _states() -> Table:
    columns = _Columns("peerStateTable", (*ROOT, 6, 1))
    columns.add("peerState", 1, access=Access.READ_ONLY)
    columns.add("peerError", b"", Wire.OCTET_STRING, access=Access.READ_ONLY)
    return Table("peerStateTable", (*ROOT, 6), Keeping.LIVE, False, tuple(columns.made), "peerTable", "")


def _status() -> Table:
    columns = _Columns("gateStatus", (*ROOT, 7))
    columns.add("gateGeneration", 0, Wire.GAUGE32, access=Access.READ_ONLY)
    return Table("gateStatus", (*ROOT, 7), Keeping.LIVE, True, tuple(columns.made), "", "")


SCHEMA = Schema([_peers(), _rules(), _profiles(), _users(), _gate(), _states(), _status()])
