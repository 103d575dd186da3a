import numpy as np
import numpy.typing as npt

from penstock.kernels.columns import Columns
from penstock.kernels.plan import BreakdownKeys, RollupPlan

class Delta:
    """What the accepted records of one shard add to cells, between two flushes.

    plan: RollupPlan. generation: 8 bytes. shard: 12 bytes. Not for several threads at once. After a MemoryError it is not whole: drop it.
    """

    plan: RollupPlan
    def __init__(self, plan: RollupPlan, generation: bytes, shard: bytes) -> None: ...
    @property
    def cells(self) -> int:
        """How many cells it changes."""
    @property
    def nbytes(self) -> int:
        """About how many bytes of memory it takes."""
    def freeze(self) -> None:
        """Let nothing more be added."""
    def add(self, columns: Columns, verdict: npt.NDArray[np.uint8], start: int, stop: int) -> None:
        """Add the records of [start, stop) whose verdict is 0, that pass the roll-up's filter and that some measure counts."""
    def keys(self) -> list[BreakdownKeys]:
        """Where the cells of each breakdown go."""
    def merge(self, breakdown: int, stored: list[bytes | None], stamp: int) -> list[bytes | None]:
        """The cells of a breakdown, in the order of keys(), with what this delta adds; None where the stored one includes it already."""
