"""mibs/ → agent/mib/compiled.json, by pysmi. Run after every change of a module:

    python -m agent.mib.compile

The result is part of the package, so starting the agent needs no compiler and no network,
and is free of time, host and user, so that it changes only when a module does
(tests/test_mib_schema.py compares).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from agent.mib.compiled import COMPILED, document_text

MIBS = Path(__file__).resolve().parents[2] / "mibs"
MODULES = (
    "IPSEC-GATEWAY-MIB",
    "IPSEC-GATEWAY-CERT-MIB",
    "IPSEC-GATEWAY-IKEV2-MIB",
    "IPSEC-GATEWAY-RADIUS-MIB",
    "IPSEC-GATEWAY-EXT-MIB",
    "IPSEC-GATEWAY-ADMIN-MIB",
)
FOR_NOTIFY = "accessible-for-notify"

BASE_WIRE = {
    "Integer32": "INTEGER",
    "INTEGER": "INTEGER",
    "OctetString": "OCTET_STRING",
    "OCTET STRING": "OCTET_STRING",
    "Bits": "OCTET_STRING",
    "ObjectIdentifier": "OBJECT_IDENTIFIER",
    "OBJECT IDENTIFIER": "OBJECT_IDENTIFIER",
    "IpAddress": "IP_ADDRESS",
    "Counter32": "COUNTER32",
    "Gauge32": "GAUGE32",
    "Unsigned32": "GAUGE32",
    "TimeTicks": "TIMETICKS",
    "Counter64": "COUNTER64",
}
STANDARD_TYPES: dict[str, dict[str, Any]] = {
    "DisplayString": {"type": "OctetString", "constraints": {"size": [{"min": 0, "max": 255}]}},
    "InetAddress": {"type": "OctetString", "constraints": {"size": [{"min": 0, "max": 255}]}},
    "InetAddressType": {
        "type": "INTEGER",
        "constraints": {"enumeration": {"unknown": 0, "ipv4": 1, "ipv6": 2, "ipv4z": 3, "ipv6z": 4, "dns": 16}},
    },
    "InetAddressPrefixLength": {"type": "Unsigned32", "constraints": {"range": [{"min": 0, "max": 2040}]}},
    "InetAddressIPv6": {"type": "OctetString", "constraints": {"size": [{"min": 16, "max": 16}]}},
    "RowStatus": {
        "type": "INTEGER",
        "constraints": {
            "enumeration": {
                "active": 1,
                "notInService": 2,
                "notReady": 3,
                "createAndGo": 4,
                "createAndWait": 5,
                "destroy": 6,
            }
        },
    },
}
"""Conventions of the standard modules that ours import; their text is in mibs/base."""


def parse_modules(mibs: Path = MIBS) -> dict[str, dict[str, Any]]:
    """Each module as pysmi's JSON code generator gives it."""
    from pysmi.codegen import JsonCodeGen
    from pysmi.compiler import MibCompiler
    from pysmi.parser import SmiV2Parser
    from pysmi.reader import FileReader
    from pysmi.searcher import StubSearcher
    from pysmi.writer import FileWriter

    with tempfile.TemporaryDirectory() as folder:
        writer = FileWriter(folder)
        writer.set_options(suffix=".json")
        compiler = MibCompiler(SmiV2Parser(), JsonCodeGen(), writer)
        compiler.add_sources(FileReader(str(mibs)), FileReader(str(mibs / "base")))
        compiler.add_searchers(StubSearcher("SNMPv2-SMI", "SNMPv2-TC", "SNMPv2-CONF", "INET-ADDRESS-MIB"))
        outcome = compiler.compile(*MODULES, genTexts=True)
        failed = {name: status for name, status in outcome.items() if status not in ("compiled", "untouched")}
        if failed:
            raise SystemExit("\n".join(f"{n}: {s} {getattr(s, 'error', '')}" for n, s in failed.items()))
        return {name: json.loads((Path(folder) / f"{name}.json").read_text()) for name in MODULES}


def reduce_modules(modules: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Only what the schema needs: tables with their columns, scalar groups as tables of one row."""
    types = dict(STANDARD_TYPES)
    nodes: dict[str, str] = {}  # oid → name, for the groups of scalars
    for module in modules.values():
        for name, node in module.items():
            if node.get("class") == "textualconvention":
                types[name] = node["type"]
            elif "oid" in node:
                nodes[node["oid"]] = name
    tables: dict[str, dict[str, Any]] = {}
    columns: list[tuple[str, dict[str, Any]]] = []
    for module in modules.values():
        for name, node in module.items():
            if node.get("class") != "objecttype" or node.get("maxaccess") == FOR_NOTIFY:
                continue
            parent = node["oid"].rpartition(".")[0]
            if node["nodetype"] == "row":
                table = nodes[parent]
                tables[node["oid"]] = {
                    "name": table,
                    "entry": name,
                    "oid": node["oid"],
                    "scalar": False,
                    "index": [entry["object"] for entry in node.get("indices", [])],
                    "augments": node.get("augmention", {}).get("object", ""),
                    "description": module[table]["description"],
                    "columns": [],
                }
            elif node["nodetype"] == "scalar":
                tables.setdefault(
                    parent,
                    {
                        "name": nodes[parent],
                        "entry": "",
                        "oid": parent,
                        "scalar": True,
                        "index": [],
                        "augments": "",
                        "description": "",
                        "columns": [],
                    },
                )
                columns.append((parent, _reduce_object(name, node, types)))
            elif node["nodetype"] == "column":
                columns.append((parent, _reduce_object(name, node, types)))
    for parent, column in columns:
        tables[parent]["columns"].append(column)
    for document in tables.values():
        document["columns"].sort(key=lambda column: _arcs(column["oid"]))
    return {
        "tables": sorted(tables.values(), key=lambda document: _arcs(document["oid"])),
        "notifications": _notifications(modules, types),
        "modules": _modules(modules),
    }


def _notifications(modules: dict[str, dict[str, Any]], types: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each notification with its objects in order, those that only notifications carry included."""
    objects = {
        name: {"name": name, "oid": node["oid"], "wire": _reduce_object(name, node, types)["wire"]}
        for module in modules.values()
        for name, node in module.items()
        if node.get("class") == "objecttype" and node["nodetype"] in ("scalar", "column")
    }
    found = [
        {
            "name": name,
            "oid": node["oid"],
            "objects": [objects[entry["object"]] for entry in node.get("objects", [])],
            "description": " ".join(node.get("description", "").split()),
        }
        for module in modules.values()
        for name, node in module.items()
        if node.get("class") == "notificationtype"
    ]
    return sorted(found, key=lambda document: _arcs(document["oid"]))


def _modules(modules: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Name, module identity and what it is about, for sysORTable."""
    return [
        {"name": name, "oid": node["oid"], "description": " ".join(node.get("description", "").split())}
        for name, module in modules.items()
        for node in module.values()
        if node.get("class") == "moduleidentity"
    ]


def _reduce_object(name: str, node: dict[str, Any], types: dict[str, dict[str, Any]]) -> dict[str, Any]:
    syntax = node["syntax"]
    convention = syntax["type"] if syntax["type"] in types else ""
    base = types[convention] if convention else syntax
    constraints = {**base.get("constraints", {}), **syntax.get("constraints", {})}
    bounds = constraints.get("range") or constraints.get("size") or []
    wire = BASE_WIRE[base["type"]]
    default = node.get("default", {}).get("default")
    return {
        "name": name,
        "oid": node["oid"],
        "wire": wire,
        "convention": convention or ("BITS" if base["type"] == "Bits" else ""),
        "labels": constraints.get("enumeration") or {},
        "bits": base.get("bits") or {},
        "ranges": [[bound["min"], bound["max"]] for bound in bounds],
        "access": "read-write" if node["maxaccess"] == "read-create" else node["maxaccess"],
        "default": None if default is None else _default(default),
        "units": node.get("units", ""),
        "description": " ".join(node.get("description", "").split()),
        "status": node["status"],
    }


def _default(default: dict[str, Any]) -> int | str:
    value = default["value"]
    return int(value) if default["format"] == "decimal" else str(value)


def _arcs(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


def compiled_text(mibs: Path = MIBS) -> str:
    """What compiled.json has to hold for these modules."""
    return document_text(reduce_modules(parse_modules(mibs)))


if __name__ == "__main__":
    COMPILED.write_text(compiled_text())
