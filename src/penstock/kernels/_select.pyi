from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kernels.plan import RollupPlan

class Wanted:
    """Which cells a query reads of a granularity; see `penstock.kernels._select.Wanted`."""

    def __init__(self, generation: bytes, ranges: Mapping[bytes, Sequence[tuple[int, int]]]) -> None: ...

class Starts:
    """Where an answer's windows start, in order; see `penstock.kernels._select.Starts`."""

    def __init__(self, starts: Sequence[int], step: int) -> None: ...

def select_cells(
    groups: dict[tuple[int, Any], list[bytes]],
    group: Any,
    packed: bytes,
    base: int,
    width: int,
    wanted: Wanted,
    starts: Starts,
) -> None:
    """Add the cells of a row that a query reads to the lists of their windows."""

class Series:
    """The merged state of each window of an answer that has no groups; see `penstock.kernels._select.Series`."""

    cells: int
    def __init__(self, plan: RollupPlan, starts: Starts) -> None: ...
    def add(self, packed: bytes, base: int, width: int, wanted: Wanted) -> None:
        """Merge the cells of a row that a query reads into the windows. Raises CorruptionError."""

    def total(self) -> list[list[Any]]:
        """For each stored measure, in order, its value over all windows, in a list. Not after `columns`. Raises CorruptionError where a sum overflows."""

    def columns(self) -> list[list[Any]]:
        """For each stored measure, in order, its value in every window, as `decode_cell` has them. Once: sketches go to the caller."""
