"""A raw AF_NETLINK socket: batches, dumps and events.

The kernel answers a request within `sendmsg`: the replies lie in the receive queue when
it returns. So batches are sent and their answers read on the event loop without waiting,
which costs tens of microseconds per message; only long work is cut into pieces by the
caller. Source: RFC 3549 sections 2.2 to 2.3 and linux/netlink.h.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple

from agent.backends.engine import EngineError
from agent.backends.xfrm.messages import (
    MSG_DELPOLICY,
    MSG_NEWPOLICY,
    MSG_UPDPOLICY,
    attributes,
)
from agent.backends.xfrm.structures import ERROR, HEADER

NETLINK_ROUTE: Final = 0
NETLINK_XFRM: Final = 6
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_CAP_ACK: Final = 10  # errors do not repeat the request
NETLINK_EXT_ACK: Final = 11  # errors carry a text
NETLINK_GET_STRICT_CHK: Final = 12
SO_RCVBUFFORCE: Final = 33
SO_ATTACH_FILTER: Final = 26

FLAG_REQUEST: Final = 1
FLAG_ACK: Final = 4
FLAG_DUMP: Final = 0x300
FLAG_DUMP_INTERRUPTED: Final = 0x10
FLAG_ERROR_ATTRIBUTES: Final = 0x200
TYPE_ERROR: Final = 2
TYPE_DONE: Final = 3
ERROR_TEXT: Final = 1
SEQUENCES: Final = 0xFFFFFFFF  # a sequence number has 32 bits, and a router asks some thousand things a second

RECEIVE_BUFFER: Final = 4 << 20  # some 5,000 events while the loop is busy
READ_SIZE: Final = 1 << 17  # the kernel fills at most 32 KiB per datagram of a dump
ANSWER_SECONDS: Final = 5  # the kernel answers at once; more than this is a defect, not a wait

_write_header = HEADER.packer("len", "type", "flags", "seq", "pid")
_read_header = HEADER.picker("len", "type", "flags", "seq")
_read_error = ERROR.picker("error")


class Overrun(Exception):
    """Messages were lost (ENOBUFS): what is known of the kernel is old, dump again."""


class Refusal(NamedTuple):
    """Why the kernel refused a message: errno and its extended text, or the errno's."""

    number: int
    text: str


class Message(NamedTuple):
    """A received message: `data[start:end]` is its body behind the header."""

    type: int
    flags: int
    sequence: int
    data: bytes
    start: int
    end: int


class NetlinkSocket:
    """One socket, in the network namespace of the thread that makes it. All methods but `receive` block, if ever,
    for the kernel's own work. Raises EngineError where the kernel lacks the protocol."""

    def __init__(self, protocol: int = NETLINK_XFRM, groups: Sequence[int] = ()) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise EngineError(f"the kernel has no netlink protocol {protocol}: {error.strerror}") from error
        self._sequence = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # where somebody waits for announcements
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if not groups:
                seconds = struct.pack("@ll", ANSWER_SECONDS, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
            for group in groups:
                self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except PermissionError as error:
            self._socket.close()
            raise EngineError("netlink refuses: CAP_NET_ADMIN is needed") from error
        except OSError as error:
            self._socket.close()
            raise EngineError(f"netlink: {error.strerror}") from error
        self.port: int = self._socket.getsockname()[0]

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody is told of announcements any more."""
        if self._loop is not None:
            self._loop.remove_reader(self.fileno())
            self._loop = None
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    # ---- requests ---------------------------------------------------------------------

    def batch(self, requests: Sequence[tuple[int, bytes]], flags: int = 0) -> dict[int, Refusal]:
        """Send (type, body) in one sendmsg, each with these flags besides; the refused ones by position. The kernel
        works them off in order and goes on behind a refused one. Raises Overrun when answers were lost."""
        if not requests:
            return {}
        before = self._sequence
        parts: list[bytes] = []
        for number, (type, body) in enumerate(requests, 1):
            head = self._next(type, flags | FLAG_REQUEST | (FLAG_ACK if number == len(requests) else 0), body)
            parts += (head, body, bytes(-len(body) % 4))
        self._send(parts)
        refused: dict[int, Refusal] = {}
        while True:
            for message in self._receive():
                position = (message.sequence - before - 1) & SEQUENCES
                if message.type != TYPE_ERROR or position >= len(requests):
                    continue
                refusal = read_refusal(message)
                if refusal is not None:
                    refused[position] = refusal
                if message.sequence == self._sequence:
                    return refused

    def dump(self, type: int, body: bytes = b"") -> Iterator[list[Message]]:
        """The parts of a dump as the kernel fills them; pause between two of them as you like, but let no other
        request in between. Raises Overrun when it has to be begun again."""
        self._send([self._next(type, FLAG_REQUEST | FLAG_DUMP, body), body])
        sequence = self._sequence
        while True:
            part: list[Message] = []
            for message in self._receive():
                if message.sequence != sequence:
                    continue
                if message.flags & FLAG_DUMP_INTERRUPTED:
                    raise Overrun("the dump was interrupted by a change")
                if message.type == TYPE_ERROR:
                    refusal = read_refusal(message)
                    raise EngineError(f"dump refused: {refusal.text if refusal else 'no reason'}")
                if message.type == TYPE_DONE:
                    yield part
                    return
                part.append(message)
            yield part

    def ask(self, type: int, body: bytes) -> Message | Refusal:
        """One request that is answered by one message. Raises Overrun, EngineError."""
        self._send([self._next(type, FLAG_REQUEST, body), body])
        while True:
            for message in self._receive():
                if message.sequence != self._sequence:
                    continue
                if message.type != TYPE_ERROR:
                    return message
                return read_refusal(message) or Refusal(0, "no answer")

    def check_strictly(self) -> None:
        """Have the kernel look at what a dump asks for, so that it sends only what fits (rtnetlink, Linux 4.20)."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    # ---- events -----------------------------------------------------------------------

    def receive(self) -> list[Message]:
        """What lies there, without waiting; [] when nothing does. Raises Overrun when events were lost."""
        return self._receive(socket.MSG_DONTWAIT)

    def heard(self, call: Callable[[], None]) -> None:
        """Have it called on the running loop while something lies there to be received, until `close`."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.fileno(), call)

    def watch(self, told: Callable[[], None], concerns: Callable[[Message], bool] = lambda message: True) -> None:
        """Have `told` called on the running loop when announcements came that concern us, or some were lost; once for
        all that lie there. For who asks anew what there is. Ends when the socket fails."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            news = False
            try:
                while messages := self.receive():
                    news = news or any(map(concerns, messages))
            except Overrun:
                news = True
            except EngineError:
                loop.remove_reader(self.fileno())
                return
            if news:
                told()

        self.heard(readable)

    def ignore_policy_changes_of(self, port: int) -> None:
        """Let no announcement of a policy change through that was made by this netlink port: 50,000 of our own
        would overrun the queue. A classic BPF program over the netlink header, whose fields it loads in network order.
        """
        pass_on, drop = 6, 7
        program = [
            (0x28, 0, 0, 4),  # load half word: type
            (0x15, 2, 0, socket.htons(MSG_NEWPOLICY)),
            (0x15, 1, 0, socket.htons(MSG_DELPOLICY)),
            (0x15, 0, pass_on - 4, socket.htons(MSG_UPDPOLICY)),
            (0x20, 0, 0, 12),  # load word: port of the one who did it
            (0x15, drop - 6, 0, socket.htonl(port)),
            (0x06, 0, 0, 0xFFFFFFFF),
            (0x06, 0, 0, 0),
        ]
        code = b"".join(struct.pack("=HBBI", *line) for line in program)
        storage = ctypes.create_string_buffer(code)
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(storage))
        )

    # ---- octets -----------------------------------------------------------------------

    def _next(self, type: int, flags: int, body: bytes) -> bytes:
        """Header of the next request. XFRM copies its port into the announcements of what it did."""
        self._sequence = (self._sequence + 1) & SEQUENCES
        return _write_header(HEADER.size + len(body), type, flags, self._sequence, self.port)

    def _send(self, parts: list[bytes]) -> None:
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise EngineError(f"netlink: {error.strerror}") from error

    def _receive(self, flags: int = 0) -> list[Message]:
        try:
            data = self._socket.recv(READ_SIZE, flags)
        except BlockingIOError as error:
            if flags:
                return []
            raise EngineError(f"the kernel did not answer within {ANSWER_SECONDS} s") from error
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Overrun("netlink messages were lost") from error
            raise EngineError(f"netlink: {error.strerror}") from error
        return list(split(data))


def close_all(*sockets: NetlinkSocket | None) -> None:
    """Those that are open, of a pair for requests and announcements."""
    for each in sockets:
        if each is not None:
            each.close()


def split(data: bytes) -> Iterator[Message]:
    """The messages of a datagram; stops at one that does not fit."""
    at, size = 0, len(data)
    while at + HEADER.size <= size:
        length, type, flags, sequence = _read_header(data, at)
        if length < HEADER.size or at + length > size:
            return
        yield Message(type, flags, sequence, data, at + HEADER.size, at + length)
        at += (length + 3) & ~3


def read_refusal(message: Message) -> Refusal | None:
    """What an NLMSG_ERROR says; None for an acknowledgement."""
    number = -_read_error(message.data, message.start)[0]
    if not number:
        return None
    text = ""
    if message.flags & FLAG_ERROR_ATTRIBUTES:
        for type, start, end in attributes(message.data, message.start + ERROR.size, message.end):
            if type == ERROR_TEXT:
                text = message.data[start:end].rstrip(b"\0").decode("utf-8", "backslashreplace")
    return Refusal(number, text or os.strerror(number))
