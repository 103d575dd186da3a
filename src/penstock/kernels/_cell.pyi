from collections.abc import Iterable, Sequence
from typing import Any

from penstock.kernels.plan import RollupPlan
from penstock.model import Field

def cell_stamp(cell: bytes) -> int:
    """The offset up to which a cell includes its shard's records. Raises CorruptionError."""

def strip_stamp(cell: bytes) -> bytes:
    """The cell without its stamp: the same state gives the same bytes. Raises CorruptionError."""

def decode_cell(plan: RollupPlan, cell: bytes) -> list[Any]:
    """One value a stored measure, in order: int of a count or a sum, int or None of an extreme, Hll of uniques. Raises CorruptionError."""

def decode_cells(plan: RollupPlan, cells: Iterable[bytes]) -> list[list[Any]]:
    """For each stored measure, in order, its values in all of some cells, as `decode_cell` has them. Raises CorruptionError."""

def merge_cells(plan: RollupPlan, cells: Sequence[bytes], stamp: int) -> bytes:
    """One cell of several, none of which counts a record that another counts. Raises CorruptionError, and InternalError for none."""

def saturate(total: int) -> tuple[int, bool]:
    """A sum in 64 bits, and whether it had to be cut to fit."""

def entity_prefix(field: Field, value: Any) -> bytes:
    """What all rows of an entity begin with: a byte of its hash, and its canonical value encoded."""

def row_key(prefix: bytes, breakdown: int, bucket: int, dims: Iterable[tuple[Field, Any]]) -> bytes:
    """The row of an entity's prefix, a breakdown, a bucket of windows and the dimensions' canonical values."""

def split_row(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[Any, int, list[Any]]:
    """The entity's value, the bucket and the dimensions' values of a row. Raises CorruptionError."""

def row_parts(plan: RollupPlan, breakdown: int, row: bytes) -> tuple[bytes, int, bytes]:
    """What stands before a row's bucket, the bucket, and what stands after it. Raises CorruptionError."""

def column_key(generation: bytes, window_offset: int, shard: bytes) -> bytes:
    """The column of a window within its bucket, as one shard of a generation counts it."""

def split_column(column: bytes) -> tuple[bytes, int, bytes]:
    """The generation, the window's offset in its bucket, and the shard of a column. Raises CorruptionError."""
