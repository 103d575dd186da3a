"""How much to ask of a server at once: answers are built whole in its memory and in ours, and only the last one says how large they get."""

from __future__ import annotations

_BYTES = 4 << 20  # about what an answer should hold


class Appetite:
    """The number of things (rows, cells) to ask for next. Starts small, grows with every answer that was, shrinks at once when one was not.

    start: how many at first. limit: how many at most, however small they are.
    """

    def __init__(self, start: int = 64, limit: int = 8192) -> None:
        self.next = start
        self._limit = limit

    def took(self, asked: int, size: int) -> None:
        """An answer to `asked` things came and held `size` bytes."""
        fitting = asked * _BYTES // max(size, 1)
        self.next = max(1, min(fitting, max(self.next, asked) * 4, self._limit))
