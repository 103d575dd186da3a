"""Tables that are read when a statement scans them, and only the part of them that it asks for.

DuckDB hands a pyarrow dataset the columns and the filter that its optimizer came to, through joins, views and subqueries alike, and takes it that
the filter is applied. So `TableDataset` is a dataset without rows whose scan is a function. What a filter says of a column is found out by
asking pyarrow whether a row with a given property (a "guarantee") could pass: nothing here reads a filter's text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

Filter = Any  # pyarrow.dataset.Expression, None for no filter
Scan = Callable[[Sequence[str], Filter], Iterable[pa.RecordBatch]]  # the columns, in this order, of the rows that pass the filter

_FORMAT, _NOWHERE = ds.ParquetFileFormat(), fs.LocalFileSystem()


class TableDataset(ds.InMemoryDataset):
    """A table as DuckDB scans it. failed: is told what the scan raised, since DuckDB keeps but the text of it."""

    def __init__(self, schema: pa.Schema, scan: Scan, failed: Callable[[BaseException], None]) -> None:
        super().__init__(schema.empty_table())
        self._scan, self._failed = scan, failed

    def scanner(self, columns: Sequence[str] | None = None, filter: Filter = None, **_: Any) -> ds.Scanner:
        """See `pyarrow.dataset.Dataset.scanner`."""
        names = list(self.schema.names if columns is None else columns)
        return ds.Scanner.from_batches(self._told(names, filter), schema=pa.schema([self.schema.field(name) for name in names]))

    def _told(self, columns: list[str], filter: Filter) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._scan(columns, filter)
        except BaseException as problem:
            self._failed(problem)
            raise


def filtered(schema: pa.Schema, batches: Iterable[pa.RecordBatch], columns: Sequence[str], filter: Filter) -> Iterator[pa.RecordBatch]:
    """The columns of the rows that pass. schema: of the batches."""
    yield from ds.Scanner.from_batches(batches, schema=schema, columns=list(columns), filter=filter, use_threads=False).to_batches()


def columns_for(schema: pa.Schema, columns: Sequence[str], filter: Filter) -> pa.Schema:
    """The part of a schema that a scan has to come up with: what is asked for, and what the filter looks at.

    pyarrow does not say what a filter looks at; but it refuses one for batches that lack it.
    """
    wanted = set(columns)
    for name in schema.names if filter is not None else ():
        if name not in wanted:
            try:
                ds.Scanner.from_batches([], schema=pa.schema([field for field in schema if field.name != name]), filter=filter)
            except pa.ArrowInvalid:
                wanted.add(name)
    return pa.schema([field for field in schema if field.name in wanted])


def possible(schema: pa.Schema, filter: Filter, guarantees: Sequence[Any]) -> list[int]:
    """Which of these properties of a row (expressions) leave it a chance to pass, by their place."""
    if filter is None:
        return list(range(len(guarantees)))
    fragments = [_FORMAT.make_fragment(str(place), _NOWHERE, guarantee) for place, guarantee in enumerate(guarantees)]
    dataset = ds.FileSystemDataset(fragments, schema, _FORMAT, _NOWHERE)
    return [int(fragment.path) for fragment in dataset.get_fragments(filter)]


def time_range(schema: pa.Schema, filter: Filter, column: str, windows: range, width: int) -> range:
    """The part of some windows (numbers of `width` microseconds since 1970) that holds all in which an instant can pass."""
    time = ds.field(column)
    low, high = windows.start, windows.stop
    while low < high:  # the first window that is not ruled out together with all before it
        middle = (low + high) // 2
        if possible(schema, filter, [time < instant_of((middle + 1) * width)]):
            high = middle
        else:
            low = middle + 1
    begin, high = low, windows.stop
    while low < high:  # the first window that is ruled out together with all after it
        middle = (low + high) // 2
        if possible(schema, filter, [time >= instant_of(middle * width)]):
            low = middle + 1
        else:
            high = middle
    return range(begin, low)


def values_of(schema: pa.Schema, filter: Filter, column: str, candidates: Iterable[Any]) -> list[Any] | None:
    """The values that the column has in all rows that can pass, if they are among the candidates; None if others may pass."""
    kind, field = schema.field(column).type, ds.field(column)
    known = sorted(set(candidates))
    if filter is None or not known:
        return None
    scalars = [pa.scalar(value, kind) for value in known]
    between = [(field > low) & (field < high) for low, high in zip(scalars, scalars[1:])]
    found = possible(schema, filter, [*(field == one for one in scalars), field < scalars[0], *between, field > scalars[-1]])
    return None if any(place >= len(known) for place in found) else [known[place] for place in found]


def within(column: str, start: int, stop: int) -> Any:
    """The property of a row whose instant lies in [start, stop), microseconds since 1970."""
    return (ds.field(column) >= instant_of(start)) & (ds.field(column) < instant_of(stop))


def instant_of(micros: int) -> pa.Scalar:
    """Microseconds since 1970 as the value of a column."""
    return pa.scalar(micros, pa.timestamp("us"))
