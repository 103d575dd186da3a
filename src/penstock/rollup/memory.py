"""The cells that a shard's owner keeps in memory, so that a flush need not read what it wrote itself."""

from __future__ import annotations

from typing import Iterable

import numpy as np

from penstock.kernels import BreakdownKeys
from penstock.table import Key

CELL_OVERHEAD = 250  # bytes of Python objects around a cell, measured


class CellMemory:
    """Cells of one breakdown at its finest granularity, by window.

    horizon: the newest window of which the table may hold a cell that is not here. A cell of a newer window that is not here does not
    exist, and is not asked for: only this shard's owner writes it, and its windows move on with the watermark.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.windows: dict[int, dict[Key, bytes]] = {}
        self.nbytes = 0

    def find(self, keys: BreakdownKeys) -> tuple[list[bytes | None], list[int]]:
        """The cells of the keys as far as they are known, and the positions of those that must be read from the table."""
        windows = keys.windows.tolist()
        known: list[bytes | None]
        if self.windows:
            empty: dict[Key, bytes] = {}
            get = self.windows.get
            known = [get(window, empty).get(key) for window, key in zip(windows, zip(keys.rows, keys.columns))]
        else:
            known = [None] * len(windows)
        old = np.flatnonzero(keys.windows <= self.horizon)
        return known, [position for position in old.tolist() if known[position] is None]

    def keep(self, keys: BreakdownKeys, cells: Iterable[bytes | None], closed: int) -> None:
        """Remember what was put; a cell that was left as it is (None) keeps its place. Windows before `closed` are not worth it: nothing changes them any more."""
        self.horizon = max(self.horizon, closed - 1)
        for window, key, cell in zip(keys.windows.tolist(), zip(keys.rows, keys.columns), cells):
            if cell is not None and window >= closed:
                held = self.windows.get(window)
                if held is None:
                    held = self.windows[window] = {}
                before = held.get(key)
                self.nbytes += len(cell) - len(before) if before is not None else len(cell) + len(key[0]) + CELL_OVERHEAD
                held[key] = cell

    def forget(self, window: int) -> None:
        """Drop a window: it is read again if it is needed."""
        for key, cell in self.windows.pop(window).items():
            self.nbytes -= len(cell) + len(key[0]) + CELL_OVERHEAD
        self.horizon = max(self.horizon, window)

    def close(self, before: int) -> None:
        """Drop the windows that nothing can change any more."""
        for window in [window for window in self.windows if window < before]:
            self.forget(window)

    def shrink(self, nbytes: int) -> None:
        """Drop the oldest windows until at most `nbytes` are held."""
        for window in sorted(self.windows):
            if self.nbytes <= nbytes:
                return
            self.forget(window)
