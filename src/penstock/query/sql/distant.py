"""`warehouse.<dataset>` where the warehouse is a server: the part of its table that a statement needs, fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from penstock.errors import QueryError
from penstock.model.units import HOUR, to_datetime
from penstock.query.sql.literals import literal
from penstock.query.sql.pushdown import Filter, columns_for, filtered, time_range, values_of
from penstock.query.sql.reading import Reading
from penstock.warehouse import Dataset, Warehouse
from penstock.warehouse.datasets import arrow_schema

_HOURS = range(2**22)  # since 1970: up to the year 2448; what lies beyond is no condition that is passed on
_MOST_KEYS = 1000  # in a condition


class DistantTable:
    """A dataset's table in a warehouse that is asked over a network.

    Fetched are the columns that the statement reads, of the rows within the time and of the keys that it names.
    """

    def __init__(self, warehouse: Warehouse, dataset: Dataset, reading: Reading) -> None:
        self.warehouse, self.dataset, self.reading = warehouse, dataset, reading
        self.schema = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in arrow_schema(dataset)]
        )

    def scan(self, columns: Sequence[str], filter: Filter) -> Iterator[pa.RecordBatch]:
        """See `pushdown.Scan`. Raises QueryError, naming the fix, where more rows would come than may."""
        schema = columns_for(self.schema, columns, filter)
        found = self.warehouse.query(self.statement(schema.names, filter))
        if found.num_rows > self.reading.most:
            raise QueryError(
                f"warehouse.{self.dataset.name}: the statement fetches more than {self.reading.most:,} rows",
                hint=f"narrow {self.dataset.time} in the WHERE of its table, let the warehouse do it all with --engine warehouse, or allow more with --max-read",
            )
        yield from filtered(schema, found.cast(schema).to_batches(), columns, filter)

    def statement(self, columns: Sequence[str], filter: Filter) -> str:
        """What is asked of the warehouse."""
        conditions = [*self._time(filter), *self._keys(filter)]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(self.dataset.name)}{where} LIMIT {self.reading.most + 1}"

    def _time(self, filter: Filter) -> Iterator[str]:
        hours, name = time_range(self.schema, filter, self.dataset.time, _HOURS, HOUR), _quoted(self.dataset.time)
        if hours.start > _HOURS.start:
            yield f"{name} >= {literal(to_datetime(hours.start * HOUR))}"
        if hours.stop < _HOURS.stop:
            yield f"{name} < {literal(to_datetime(hours.stop * HOUR))}"

    def _keys(self, filter: Filter) -> Iterator[str]:
        key = next((column for column in self.dataset.columns if column.name == self.dataset.key), None)
        if key is None:
            return
        values = values_of(self.schema, filter, key.name, self.reading.candidates(key.kind))
        try:
            if values is not None and len(values) <= _MOST_KEYS:
                yield f"{_quoted(key.name)} IN ({', '.join(map(literal, values)) or 'NULL'})"
        except QueryError:  # a text that has no literal: the filter is applied here all the same
            return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
