"""compiled.json → Schema. See compile.py for how the file comes to be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from agent.mib.ber import NUMERIC, Value, Wire
from agent.mib.schema import (
    NO_TRAITS,
    NUMBERS,
    Access,
    Column,
    Keeping,
    Module,
    Notification,
    NotificationObject,
    Role,
    Schema,
    Table,
    Traits,
)
from agent.mib.traits import LIVE_TABLES, TRAITS, check_traits

COMPILED = Path(__file__).with_name("compiled.json")


def document_text(document: dict[str, Any]) -> str:
    """The document as it is kept: stable order, one object a line."""
    lines = []
    for table in document["tables"]:
        columns = ",\n".join("  " + json.dumps(column, sort_keys=True) for column in table["columns"])
        head = json.dumps({name: value for name, value in table.items() if name != "columns"}, sort_keys=True)
        lines.append(f'{head[:-1]}, "columns": [\n{columns}]}}')
    parts = [f'"tables": [\n{_lines(lines)}\n]']
    for name in ("notifications", "modules"):
        parts.append(f'"{name}": [\n{_lines(json.dumps(entry, sort_keys=True) for entry in document[name])}\n]')
    return "{" + ",\n".join(parts) + "}\n"


def _lines(entries: Iterable[str]) -> str:
    return ",\n".join(entries)


@cache
def load_schema() -> Schema:
    """The schema of this agent. Raises SchemaError where modules and traits disagree."""
    document = json.loads(COMPILED.read_text())
    return make_schema(document["tables"], document["notifications"], document["modules"])


def make_schema(
    documents: list[dict[str, Any]],
    notifications: Iterable[dict[str, Any]] = (),
    modules: Iterable[dict[str, Any]] = (),
) -> Schema:
    """Tables from compiled documents; stored columns of augmenting tables join the table they augment."""
    entries = {document["entry"]: document["name"] for document in documents if document["entry"]}
    joined: dict[str, list[dict[str, Any]]] = {}
    own: list[dict[str, Any]] = []
    for document in documents:
        base = entries.get(document["augments"], "")
        if base and document["name"] not in LIVE_TABLES:
            joined.setdefault(base, []).extend(document["columns"])
        else:
            own.append(document)
    tables = []
    aliases: list[tuple[dict[str, Any], str]] = []  # facts of an object without cells, and the object that has them
    for document in own:
        name = document["name"]
        index, number = _numbers(document)
        columns = []
        for column in document["columns"] + joined.get(name, []):
            target = number if column["name"] == index != number else _traits(column).alias_of
            if target:
                aliases.append((column, target))
            else:
                columns.append(column)
        tables.append(
            Table(
                name=name,
                oid=_arcs(document["oid"]),
                keeping=Keeping.LIVE if name in LIVE_TABLES else Keeping.STORED,
                scalar=document["scalar"],
                columns=tuple(_column(name, at, column, number) for at, column in enumerate(columns)),
                augments=entries.get(document["augments"], ""),
                description=document["description"],
            )
        )
    places = {column.name: column for table in tables for column in table.columns}
    check_traits(tables, {facts["name"]: target for facts, target in aliases})
    return Schema(
        tables,
        [_notification(document) for document in notifications],
        [Module(document["name"], _arcs(document["oid"]), document["description"]) for document in modules],
        [_column(places[target].table, places[target].position, facts, "") for facts, target in aliases],
    )


def _numbers(document: dict[str, Any]) -> tuple[str, str]:
    """Name of the INDEX object, and of the column that shows the number of a row: the table's own, else the INDEX."""
    index = document["index"][0] if document["index"] else ""
    own = (column["name"] for column in document["columns"] if _traits(column).role in NUMBERS)
    return index, next(own, index)


def _traits(facts: dict[str, Any]) -> Traits:
    return TRAITS.get(facts["name"], NO_TRAITS)


def _notification(facts: dict[str, Any]) -> Notification:
    objects = tuple(
        NotificationObject(entry["name"], _arcs(entry["oid"]), Wire[entry["wire"]]) for entry in facts["objects"]
    )
    return Notification(facts["name"], _arcs(facts["oid"]), objects, facts["description"])


def _column(table: str, position: int, facts: dict[str, Any], number: str) -> Column:
    wire = Wire[facts["wire"]]
    ranges = tuple((low, high) for low, high in facts["ranges"])
    labels = facts["labels"]
    traits = _traits(facts)
    if facts["name"] == number and traits is NO_TRAITS:
        traits = Traits(role=Role.INDEX)
    return Column(
        name=facts["name"],
        table=table,
        oid=_arcs(facts["oid"]),
        position=position,
        wire=wire,
        convention=facts["convention"],
        labels=dict(sorted(labels.items(), key=lambda item: item[1])),
        ranges=ranges,
        access=Access(facts["access"]),
        default=_default(facts["default"], wire, ranges, sorted(labels.values())),
        units=facts["units"],
        description=facts["description"],
        traits=traits,
    )


def _default(given: int | str | None, wire: Wire, ranges: tuple[tuple[int, int], ...], labels: list[int]) -> Value:
    """DEFVAL; without one 0, empty or 0.0.0.0, or where that is not a value of the object, its lowest."""
    if given is not None:
        return given.encode() if isinstance(given, str) else given
    if wire is Wire.OBJECT_IDENTIFIER:
        return (0, 0)
    if wire is Wire.IP_ADDRESS:
        return bytes(4)
    if wire in NUMERIC:
        lowest = labels[0] if labels else min((low for low, _ in ranges), default=0)
        allowed = 0 in labels if labels else not ranges or any(low <= 0 <= high for low, high in ranges)
        return 0 if allowed else lowest
    return bytes(min((low for low, _ in ranges), default=0))


def _arcs(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))
