"""The table in memory: a dict, deterministic, for the simulator and for tests. And the limits that every embedded table checks."""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Iterator, Sequence

from penstock.errors import ConfigurationError, NotFoundError
from penstock.kernels import pack_cells
from penstock.table import Cell, Key

MAX_KEY = 32767  # bytes of a row or of a column: HBase's limit for a row, so that what works embedded works there
NEVER_EXPIRES = -1  # the timestamp of a cell written by compare_and_set
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def check_table_name(table: str) -> str:
    """A table name that is safe in SQL and HBase alike. Raises ConfigurationError for any other."""
    if not _NAME.fullmatch(table):
        raise ConfigurationError(
            f"{table!r} is not a usable table name", hint="use lower-case letters, digits and _, a letter first, at most 100"
        )
    return table


def no_such_table(table: str) -> NotFoundError:
    """The error for a table that was not created."""
    return NotFoundError(f"there is no table {table!r}", hint="a topology's tables are created when it is first run")


def check_key(row: bytes, column: bytes) -> None:
    """Raise ConfigurationError for a key that HBase could not hold."""
    if len(row) > MAX_KEY or len(column) > MAX_KEY:
        raise ConfigurationError(
            f"a key of {len(row)} + {len(column)} bytes (row {row[:40]!r}...) is too long for a table",
            hint=f"rows and columns hold at most {MAX_KEY} bytes each: give the entity and the dimensions a smaller String(max_bytes=...)",
        )


class _Cells:
    """One table: row to column to (timestamp, value)."""

    def __init__(self) -> None:
        self.ttl: int | None = None
        self.rows: dict[bytes, dict[bytes, tuple[int, bytes]]] = {}
        self._order: list[bytes] | None = []

    def order(self) -> list[bytes]:
        """The rows' keys, sorted; kept until a row comes or goes. Never changed in place: a scan may still walk it."""
        if self._order is None:
            self._order = sorted(self.rows)
        return self._order

    def write(self, row: bytes, column: bytes, timestamp: int, value: bytes) -> None:
        """Write one cell whatever is there."""
        if row not in self.rows:
            self.rows[row] = {}
            self._order = None
        self.rows[row][column] = (timestamp, value)

    def expire(self, before: int) -> int:
        """Drop the cells written before a timestamp, and the rows left empty. How many cells went."""
        old = [
            (row, column)
            for row, columns in self.rows.items()
            for column, (at, _) in columns.items()
            if at != NEVER_EXPIRES and at < before
        ]
        for row, column in old:
            del self.rows[row][column]
            if not self.rows[row]:
                del self.rows[row]
                self._order = None
        return len(old)


class MemoryTable:
    """A `Table` that lives as long as the object. Calls take effect in the order made; nothing depends on time or chance."""

    def __init__(self) -> None:
        self._tables: dict[str, _Cells] = {}
        self._lock = threading.Lock()

    def create(self, table: str, *, ttl: int | None = None, hashed: bool = False) -> None:
        """See `Table.create`. Raises ConfigurationError for a name that is not usable."""
        with self._lock:
            self._tables.setdefault(check_table_name(table), _Cells()).ttl = ttl

    def tables(self) -> list[str]:
        """See `Table.tables`."""
        with self._lock:
            return sorted(self._tables)

    def put(self, table: str, cells: Sequence[Cell], timestamp: int) -> None:
        """See `Table.put`."""
        for row, column, _ in cells:
            check_key(row, column)
        with self._lock:
            held = self._of(table)
            for row, column, value in cells:
                stored = held.rows.get(row, {}).get(column)
                if stored is None or stored[0] <= timestamp:
                    held.write(row, column, timestamp, value)

    def get(self, table: str, keys: Sequence[Key]) -> list[bytes | None]:
        """See `Table.get`."""
        with self._lock:
            rows = self._of(table).rows
            found = (rows.get(row, {}).get(column) for row, column in keys)
            return [None if cell is None else cell[1] for cell in found]

    def rows(self, table: str, rows: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """See `Table.rows`."""
        with self._lock:
            held = self._of(table).rows
            return [_values(held.get(row, {})) for row in rows]

    def packed_rows(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes]]:
        """See `Table.packed_rows`."""
        return [list(map(pack_cells, self.rows(table, rows))) for table, rows in asked]

    def scan(self, table: str, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """See `Table.scan`. The rows are those of the call; their cells are as of when each row is reached."""
        with self._lock:
            held = self._of(table)
            order = held.order()
        return self._walk(held, order, bisect.bisect_left(order, start), len(order) if stop is None else bisect.bisect_left(order, stop))

    def compare_and_set(self, table: str, row: bytes, column: bytes, expected: bytes | None, new: bytes) -> bool:
        """See `Table.compare_and_set`."""
        check_key(row, column)
        with self._lock:
            held = self._of(table)
            stored = held.rows.get(row, {}).get(column)
            if (None if stored is None else stored[1]) != expected:
                return False
            held.write(row, column, NEVER_EXPIRES, new)
            return True

    def expire(self, now: int) -> int:
        """Drop the cells written more than their table's ttl before `now` (microseconds since 1970). How many went."""
        with self._lock:
            return sum(cells.expire((now - cells.ttl) // 1000) for cells in self._tables.values() if cells.ttl is not None)

    def close(self) -> None:
        """See `Table.close`. The cells stay: the object is the store."""

    def _of(self, table: str) -> _Cells:
        try:
            return self._tables[table]
        except KeyError:
            raise no_such_table(table) from None

    def _walk(self, held: _Cells, order: list[bytes], at: int, end: int) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        for row in order[at:end]:
            with self._lock:
                values = _values(held.rows.get(row, {}))
            if values:
                yield row, values


def _values(cells: dict[bytes, tuple[int, bytes]]) -> dict[bytes, bytes]:
    """A row's values, columns in the order of their bytes."""
    return {column: cells[column][1] for column in sorted(cells)}
