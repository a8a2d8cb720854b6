"""Whether SQLite's write-ahead log has lost transactions that were acknowledged.

SQLite reads a log up to the first frame whose checksum is wrong and drops what follows
without a word, since a crash leaves such a tail: the transaction that was being written.
That one was never acknowledged. A damaged log looks the same, but for one thing: the next
transaction is begun only once the one before is on disk, so a commit frame behind the bad
one that has frames of a later transaction behind it was acknowledged.
Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt 1 and 2, checksum 1 and 2
FRAME: Final = struct.Struct(">6I")  # page, pages after commit (else 0), salt 1 and 2, checksum 1 and 2
MAGIC_LITTLE, MAGIC_BIG = 0x377F0682, 0x377F0683
FORMAT: Final = 3007000
WORD: Final = 0xFFFFFFFF
PAGE_SIZES: Final = frozenset(1 << bits for bits in range(9, 17))


class Log(NamedTuple):
    """`commits`: transactions that SQLite will read; `lost`: acknowledged ones that it will not, at least."""

    commits: int
    lost: int


def examine_log(path: Path) -> Log:
    """The log beside a database, of any content; none is an empty one. 60 µs for each page in it. Raises OSError."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return Log(0, 0)
    if len(octets) < HEADER.size + FRAME.size:
        return Log(0, 0)
    magic, version, size, _, salt1, salt2, check1, check2 = HEADER.unpack_from(octets)
    order = "<" if magic == MAGIC_LITTLE else ">"
    sums = _checksum(order, octets[: HEADER.size - 8], (0, 0))
    sound = magic in (MAGIC_LITTLE, MAGIC_BIG) and version == FORMAT and size in PAGE_SIZES
    sound = sound and sums == (check1, check2)
    if not sound:  # what the frames say of themselves: the size that gives two frames the same salts
        size, (salt1, salt2) = _guessed(octets)
    commits, lost, last = 0, 0, False
    for page, after, salts, told, content in _frames(octets, size):
        if sound:
            sums = _checksum(order, struct.pack(">2I", page, after), sums)
            sums = _checksum(order, content, sums)
            sound = page != 0 and salts == (salt1, salt2) and sums == told
            commits += sound and after != 0
        if not sound and salts == (salt1, salt2):
            lost += last  # the commit frame before this one has something behind it
            last = after != 0
    return Log(commits, lost)


def _frames(octets: bytes, size: int) -> Iterator[tuple[int, int, tuple[int, int], tuple[int, int], bytes]]:
    """(page, pages after commit, salts, checksums, content) of each frame that is there whole."""
    step = FRAME.size + size
    for at in range(HEADER.size, len(octets) - step + 1, step):
        page, after, *rest = FRAME.unpack_from(octets, at)
        yield page, after, (rest[0], rest[1]), (rest[2], rest[3]), octets[at + FRAME.size : at + step]


def _guessed(octets: bytes) -> tuple[int, tuple[int, int]]:
    for size in sorted(PAGE_SIZES):
        salts = [salts for _, _, salts, _, _ in _frames(octets[: HEADER.size + 2 * (FRAME.size + size)], size)]
        if len(salts) == 2 and salts[0] == salts[1] != (0, 0):
            return size, salts[0]
    return max(PAGE_SIZES), (0, 0)


def _checksum(order: str, octets: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """Of whole pairs of words, continued from `sums`."""
    first, second = sums
    words = struct.unpack(f"{order}{len(octets) // 4}I", octets)
    for a, b in zip(words[::2], words[1::2], strict=True):
        first = (first + a + second) & WORD
        second = (second + b + first) & WORD
    return first, second
