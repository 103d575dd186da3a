"""The table: cells by (row, column) with a timestamp each, and compare-and-set.

`Table` is the seam; `penstock.table.sqlite` keeps a file, `penstock.table.memory` a dict; HBase comes beside them. Its rules are
HBase's with VERSIONS=1: a put with an older timestamp than the stored cell's is hidden, an equal one overwrites.
"""

from __future__ import annotations

from typing import Iterator, Protocol, Sequence

Key = tuple[bytes, bytes]  # row, column
Cell = tuple[bytes, bytes, bytes]  # row, column, value


class Table(Protocol):
    """A store of named tables, safe for use by several threads.

    Calls raise UnavailableError when the store does not answer (the effect may have taken place or not, or may take place later), and
    NotFoundError for a table that was not created.
    """

    def create(self, table: str, *, ttl: int | None = None, hashed: bool = False) -> None:
        """Create a table whose cells may be dropped `ttl` microseconds after their write. One that exists is left alone, its ttl set anew.

        hashed: its rows begin with a byte of a hash, all 256 about as often, so that a store of several servers can split it from the start.
        """

    def tables(self) -> list[str]:
        """The names of all tables, sorted."""

    def put(self, table: str, cells: Sequence[Cell], timestamp: int) -> None:
        """Write cells, each at `timestamp` (milliseconds since 1970, HBase's unit). Durable when this returns. Not atomic: after a failure any of them may be there."""

    def get(self, table: str, keys: Sequence[Key]) -> list[bytes | None]:
        """The values of many cells, in the order asked."""

    def rows(self, table: str, rows: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """The cells of many rows, in the order asked; an empty dict for a row that is not there."""

    def packed_rows(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes]]:
        """`rows` of several tables, each with its rows, and each row's cells in one piece (`kernels.pack_cells`); a store behind a network is asked for all
        of them at once."""

    def scan(self, table: str, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """Rows from `start` up to, not including, `stop`, in the order of their bytes."""

    def compare_and_set(self, table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        """Write `new` if the cell holds exactly `expected` (None: if there is no cell). Whether it did. Durable when this returns.

        Cells that are written so are never written with `put`.
        """

    def expire(self, now: int) -> int:
        """Drop the cells written more than their table's ttl before `now` (microseconds since 1970), where the store does not do so itself.

        How many went. For a runner's spare moments; the protocol never depends on it.
        """

    def close(self) -> None:
        """Let go of files and connections."""


def prefix_end(prefix: bytes) -> bytes | None:
    """The `stop` that ends a scan of all rows that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
