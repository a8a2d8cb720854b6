"""docs/objects.md from the schema: every object, what it takes and what it does.

python -m agent.mib.document > docs/objects.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from agent.mib.ber import NUMERIC, Wire
from agent.mib.compiled import load_schema
from agent.mib.deviations import BOUNDS, IN_GENERAL, LABELS
from agent.mib.schema import MAKERS, Access, Column, Keeping, Role, Schema, Table
from agent.mib.traits import SchemaError

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


MECHANISMS = {
    "plan.spd": "policies in the kernel (XFRM), planned from the rules; nftables for what policies cannot tell apart",
    "plan.ike": "what charon is told of a connection or its children (VICI `load-conn`)",
    "plan.credentials": "keys, passwords and certificates that charon is given (VICI `load-shared`, `load-cert`)",
    "charon.conf": "settings of charon as a whole, in a file that it reads; some only when it starts",
    "monitor": "the agent itself, by what charon and the kernel report: it begins, ends and counts SAs",
    "backends": "the reconciler, which compares kernel and charon with what is wanted",
    "backends.link": "XFRM interfaces, their addresses and routes (rtnetlink)",
    "log": "the words of log lines, events, notifications and `explain`",
    "store": "rows, documents, jobs and configurations as the agent keeps them",
    "snmp": "the agent's own SNMP engine",
    "shell": "the SNMP shell, and who may log in to it over SSH",
    "pki": "keys, certificates, requests and revocation lists, made and read by the agent",
    "none": "nothing on Linux corresponds to it; the limit says why",
}
"""By what an object acts: the words of Traits.mechanism, several with ", " between."""

LAB = "lab: "


def document(schema: Schema) -> str:
    """The whole page, Markdown."""
    parts = [
        "# Objects",
        "Made by `python -m agent.mib.document` from the modules in `mibs/` and the traits in `agent/mib/`.",
        "An object's instance is its OID, a dot and the number of its row; scalars end in `.0`. Of each table, what "
        "can be written comes first, then what can only be read. Marks: **creates**: writing it to an unused number "
        "makes the row; **removes**: that value removes the row; **later**: only the default is accepted as yet, and "
        "anything else is answered with inconsistentValue; of columns that create any value is, and the rows are kept "
        "until their work is there.",
        "*Shown by* names the test that shows the effect, in words: `def test_` and the words with `_` between them, "
        "in the file it links to. `lab:` names a scenario with real gateways, run by `scripts/lab` and its name.",
        "*By* says what brings the effect about:",
        "\n".join(["| by | |", "|---|---|", *(f"| {name} | {what} |" for name, what in MECHANISMS.items())]),
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
    parts = [f"## {table.name}", f"{'.'.join(map(str, table.oid))}, {kind}, {source}. {table.description}".strip()]
    former = [column for column in aliases if column.oid[: len(table.oid)] == table.oid]
    columns = [*table.columns, *sorted(former, key=lambda column: column.oid)]
    written = [_written(table, column) for column in columns if column.writable]
    if written:
        head = ("object", "number", "values", "default", "what it does", "by", "limit", "shown by")
        parts.append(_rows(head, written))
    read = [_read(table, column) for column in columns if column.access is Access.READ_ONLY]
    if read:
        parts.append(_rows(("only read", "number", "values", "what it is"), read))
    return "\n\n".join(parts)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def _written(table: Table, column: Column) -> Sequence[str]:
    traits = column.traits
    unknown = set(traits.mechanism.split(", ")) - set(MECHANISMS)
    if unknown:
        raise SchemaError(f"{column.name}: acts by {unknown}, which MECHANISMS does not explain")
    default = '""' if traits.role is Role.SECRET else column.show(column.default)
    return (
        *(column.name, _number(table, column), _values(column), default),
        *(_effect(column), traits.mechanism, traits.limit, _shown(traits.shown)),
    )


def _read(table: Table, column: Column) -> Sequence[str]:
    text = column.traits.effect or column.description
    limit = column.traits.limit and f"Limit: {column.traits.limit}"
    return column.name, _number(table, column), _values(column), _sentences(text, limit)


def _number(table: Table, column: Column) -> str:
    inside = column.oid[: len(table.oid)] == table.oid
    return ".".join(map(str, column.oid[len(table.oid) :] if inside else column.oid))


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
    change = "" if traits.disturbs == "nothing" else f"A change {traits.disturbs}"
    return _sentences(", ".join(marks), traits.effect or column.description, change)


def _shown(shown: str) -> str:
    """`tests/test_x.py::test_a_rule_is_kept` is a link to the file with the test's words."""
    found = []
    for each in shown.split("; ") if shown else ():
        path, _, test = each.partition("::")
        words = test.removeprefix("test_").replace("_", " ")
        found.append(each if each.startswith(LAB) else f"[{words}](../{path})")
    return "; ".join(found)


def _sentences(*sentences: str) -> str:
    return ". ".join(sentence.rstrip(".") for sentence in sentences if sentence)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(document(load_schema()))
