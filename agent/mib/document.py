"""docs/objects.md from the schema: every object, what it takes and what it does.

python -m agent.mib.document > docs/objects.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from agent.mib.ber import NUMERIC, Wire
from agent.mib.compiled import load_schema
from agent.mib.deviations import BOUNDS, IN_GENERAL, LABELS
from agent.mib.schema import MAKERS, Access, Column, Keeping, Schema, Table

MANY_LABELS = 12

TYPES = {
    Wire.INTEGER: "INTEGER",
    Wire.OCTET_STRING: "octets",
    Wire.OBJECT_IDENTIFIER: "object identifier",
    Wire.IP_ADDRESS: "IPv4 address",
    Wire.COUNTER32: "Counter32",
    Wire.GAUGE32: "Unsigned32",
    Wire.TIMETICKS: "TimeTicks",
    Wire.COUNTER64: "Counter64",
}


def document(schema: Schema) -> str:
    """The whole page, Markdown."""
    parts = [
        "# Objects",
        "Made by `python -m agent.mib.document` from the modules in `mibs/` and the traits in `agent/mib/`.",
        "An object's instance is its OID, a dot and the number of its row; scalars end in `.0`. Marks: **creates**: "
        "writing it to an unused number makes the row; **removes**: that value removes the row; **later**: only the "
        "default is accepted as yet, and anything else is answered with inconsistentValue; of columns that create any "
        "value is, and the rows are kept until their work is there.",
    ]
    parts += [_table(table, schema.aliases) for table in sorted(schema.tables.values(), key=lambda table: table.oid)]
    parts.append(_deviations())
    return "\n\n".join(parts) + "\n"


def _deviations() -> str:
    """What differs from the published modules."""
    lines = ["## Other than published", "", *(f"- {text}" for text in IN_GENERAL)]
    lines += [f"- {name}: {why}." for name, why in {**BOUNDS, **LABELS}.items()]
    return "\n".join(lines)


def _table(table: Table, aliases: Iterable[Column]) -> str:
    kind = "scalars" if table.scalar else "table"
    source = "configuration" if table.keeping is Keeping.STORED else "made by the agent while it runs"
    lines = [f"## {table.name}", f"{'.'.join(map(str, table.oid))}, {kind}, {source}. {table.description}".strip(), ""]
    lines += ["| object | number | access | values | default | what it does |", "|---|---|---|---|---|---|"]
    former = [column for column in aliases if column.oid[: len(table.oid)] == table.oid]
    columns = [*table.columns, *sorted(former, key=lambda column: column.oid)]
    lines += [_row(table, column) for column in columns if column.access is not Access.NOT_ACCESSIBLE]
    return "\n".join(lines)


def _row(table: Table, column: Column) -> str:
    number = ".".join(map(str, column.oid[len(table.oid) :])) if column.oid[: len(table.oid)] == table.oid else ""
    default = column.show(column.default) if column.writable else ""
    cells = (column.name, number or ".".join(map(str, column.oid)), column.access.value, _values(column), default)
    return "| " + " | ".join(_cell(text) for text in (*cells, _effect(column))) + " |"


def _values(column: Column) -> str:
    text = column.convention or TYPES[column.wire]
    if column.labels:
        labels = [column.show(number) for number in column.names]
        shown = labels if len(labels) <= MANY_LABELS else [*labels[:3], "…", labels[-1]]
        text = ", ".join(shown)
    elif column.ranges:
        bounds = ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in column.ranges)
        text += f" ({bounds})" if column.wire in NUMERIC else f" ({bounds} octets)"
    return text + (f", {column.units}" if column.units else "")


def _effect(column: Column) -> str:
    traits = column.traits
    marks = []
    if traits.role in MAKERS:
        marks.append("**creates**")
    if traits.deletes is not None:
        marks.append(f"{column.show(traits.deletes)} **removes**")
    if traits.stage != "skeleton":
        marks.append("**later**")
    sentences = [", ".join(marks), traits.effect or column.description, traits.limit and f"Limit: {traits.limit}"]
    if traits.disturbs != "nothing":
        sentences.append(f"A change {traits.disturbs}")
    if traits.shown:
        sentences.append(f"Shown by {traits.shown}")
    return ". ".join(sentence.rstrip(".") for sentence in sentences if sentence)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(document(load_schema()))
