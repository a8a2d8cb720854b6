"""A manager: get, walk, read whole tables, set; by name and value, on a session.

    async with await SnmpClient.open("127.0.0.1", 1161, credentials, load_schema()) as client:
        description = await client.value("ipsecPeerDescription.1")
        await client.set([("ipsecPeerDescription.1", "Branch"), ("ipsecPeerPriority.1", 2)])
        rows = await client.table("ipsecPeerTable", ["ipsecPeerDescription", "ipsecPeerPriority"])
        async for variable in client.walk("ipsecPeerTable"):
            print(variable.oid, variable.show())

Reads take as many requests as they need. A SET is one message, carried out whole or not at
all. Nothing is kept between two calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from agent.mib.ber import BerError, Value, encode_oid_contents
from agent.mib.schema import Access, Schema
from agent.snmp.client.credentials import Credentials
from agent.snmp.client.errors import Oid, RequestFailed, SnmpError
from agent.snmp.client.names import Missing, Name, Names, Tlv, Variable
from agent.snmp.client.session import Asking, Response, Session
from agent.snmp.pdu import END_OF_MIB_VIEW, NULL, PduType, VarBind, Version
from agent.store.errors import ErrorStatus

GET_VARBINDS: Final = 64  # instances in one GET
BULK_VARBINDS: Final = 1000  # instances asked for in one GETBULK; the agent sends as many as fit into its answer
LAST_REFUSAL: Final = "ipsecGwLastRefusal.0"


class SnmpClient:
    """Made by `open`, or on a session of one's own. `schema`: without it, names are OIDs and values TLVs."""

    def __init__(self, session: Asking, schema: Schema | None = None) -> None:
        self.session = session
        self.names = Names(schema)

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        credentials: Credentials,
        schema: Schema | None = None,
        *,
        wait: float = 1.0,
        retries: int = 4,
    ) -> SnmpClient:
        """Sends nothing yet. `wait`: seconds until the first retry, doubled for each further one. Raises SnmpError
        where the host is unknown."""
        return cls(await Session.open(host, port, credentials, wait=wait, retries=retries), schema)

    def close(self) -> None:
        self.session.close()

    async def __aenter__(self) -> SnmpClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.close()

    # ---- instances --------------------------------------------------------------------

    async def get(self, names: Iterable[Name]) -> list[Variable]:
        """The instances, in their order; what is not there has a value of `Missing`. Raises SnmpError."""
        wanted = [self._varbind(self.names.oid(name)) for name in names]
        found: list[Variable] = []
        for at in range(0, len(wanted), GET_VARBINDS):
            found += await self._got(wanted[at : at + GET_VARBINDS])
        return found

    async def _got(self, wanted: list[VarBind]) -> list[Variable]:
        """A GET, in two halves where the answer is too big (RFC 3416 section 4.2.1)."""
        response = await self.session.request(PduType.GET, wanted)
        if response.status == ErrorStatus.TOO_BIG and len(wanted) > 1:
            middle = len(wanted) // 2
            return [*await self._got(wanted[:middle]), *await self._got(wanted[middle:])]
        return self._variables(self._accepted(response, wanted))

    async def value(self, name: Name) -> Value:
        """One value. Raises SnmpError where it is not there."""
        [variable] = await self.get([name])
        if isinstance(variable.value, Missing):
            raise SnmpError(f"{self.names.spoken(variable.oid)}: {variable.show()}")
        return variable.value

    async def next(self, names: Iterable[Name]) -> list[Variable]:
        """GETNEXT: the instance behind each name."""
        wanted = [self._varbind(self.names.oid(name)) for name in names]
        return self._variables(self._accepted(await self.session.request(PduType.GETNEXT, wanted), wanted))

    async def bulk(self, names: Iterable[Name], repetitions: int, non_repeaters: int = 0) -> list[Variable]:
        """GETBULK, as it is answered (RFC 3416 section 4.2.3)."""
        wanted = [self._varbind(self.names.oid(name)) for name in names]
        response = await self.session.request(PduType.GETBULK, wanted, non_repeaters, repetitions)
        return self._variables(self._accepted(response, wanted))

    async def set(self, values: Iterable[tuple[Name, Value | str | Tlv]]) -> None:
        """All of them or none. Text is read as the column's label, number, address or string; octets, numbers and
        arcs are sent as they are. Raises UnknownName before anything is sent, RequestFailed where the agent refuses."""
        wanted: list[VarBind] = []
        for name, value in values:
            oid = self.names.oid(name)
            wanted.append((encode_oid_contents(oid), self.names.tlv(oid, value)))
        self._accepted(await self.session.request(PduType.SET, wanted), wanted)

    async def last_refusal(self) -> str:
        """What this kind of agent says of the SET it refused last, '' where it says nothing."""
        try:
            value = await self.value(LAST_REFUSAL)
        except SnmpError:
            return ""
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    # ---- walks ------------------------------------------------------------------------

    async def walk(self, root: Name) -> AsyncIterator[Variable]:
        """Every instance below a node, in order. Raises SnmpError, also where the agent does not go forward."""
        oid = self.names.oid(root)
        whole = len(oid) < 2  # `.1`: two arcs are the least that can be sent
        at = encode_oid_contents((*oid, 0) if whole else oid)
        top = b"" if whole else at
        last: Oid = ()
        while True:
            batch = await self._behind([at], BULK_VARBINDS)
            for name, value in batch:
                if value == END_OF_MIB_VIEW or not name.startswith(top) or name == top:
                    return
                found = self._variable(name, value)
                if found.oid <= last:
                    raise SnmpError(f"{self.session.target} does not go forward behind {self.names.spoken(last)}")
                last = found.oid
                yield found
            if not batch:
                return
            at = batch[-1][0]

    async def table(self, name: str, columns: Sequence[str] | None = None) -> dict[int, dict[str, Value]]:
        """Rows of a table by number, each with its readable columns, or those named, by name. A scalar group is row
        0. Values a row does not have are not in it. Raises SnmpError."""
        table = self.names.table(name)
        if columns is None:
            chosen = [column for column in table.columns if column.access is not Access.NOT_ACCESSIBLE]
        else:
            chosen = [self.names.column_named(column) for column in columns]
        rows: dict[int, dict[str, Value]] = {}
        for at in range(0, len(chosen), GET_VARBINDS):
            part = {column.prefix: column.name for column in chosen[at : at + GET_VARBINDS]}
            async for prefix, variable in self._columns(list(part)):
                if not isinstance(variable.value, Missing):
                    rows.setdefault(variable.number, {})[part[prefix]] = variable.value
        return dict(sorted(rows.items()))

    async def _columns(self, prefixes: Sequence[bytes]) -> AsyncIterator[tuple[bytes, Variable]]:
        """The instances of several columns, side by side."""
        places = {prefix: (prefix, self.names.variable(prefix, NULL).oid) for prefix in prefixes}
        while places:
            asked = list(places)
            batch = await self._behind([places[prefix][0] for prefix in asked], max(1, BULK_VARBINDS // len(asked)))
            if not batch:
                return
            for at, (name, value) in enumerate(batch):
                prefix = asked[at % len(asked)]
                if prefix not in places:
                    continue
                if value == END_OF_MIB_VIEW or not name.startswith(prefix):
                    del places[prefix]
                    continue
                variable = self._variable(name, value)
                if variable.oid <= places[prefix][1]:
                    raise SnmpError(
                        f"{self.session.target} does not go forward behind {self.names.spoken(variable.oid)}"
                    )
                places[prefix] = name, variable.oid
                yield prefix, variable

    async def _behind(self, names: Sequence[bytes], repetitions: int) -> list[VarBind]:
        """What follows the names, by GETBULK; in SNMPv1, which has none, by GETNEXT."""
        wanted = [(name, NULL) for name in names]
        if self.session.version != Version.V1:
            response = await self.session.request(PduType.GETBULK, wanted, 0, repetitions)
            return self._accepted(response, wanted)
        response = await self.session.request(PduType.GETNEXT, wanted)
        if response.status != ErrorStatus.NO_SUCH_NAME:
            return self._accepted(response, wanted)
        ended = response.error_index - 1
        if len(wanted) == 1:
            return [(names[0], END_OF_MIB_VIEW)]
        if not 0 <= ended < len(wanted):
            return self._accepted(response, wanted)
        rest = await self._behind([*names[:ended], *names[ended + 1 :]], repetitions)
        return [*rest[:ended], (names[ended], END_OF_MIB_VIEW), *rest[ended:]]

    # ---- variable bindings ------------------------------------------------------------

    def _varbind(self, oid: Oid) -> VarBind:
        return encode_oid_contents(oid), NULL

    def _accepted(self, response: Response, wanted: Sequence[VarBind]) -> list[VarBind]:
        """Raises RequestFailed for an error-status."""
        if response.status == ErrorStatus.NO_ERROR:
            return response.varbinds
        oid: Oid = ()
        if 0 < response.error_index <= len(wanted):
            oid = self.names.variable(*wanted[response.error_index - 1]).oid
        raise RequestFailed(response.status, response.error_index, oid, self.names.spoken(oid) if oid else "")

    def _variables(self, varbinds: Iterable[VarBind]) -> list[Variable]:
        return [self._variable(name, value) for name, value in varbinds]

    def _variable(self, name: bytes, value: bytes) -> Variable:
        try:
            return self.names.variable(name, value)
        except BerError as error:
            raise SnmpError(f"{self.session.target} sent what is no variable binding: {error}") from None
