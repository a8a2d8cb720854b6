"""VICI messages read into the engine's data: IKE_SAs, CHILD_SAs and events.

Keys are those of strongSwan 5.9.8 (list-sa, ike-updown, ike-rekey, ike-update, child-updown,
child-rekey, log). What charon leaves out stays at the field's default.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from agent.backends.engine import ChildSa, IkeEvent, IkeEventKind, IkeSa
from agent.plan import numbers
from agent.plan.flows import observed_name
from agent.plan.traffic import PORT_PROTOCOLS

PROTOCOLS: Final = {"ESP": 50, "AH": 51}
NAMED_PORT: Final = re.compile(r"([^\[]+)\[([^/\]]+)/([A-Za-z][^\]]*|[0-9]+[A-Za-z][^\]]*)\]")
PROTOCOL_NAMES: Final = {str(number): name for number, name in PORT_PROTOCOLS.items()}
EVENTS: Final = ("ike-updown", "ike-rekey", "ike-update", "child-updown", "child-rekey", "log")


def texts(value: Any) -> Any:
    """The same message with octets decoded."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [texts(item) for item in value]
    if isinstance(value, Mapping):
        return {key: texts(item) for key, item in value.items()}
    return value


def sas_of(message: Mapping[str, Any]) -> Iterator[IkeSa]:
    """IKE_SAs of one decoded list-sa event."""
    for name, fields in message.items():
        if isinstance(fields, Mapping):
            yield ike_sa(name, fields)


def ike_sa(name: str, fields: Mapping[str, Any]) -> IkeSa:
    get = fields.get
    initiator = get("initiator") == "yes"
    children = get("child-sas", {})
    return IkeSa(
        connection=name,
        unique_id=_number(get("uniqueid")),
        version=_number(get("version")),
        state=get("state", ""),
        local=_address(get("local-host", "")),
        remote=_address(get("remote-host", "")),
        local_port=_number(get("local-port")) or 500,
        remote_port=_number(get("remote-port")) or 500,
        local_id=get("local-id", ""),
        remote_id=get("remote-id", ""),
        initiator=initiator,
        initiator_spi=_octets(get("initiator-spi", "")),
        responder_spi=_octets(get("responder-spi", "")),
        encryption=get("encr-alg", ""),
        encryption_bits=_number(get("encr-keysize")),
        integrity=get("integ-alg", ""),
        prf=get("prf-alg", ""),
        group=get("dh-group", ""),
        established=_number(get("established")),
        rekey_in=_number(get("rekey-time")),
        reauth_in=_number(get("reauth-time")),
        nat_local=get("nat-local") == "yes",
        nat_remote=get("nat-remote") == "yes",
        xauth_user=get("remote-xauth-id", ""),
        children=tuple(
            child_sa(child) for child in children.values() if isinstance(child, Mapping) and "name" in child
        ),
    )


def child_sa(fields: Mapping[str, Any]) -> ChildSa:
    get = fields.get
    reqid = _number(get("reqid"))
    local, remote = (tuple(map(_numeric, get(key, ()))) for key in ("local-ts", "remote-ts"))
    child = numbers.rule_child(get("name", ""))
    flow = bool(child) and numbers.is_allotted_reqid(reqid)
    return ChildSa(
        name=observed_name(child, local, remote) if flow else get("name", ""),
        unique_id=_number(get("uniqueid")),
        reqid=reqid,
        state=get("state", ""),
        mode=0 if get("mode") == "TRANSPORT" else 1,
        protocol=PROTOCOLS.get(get("protocol", "ESP"), 50),
        spi_in=_octets(get("spi-in", "")),
        spi_out=_octets(get("spi-out", "")),
        ipcomp="cpi-in" in fields or "cpi-out" in fields,
        encap=get("encap") == "yes",
        encryption=get("encr-alg", ""),
        encryption_bits=_number(get("encr-keysize")),
        integrity=get("integ-alg", ""),
        group=get("dh-group", ""),
        octets_in=_number(get("bytes-in")),
        packets_in=_number(get("packets-in")),
        octets_out=_number(get("bytes-out")),
        packets_out=_number(get("packets-out")),
        installed=_number(get("install-time")),
        rekey_in=_number(get("rekey-time")),
        life_left=_number(get("life-time")),
        local_selectors=local,
        remote_selectors=remote,
        cpi_in=_octets(get("cpi-in", "")),
        cpi_out=_octets(get("cpi-out", "")),
    )


def events_of(kind: str, message: Mapping[str, Any]) -> Iterator[IkeEvent]:
    """Events of the engine that one VICI event means: none, one, or one per child of it."""
    if kind == "log":
        name = message.get("ikesa-name", "")
        text = message.get("msg", "")
        yield IkeEvent(
            IkeEventKind.LOG,
            connection=name if numbers.is_our_connection(name) else "",
            group=message.get("group", ""),
            level=_number(message.get("level")),
            text=text,
        )
        return
    up = message.get("up") == "yes"
    for name, fields in message.items():
        if not isinstance(fields, Mapping):
            continue
        if kind == "ike-rekey":
            if isinstance(fields.get("old"), Mapping) and isinstance(fields.get("new"), Mapping):
                old, new = ike_sa(name, fields["old"]), ike_sa(name, fields["new"])
                yield IkeEvent(IkeEventKind.IKE_REKEY, ike=new, old_ike=old, connection=name)
            continue
        ike = ike_sa(name, fields)
        if kind == "ike-updown":
            yield IkeEvent(IkeEventKind.IKE_UP if up else IkeEventKind.IKE_DOWN, ike=ike, connection=name)
        elif kind == "ike-update":
            yield IkeEvent(IkeEventKind.IKE_UPDATE, ike=_moved(ike, message), connection=name)
        elif kind in ("child-updown", "child-rekey"):
            yield from _child_events(kind, up, ike, fields.get("child-sas", {}))


def _moved(ike: IkeSa, message: Mapping[str, Any]) -> IkeSa:
    """The SA where it is from now on: the section about it may still tell of the addresses before."""
    news: dict[str, Any] = {}
    for side in ("local", "remote"):
        if f"{side}-host" in message:
            news[side] = _address(message[f"{side}-host"])
            news[f"{side}_port"] = _number(message.get(f"{side}-port"))
    return replace(ike, **news)


def _child_events(kind: str, up: bool, ike: IkeSa, children: Mapping[str, Any]) -> Iterator[IkeEvent]:
    for fields in children.values():
        if not isinstance(fields, Mapping):
            continue
        if kind == "child-updown" and "name" in fields:
            happened = IkeEventKind.CHILD_UP if up else IkeEventKind.CHILD_DOWN
            child = child_sa(fields)
            yield IkeEvent(happened, ike=ike, child=child, connection=ike.connection, child_name=child.name)
        elif isinstance(fields.get("old"), Mapping) and isinstance(fields.get("new"), Mapping):
            new, old = child_sa(fields["new"]), child_sa(fields["old"])
            yield IkeEvent(
                IkeEventKind.CHILD_REKEY,
                ike=ike,
                child=new,
                old_child=old,
                connection=ike.connection,
                child_name=new.name,
            )


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _numeric(selector: str) -> str:
    """charon names a port where /etc/services does: `10.1.0.5/32[tcp/http]`."""
    match = NAMED_PORT.fullmatch(selector)
    if match is None:
        return selector
    protocol = PROTOCOL_NAMES.get(match[2], match[2])
    try:
        return f"{match[1]}[{match[2]}/{socket.getservbyname(match[3], protocol)}]"
    except OSError:
        return selector


def _octets(text: str) -> bytes:
    """Hexadecimal of SPIs; charon leaves leading zeros out of none of them."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _address(text: str) -> bytes:
    """Packed; empty for '%any' and other words."""
    try:
        return ipaddress.ip_address(text.partition("%")[0]).packed
    except ValueError:
        return b""
