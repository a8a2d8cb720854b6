"""Mappings that share what did not change: a plan of 50,000 policies must not be copied to change five of them.

A `Layered` is immutable: a big dictionary shared with its relatives, and a small one of
what differs. `Edit` makes the next one and remembers which keys it touched, which is what
`difference` goes by. When the small dictionary has grown the two are merged, so the cost of
copying is spread over many edits.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from typing import Final, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")

MERGE_FROM: Final = 512  # differing keys, at least
MERGE_SHARE: Final = 8  # … and at least this part of the shared ones


class _Gone:
    """Marks a key of the shared dictionary that is not there any more."""


_GONE: Final = _Gone()


class Layered(Mapping[K, V], Generic[K, V]):
    """Read it like a dictionary."""

    __slots__ = ("_base", "_over", "_size")

    def __init__(self, base: dict[K, V] | None = None) -> None:
        self._base: dict[K, V] = {} if base is None else base
        self._over: dict[K, V | _Gone] = {}
        self._size = len(self._base)

    def __getitem__(self, key: K) -> V:
        found = self._over.get(key)
        if found is None:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return cast(V, found)

    def get(self, key: K, default: object = None) -> V | None:  # type: ignore[override]
        found = self._over.get(key)
        if found is None:
            found = self._base.get(key)
        return cast("V | None", default if found is None or found is _GONE else found)

    def __contains__(self, key: object) -> bool:
        found = self._over.get(cast(K, key))
        return key in self._base if found is None else found is not _GONE

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        over = self._over
        if not over:
            yield from self._base
            return
        for key in self._base:
            if over.get(key) is not _GONE:
                yield key
        for key, value in over.items():
            if value is not _GONE and key not in self._base:
                yield key

    def items(self) -> ItemsView[K, V]:
        return self._base.items() if not self._over else super().items()

    def __repr__(self) -> str:
        return f"Layered({dict(self)!r})"

    def edit(self) -> Edit[K, V]:
        return Edit(self)


class Edit(Generic[K, V]):
    """The next Layered in the making. Values are never None. `before`: each key touched, with what it held, or None."""

    __slots__ = ("_base", "_over", "_size", "before")

    def __init__(self, start: Layered[K, V]) -> None:
        self._base = start._base
        self._over = dict(start._over)
        self._size = start._size
        self.before: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        found = self._over.get(key)
        if found is None:
            return self._base.get(key)
        return None if found is _GONE else cast(V, found)

    def put(self, key: K, value: V | None) -> None:
        """Set a key, or remove it (None)."""
        old = self.get(key)
        if key not in self.before:
            self.before[key] = old
        if value is not None:
            self._over[key] = value
            self._size += old is None
        elif old is not None:
            if key in self._base:
                self._over[key] = _GONE
            else:
                del self._over[key]
            self._size -= 1

    def changed(self) -> dict[K, V | None]:
        """Keys that are not as they were, with what they hold now."""
        now = {key: self.get(key) for key in self.before}
        return {key: value for key, value in now.items() if value != self.before[key]}

    def done(self) -> Layered[K, V]:
        result: Layered[K, V] = Layered(self._base)
        if len(self._over) > max(MERGE_FROM, len(self._base) // MERGE_SHARE):
            result._base = {key: value for key, value in self._base.items() if key not in self._over} | {
                key: cast(V, value) for key, value in self._over.items() if value is not _GONE
            }
        else:
            result._over = self._over
        result._size = self._size
        return result
