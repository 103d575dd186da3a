"""`rollup.<name>[_<breakdown>]_<granularity>`: live roll-ups as tables, a row a window and combination of entity and dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from penstock.kernels import RollupPlan, decode_cell, merge_cells, split_row
from penstock.model import Field, Timestamp
from penstock.model.units import duration_text, iso
from penstock.query.measures import Output, outputs, units
from penstock.query.request import TIME
from penstock.query.sql.cells import CellRequest, CellScan
from penstock.query.sql.pushdown import Filter, columns_for, filtered, time_range, values_of
from penstock.query.sql.reading import Reading
from penstock.query.standing import Standing
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.table import Table

_ROWS = 8192  # in a batch
_TYPES = {
    "int": pa.int64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "float": pa.float64(),
}


class RollupTable:
    """One granularity of one breakdown of a roll-up.

    Columns: the entity, the dimensions, `time` (where the window starts, UTC), the measures; uniques as whole numbers that are estimates. Windows
    without a record have no row; those that are older than the granularity is kept, counted from the newest event time, are hidden.
    """

    def __init__(self, table: Table, plan: RollupPlan, definition: BoltDefinition, breakdown: int, width: int, reading: Reading) -> None:
        self.table, self.plan, self.definition, self.breakdown, self.width = table, plan, definition, breakdown, width
        self.reading = reading
        rollup = plan.rollup
        self.keys = {key: rollup.schema.columns[key] for key in (rollup.entity, *rollup.by[breakdown].dimensions)}
        self.outputs = {one.name: one for one in outputs(plan, None)}
        self.time = TIME if TIME not in {*self.keys, *self.outputs} else "window_time"
        measures = {name: _arrow(one.type, _scale(one)) for name, one in self.outputs.items() if name not in self.keys}
        self.schema = pa.schema(
            [
                *((name, _arrow(field.kind, getattr(field, "scale", 0))) for name, field in self.keys.items()),
                (self.time, pa.timestamp("us")),
                *measures.items(),
            ]
        )

    def scan(self, columns: Sequence[str], filter: Filter) -> Iterator[pa.RecordBatch]:
        """See `pushdown.Scan`. Raises QueryError, naming the fix, for a scan that would read more than it may."""
        # The control cells come first. A window that they call folded has its coarse cell by now; one that is folded after has its finer cells still.
        standing = Standing(Registry(self.table).shards(self.definition.bolt, self.definition.generation))
        windows = self._windows(standing)
        if not windows:
            self.reading.noticed(f"roll-up {self.plan.rollup.name}: no event has been counted yet")
            return
        wanted = time_range(self.schema, filter, self.time, windows, self.width)
        request = CellRequest(self.breakdown, self.width, wanted, wanted != windows, self._entities(filter))
        behind = standing.furthest_behind
        if behind is not None:
            self.reading.noticed(f"roll-up {self.plan.rollup.name}: as of {iso(behind[1].done.watermark)}")
        schema = columns_for(self.schema, columns, filter)
        if wanted:
            groups = CellScan(self.table, self.plan, self.definition.generation, standing, request, self.reading).groups()
            yield from filtered(schema, self._batches(groups, schema), columns, filter)

    def _windows(self, standing: Standing) -> range:
        """The windows that are kept. There is no newest: cells may be of events beyond the watermark, which is that of the last commit."""
        if standing.newest is None:
            return range(0)
        oldest = max(0, standing.newest - self.plan.rollup.by[self.breakdown].keep[self.width])
        return range(oldest // self.width, Timestamp.LIMIT // self.width)

    def _entities(self, filter: Filter) -> list[Any] | None:
        """The entities that a filter asks for; None where it does not name them."""
        entity = self.plan.rollup.entity
        return values_of(self.schema, filter, entity, self.reading.candidates(self.keys[entity].kind))

    def _batches(self, groups: Iterable[tuple[Any, list[bytes]]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        chosen = [(name, self.outputs[name]) for name in schema.names if name in self.outputs and name not in self.keys]
        cut: set[str] = set()
        rows: list[tuple[Any, ...]] = []
        known: tuple[tuple[bytes, bytes] | None, tuple[Any, ...]] = (None, ())
        for (head, tail, window), cells in groups:
            if known[0] != (head, tail):
                entity, _, dimensions = split_row(self.plan, self.breakdown, head + b"\0\0\0\0" + tail)
                known = (head, tail), tuple(units(field, value) for field, value in zip(self.keys.values(), (entity, *dimensions)))
            values = self._measures(chosen, cells, cut)
            rows.append((*known[1], window * self.width, *values))
            if len(rows) == _ROWS:
                yield self._batch(rows, chosen, schema)
                rows = []
        yield self._batch(rows, chosen, schema)
        for name in sorted(cut):
            self.reading.noticed(
                f"roll-up {self.plan.rollup.name}: values of {name} did not fit 64 bits, and are cut to the largest or smallest that does"
            )

    def _measures(self, chosen: Sequence[tuple[str, Output]], cells: Sequence[bytes], cut: set[str]) -> list[Any]:
        if not chosen:
            return []
        state = decode_cell(self.plan, cells[0] if len(cells) == 1 else merge_cells(self.plan, cells, 0))
        values = []
        for name, one in chosen:
            (value,), saturated = one.column([[value] for value in state])
            values.append(value)
            if saturated:
                cut.add(name)
        return values

    def _batch(self, rows: Sequence[tuple[Any, ...]], chosen: Sequence[tuple[str, Output]], schema: pa.Schema) -> pa.RecordBatch:
        made = dict(zip((*self.keys, self.time, *(name for name, _ in chosen)), zip(*rows)))
        return pa.record_batch([pa.array(made.get(field.name, ()), field.type) for field in schema], schema=schema)


def tables_of(rollup: Any) -> Iterator[tuple[str, int, int]]:
    """The tables of a roll-up: the name, the breakdown's place and the width of its windows, the totals first."""
    for index, one in sorted(enumerate(rollup.by), key=lambda pair: len(pair[1].dimensions)):
        for width in one.widths:
            yield "_".join((rollup.name, *one.dimensions, duration_text(width))), index, width


def _arrow(kind: str, scale: int) -> pa.DataType:
    return pa.decimal128(38, scale) if kind == "decimal" else _TYPES[kind]


def _scale(one: Output) -> int:
    field: Field | None = one.parts[0].field
    return getattr(field, "scale", 0)
