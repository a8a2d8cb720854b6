"""Values as a person types and reads them, by the type of their object.

Whatever an agent sends comes out as printable text: control characters, escape sequences,
marks that turn the writing round and octets that are no text appear as `\\x1b`. What is shown
can be typed, and means the same value (a secret, which reads `"*"`, keeps what it was).
"""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import re
from typing import Final

from agent.mib.ber import NUMERIC, Value, Wire
from agent.mib.schema import Column, Role
from agent.shell.outcome import Problem
from agent.snmp.client import Missing

DATE: Final = "Date"  # seconds since 1970
HEX: Final = "HexValue"
ADDRESSES: Final = frozenset({"InetAddress", "InetAddressIPv6"})
TEXT: Final = "DisplayString"
SECRETS: Final = frozenset({Role.SECRET, Role.SEALED})
MOST_LABELS: Final = 24  # in a message
LEAST_KEY: Final = 2  # characters that a label is guessed from
DATE_FORM: Final = "%Y-%m-%d %H:%M:%S"
DATE_FORM_SHOWN: Final = "YYYY-MM-DD hh:mm:ss"


class ValueProblem(Problem):
    """No value of this object: which one, and what is accepted."""


def harmless(text: str, *, keep: str = "") -> str:
    """Text of others as it can be shown: what does not print appears as octets, but for the characters to `keep`.
    Quotation marks and backslashes stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _octets(c) for c in text)


def _octets(character: str) -> str:
    if character in "\n\t":
        return {"\n": "\\n", "\t": "\\t"}[character]
    return "".join(f"\\x{octet:02x}" for octet in character.encode("utf-8", "surrogateescape"))


def quoted(octets: bytes) -> str:
    """A string between quotation marks, as the shell's language reads it."""
    text = octets.decode("utf-8", "surrogateescape").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{harmless(text)}"'


def is_address(column: Column) -> bool:
    """Octets that are an address of four or sixteen, where there are any."""
    return column.wire is Wire.OCTET_STRING and (column.convention in ADDRESSES or (16, 16) in column.ranges)


def show(column: Column, value: Value | Missing) -> str:
    """A value in one line: a label, a number, an address, a date, octets in hexadecimal, a string in quotation
    marks."""
    if isinstance(value, Missing):
        return "-"
    if column.traits.role in SECRETS:
        return '"*"' if value else '""'  # there is one, or none
    if isinstance(value, int):
        return _show_number(column, value)
    if isinstance(value, tuple):
        return ".".join(map(str, value))
    if column.wire is Wire.IP_ADDRESS and len(value) == 4:
        return str(ipaddress.IPv4Address(value))
    if is_address(column):
        if len(value) in (4, 16):
            return str(ipaddress.ip_address(value))
        return "0x" + value.hex() if value else '""'
    return quoted(value) if column.convention == TEXT else "0x" + value.hex()


def _show_number(column: Column, value: int) -> str:
    if (label := column.names.get(value)) is not None:
        return label
    if column.convention == HEX:
        return f"0x{value & 0xFFFFFFFF:x}"
    if column.convention == DATE and value > 0:
        return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime(DATE_FORM)
    if column.wire is Wire.TIMETICKS:
        minutes, hundredths = divmod(value, 6000)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        return f"{days}d{hours:02}:{minutes:02}:{hundredths // 100:02}.{hundredths % 100:02}"
    return str(value)


def accepted(column: Column) -> str:
    """What can be typed, in words."""
    if column.labels:
        return ",".join(f"{label}({number})" for label, number in column.labels.items())
    bounds = ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in column.ranges)
    if column.wire is Wire.IP_ADDRESS:
        return "an IPv4 address"
    if is_address(column):
        return "an address" if any(low <= 4 <= high for low, high in column.ranges) else "an IPv6 address"
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return "an object identifier"
    if column.wire in NUMERIC:
        kind = {DATE: f"a date ({DATE_FORM_SHOWN}, UTC)", HEX: "a number in hexadecimal"}.get(column.convention)
        return (kind or "a number") + (f" {bounds}" if bounds and not kind else "")
    what = "text" if column.convention == TEXT else "octets in hexadecimal (0x…)"
    return f"{what} of {bounds} octets" if bounds else what


def parse(column: Column, text: str, literal: bool = False) -> Value:
    """A value as it was typed; `literal`: it stood in quotation marks. Raises ValueProblem."""
    value = _parse(column, text, literal)
    if value is None or column.problem(value):
        shown = '"*"' if column.traits.role in SECRETS else harmless(text if len(text) < 80 else text[:77] + "…")
        shown = shown or '""'
        length = f" ({len(value)} octets)" if isinstance(value, bytes) and column.wire is Wire.OCTET_STRING else ""
        raise ValueProblem(
            f"{column.name}: {shown}{length} is no value{_alike(column, text)} {_accepted_here(column, text)}"
        )
    return value


def _alike(column: Column, text: str) -> str:
    """Labels that begin so, else those that look alike, where all labels are told."""
    key = label_key(text)
    few = len(column.labels) <= MOST_LABELS and len(key) >= LEAST_KEY
    begun = [label for label in column.labels if few and label.startswith(key)]
    alike = begun or (difflib.get_close_matches(key, column.labels, n=3) if few else [])
    return f", did you mean {', '.join(alike)}? accepted:" if alike else "; accepted:"


def _accepted_here(column: Column, text: str) -> str:
    """Of hundreds of labels those that look alike, or the first and the last ones."""
    labels = [f"{label}({number})" for label, number in column.labels.items()]
    if len(labels) <= MOST_LABELS:
        return accepted(column)
    alike = difflib.get_close_matches(text.lower(), column.labels, n=4)
    some = [f"{label}({column.labels[label]})" for label in alike] or [*labels[:6], "…", *labels[-1:]]
    return f"{', '.join(some)}; {column.name}? shows them all"


def _parse(column: Column, text: str, literal: bool) -> Value | None:
    """None where it is no value."""
    if column.wire in NUMERIC:
        return _parse_number(column, text.strip())
    if column.wire is Wire.OBJECT_IDENTIFIER:
        return tuple(map(int, text.strip(".").split("."))) if re.fullmatch(r"\.?\d+(\.\d+)+", text) else None
    if column.wire is Wire.IP_ADDRESS or is_address(column):
        if not text:
            return b"" if column.wire is Wire.OCTET_STRING else None
        try:
            return ipaddress.ip_address(text).packed
        except ValueError:
            return _hexadecimal(text) if column.wire is Wire.OCTET_STRING else None
    octets = text.encode("utf-8", "surrogateescape")
    if column.convention == TEXT or literal or column.traits.role in SECRETS:
        return octets
    return _hexadecimal(text)


def _hexadecimal(text: str) -> bytes | None:
    """`0x0a1b` or `0a:1b`; nothing is no octets."""
    if not text:
        return b""
    if re.fullmatch(r"0x([0-9A-Fa-f]{2})*", text):
        return bytes.fromhex(text[2:])
    return bytes.fromhex(text.replace(":", "")) if re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*", text) else None


def label_key(label: str) -> str:
    """Labels are the same whether written with `-` or `_`, small or capital."""
    return label.replace("_", "-").lower()


def _parse_number(column: Column, text: str) -> int | None:
    bare = re.sub(r"\(-?\d+\)$", "", text)
    for label, number in column.labels.items():
        if label_key(label) == label_key(bare):
            return number
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", text):
        number = int(text, 16)
        return number - (1 << 32) if column.wire is Wire.INTEGER and number >= 1 << 31 else number
    if column.convention == DATE:
        try:
            return int(datetime.datetime.strptime(text, DATE_FORM).replace(tzinfo=datetime.UTC).timestamp())
        except ValueError:
            return None
    if column.wire is Wire.TIMETICKS and (found := re.fullmatch(r"(\d+)d(\d\d):(\d\d):(\d\d)\.(\d\d)", text)):
        days, hours, minutes, seconds, hundredths = map(int, found.groups())
        return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 100 + hundredths
    return None
