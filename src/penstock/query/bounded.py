"""What was used last, up to so many bytes of memory, and each for so long: what is kept of answers and of rows."""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """Values by key. Not for several threads at a time: whose it is holds a lock.

    max_bytes: together, by the sizes they are put with; what was used longest ago goes first, and what is larger is not kept. max_age: seconds. now: of a
    monotonic clock. entries: by key the value, its size, and when it ends; a tuple, so that the garbage collector looks at none that holds nothing but bytes and numbers.
    """

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self.max_bytes, self.max_age, self.bytes = max_bytes, max_age, 0
        self.entries: collections.OrderedDict[Key, tuple[Value, int, float]] = collections.OrderedDict()

    def get(self, key: Key, now: float) -> Value | None:
        """A value that is kept, which is used by that."""
        entry = self.entries.get(key)
        if entry is None or now >= entry[2]:
            return None
        self.entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Value, size: int, now: float) -> None:
        """Keep a value, in the place of an older one."""
        self._drop(key)
        if size > self.max_bytes:
            return
        self.entries[key] = value, size, now + self.max_age
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self.entries)))

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self.bytes = 0

    def _drop(self, key: Key) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry[1]
