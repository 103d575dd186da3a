"""`warehouse.<dataset>` where the warehouse is a server: the part of its table that a statement needs, fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from penstock.errors import QueryError
from penstock.model.units import HOUR, to_datetime
from penstock.query.sql.literals import literal
from penstock.query.sql.pushdown import Filter, columns_for, filtered, time_range, values_of
from penstock.warehouse import Dataset, Warehouse
from penstock.warehouse.datasets import arrow_schema

_HOURS = range(2**22)  # since 1970: up to the year 2448; what lies beyond is no condition that is passed on
_MOST_KEYS = 1000  # in a condition


class DistantTable:
    """A dataset's table in a warehouse that is asked over a network.

    Fetched are the columns that the statement reads, of the rows within the time and of the keys that it names. constants: what it compares with. most:
    rows that may be fetched.
    """

    def __init__(self, warehouse: Warehouse, dataset: Dataset, constants: Iterable[int | str], most: int) -> None:
        self.warehouse, self.dataset, self.constants, self.most = warehouse, dataset, tuple(constants), most
        self.schema = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in arrow_schema(dataset)]
        )

    def scan(self, columns: Sequence[str], filter: Filter) -> Iterator[pa.RecordBatch]:
        """See `pushdown.Scan`. Raises QueryError, naming the fix, where more rows would come than may."""
        schema = columns_for(self.schema, columns, filter)
        found = self.warehouse.query(self.statement(schema.names, filter))
        if found.num_rows > self.most:
            raise QueryError(
                f"warehouse.{self.dataset.name}: the statement fetches more than {self.most:,} rows",
                hint=f"narrow {self.dataset.time} in the WHERE of its table, let the warehouse do it all with --engine warehouse, or allow more with --max-read",
            )
        yield from filtered(schema, found.cast(schema).to_batches(), columns, filter)

    def statement(self, columns: Sequence[str], filter: Filter) -> str:
        """What is asked of the warehouse."""
        conditions = [*self._time(filter), *self._keys(filter)]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(self.dataset.name)}{where} LIMIT {self.most + 1}"

    def _time(self, filter: Filter) -> Iterator[str]:
        hours, name = time_range(self.schema, filter, self.dataset.time, _HOURS, HOUR), _quoted(self.dataset.time)
        if hours.start > _HOURS.start:
            yield f"{name} >= {literal(to_datetime(hours.start * HOUR))}"
        if hours.stop < _HOURS.stop:
            yield f"{name} < {literal(to_datetime(hours.stop * HOUR))}"

    def _keys(self, filter: Filter) -> Iterator[str]:
        kind: Any = next((c.kind for c in self.dataset.columns if c.name == self.dataset.key), None)
        kind = {"int": int, "string": str, "enum": str}.get(kind)
        if kind is None or self.dataset.key is None:
            return
        candidates = [one for one in self.constants if type(one) is kind and (kind is str or -(2**63) <= one < 2**63)]  # type: ignore[operator]
        values = values_of(self.schema, filter, self.dataset.key, candidates)
        try:
            if values is not None and len(values) <= _MOST_KEYS:
                yield f"{_quoted(self.dataset.key)} IN ({', '.join(map(literal, values)) or 'NULL'})"
        except QueryError:  # a text that has no literal: the filter is applied here all the same
            return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
