"""The management station of the lab: net-snmp's command line tools, and nothing of ours, speak to a gateway's agent.

Values are written and read with the names of mibs/, as an operator would; `=` lets snmpset take the type from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from tests.lab.topology import run

PROJECT = Path(__file__).resolve().parent.parent.parent
MIBS = [
    "-M",
    f"{PROJECT}/mibs:{PROJECT}/mibs/base",
    "-m",
    "IPSEC-GATEWAY-MIB:IPSEC-GATEWAY-IKEV2-MIB:IPSEC-GATEWAY-EXT-MIB:IPSEC-GATEWAY-CERT-MIB",
]
ADDRESS = "127.0.0.1:1161"
COMMUNITY = "lab"
SEGMENT = 2048  # octets of a document in one value
DONE = 3  # ipsecGwImportState; below it is under way, above it failed

Value = str | int | bytes


class Refused(Exception):
    """snmpset ended with an error; the text is net-snmp's."""


class Station:
    """snmpset, snmpget and snmpbulkwalk inside a gateway's namespace, from loopback."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway

    def _run(self, tool: str, options: list[str], words: list[str]) -> str:
        command = [tool, "-v2c", "-c", COMMUNITY, "-t", "3", "-r", "9", *MIBS, *options, ADDRESS, *words]
        return run(self.gateway, command, check=False)

    def set(self, values: Mapping[str, Value]) -> None:
        """One SET of all the cells, octets as they are. Raises Refused."""
        words: list[str] = []
        for instance, value in values.items():
            words += [instance, "x", value.hex()] if isinstance(value, bytes) else [instance, "=", str(value)]
        output = self._run("snmpset", ["-OqseU"], words)
        if re.search(r"^(Error in packet|Reason:|Timeout|snmpset:)|Unknown|Bad (value|variable)", output, re.MULTILINE):
            raise Refused(f"{self.gateway}: {output.strip()} ({self.refusal()})")

    def import_file(self, number: int, octets: bytes, **columns: Value) -> str:
        """Upload a document of certificates and import it as job `number`; '' once that is done, else its message."""
        cells: dict[str, Value] = {
            f"ipsecGwDocumentName.{number}": "file",
            f"ipsecGwDocumentKind.{number}": "certificate",
        }
        for place in range(0, len(octets), SEGMENT):
            cells[f"ipsecGwSegmentData.{(number << 16) + place // SEGMENT + 1}"] = octets[place : place + SEGMENT]
        job = {f"ipsecGwImport{name}.{number}": value for name, value in columns.items()}
        self.set({**cells, f"ipsecGwImportDocument.{number}": number, **job})
        end = time.monotonic() + 30
        while (state := self.number(f"ipsecGwImportState.{number}")) < DONE and time.monotonic() < end:
            time.sleep(0.1)
        return "" if state == DONE else f"state {state}: {self.get(f'ipsecGwImportMessage.{number}')}"

    def refusal(self) -> str:
        """What the agent said of its latest refusal."""
        return self.get("ipsecGwLastRefusal.0")

    def get(self, instance: str) -> str:
        """Value of one cell; enumerations as numbers; 'No Such …' where there is none."""
        return self._run("snmpget", ["-OqveU"], [instance]).strip().strip('"')

    def number(self, instance: str) -> int:
        """Value of a cell of a number. Raises LookupError where there is none."""
        text = self.get(instance)
        if not re.fullmatch(r"-?\d+", text):
            raise LookupError(f"{self.gateway}: {instance}: {text}")
        return int(text)

    def walk(self, root: str) -> dict[str, str]:
        """Instances below a table or column, with values as `get` gives them."""
        cells: dict[str, str] = {}
        for line in self._run("snmpbulkwalk", ["-OqseU", "-Cr30"], [root]).splitlines():
            instance, _, value = line.partition(" ")
            if "." in instance and not value.startswith("No "):
                cells[instance] = value.strip().strip('"')
        return cells

    def rows(self, table: str) -> dict[int, dict[str, str]]:
        """Rows of a table by number, cells by column name."""
        rows: dict[int, dict[str, str]] = {}
        for instance, value in self.walk(table).items():
            column, _, number = instance.rpartition(".")
            rows.setdefault(int(number), {})[column] = value
        return rows

    def answers(self, seconds: float) -> bool:
        """Does the agent answer within this time? One process asks, twice a second."""
        command = ["snmpget", "-v2c", "-c", COMMUNITY, "-t", "0.5", "-r", str(int(seconds * 2)), *MIBS, "-OqveU"]
        output = run(self.gateway, [*command, ADDRESS, "ipsecGwGeneration.0"], check=False)
        return output.strip().isdigit()

    def eventually(self, instance: str, value: int, seconds: float = 60) -> int | str:
        """The cell's value once it is `value`, or what it is when time is up."""
        end = time.monotonic() + seconds
        while True:
            text = self.get(instance)
            if text == str(value):
                return value
            if time.monotonic() > end:
                return text
            time.sleep(0.3)
