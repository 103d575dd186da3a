"""Roll-ups as datasets of the warehouse: a table for each breakdown and granularity of whole hours, loaded a day at a time.

A row is a window of an entity and its dimensions: the entity, the dimensions, `time` (where the window starts, UTC), the measures; uniques as an estimate,
with `<measure>_error`, its relative standard error. A measure of a window is a sum over all shards, so a row needs no identity but these.

A day is exported once all its windows are over, and nothing more can come for them: see `due_days`. It is loaded as an hour of detail is, with a row of
the ledger. What is read of the table comes from the caller, as record batches: this module knows datasets, days and files, and no cells.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.errors import ConfigurationError
from penstock.model import Count, Enum, Field, Max, Measure, Min, Rollup, String, Sum, Uniques
from penstock.model.units import DAY, HOUR, duration_text, hour_text
from penstock.warehouse import Column, Dataset, LedgerRow, Manifest, Warehouse
from penstock.warehouse.datasets import arrow_schema
from penstock.warehouse.export import GRACE, RELOAD_INTERVAL, ExportResult, PartitionProgress

FOLDER = "_rollups"  # of the archive: where a day's file is while it is loaded
_DIGITS = 38  # of a sum of decimals
PROVISIONAL, FINAL = 1, 2  # the end of a ledger row's range: an export that is final covers one that is not, and never the other way round


@dataclasses.dataclass(frozen=True)
class RollupTable:
    """One granularity of one breakdown of a roll-up, as the warehouse holds it. breakdown: its place in the roll-up's `by`. width: of the windows."""

    rollup: Rollup
    breakdown: int
    width: int

    @property
    def name(self) -> str:
        """rollup_<name>[_<dimensions>]_<granularity>."""
        return "_".join(("rollup", self.rollup.name, *self.rollup.by[self.breakdown].dimensions, duration_text(self.width)))

    @property
    def span(self) -> int:
        """How much event time is loaded at once: a day, or a window that is longer."""
        return max(DAY, self.width)

    @property
    def time(self) -> str:
        """The column that holds where a window starts."""
        taken = {self.rollup.entity, *self.rollup.by[self.breakdown].dimensions, *self.rollup.measures}
        return "time" if "time" not in taken else "window_time"

    @property
    def dataset(self) -> Dataset:
        """The table in the warehouse. Raises ConfigurationError for a roll-up whose columns would have one name twice."""
        rollup = self.rollup
        keys = (rollup.entity, *rollup.by[self.breakdown].dimensions)
        columns = [_key(key, rollup.schema.columns[key]) for key in keys]
        columns.append(Column(self.time, "timestamp", False))
        for name, measure in rollup.measures.items():
            if name in keys:
                continue  # as where roll-ups are read
            columns.append(_measure(rollup, name, measure))
            if isinstance(measure, Uniques):
                columns.append(Column(f"{name}_error", "float", False))
        names = [column.name for column in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"roll-up {rollup.name!r}: its table would have two columns {twice[0]!r}", hint="give a measure another name"
            )
        return Dataset(self.name, tuple(columns), self.time, rollup.entity)

    def table_of(self, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        """Rows as the dataset's file has them: in the order of its keys, so that the same rows make the same bytes."""
        schema = arrow_schema(self.dataset)
        found = list(batches)
        if not found:
            return schema.empty_table()
        table = pa.Table.from_batches(found)
        for name, measure in self.rollup.measures.items():
            if isinstance(measure, Uniques) and f"{name}_error" in schema.names:
                table = table.append_column(f"{name}_error", pa.array([measure.standard_error] * table.num_rows, pa.float64()))
        keys = (self.rollup.entity, *self.rollup.by[self.breakdown].dimensions)
        ordered = table.select(schema.names).sort_by([(name, "ascending") for name in (self.time, *keys)])
        return ordered.cast(schema)


def tables_of(rollup: Rollup) -> Iterator[RollupTable]:
    """What of a roll-up can be exported: its granularities of whole hours. Finer ones are for dashboards, and would be as many rows as the detail."""
    for breakdown, one in enumerate(rollup.by):
        for width in one.widths:
            if width % HOUR == 0:
                yield RollupTable(rollup, breakdown, width)


def due_days(
    table: RollupTable,
    progress: Sequence[PartitionProgress],
    ledger: Sequence[LedgerRow],
    now: int,
    *,
    grace: int = GRACE,
    reload_interval: int = RELOAD_INTERVAL,
    first: int = 0,
) -> list[tuple[int, bool]]:
    """The days to export now, in order, each with whether what is exported then is final. A day is where it starts.

    progress: of EVERY partition of the topic as the roll-up's bolt has it, read before the cells are. A day is due when all that could come for it has: every
    partition is past its last window's end plus lateness, or caught up and silent. In the second case an event may come for it all the same: the
    export is provisional, and due again every `reload_interval` microseconds until all partitions that have events are past. Days of which a part is no
    longer kept are not due. first: where the oldest window starts that has cells (see `first_window`): it matters until a day is in the ledger.
    """
    span, width = table.span, table.width
    newest = max((one.watermark for one in progress if one.watermark is not None), default=None)
    if newest is None:
        return []
    loaded = {row.hour: row for row in ledger}
    kept = table.rollup.by[table.breakdown].keep[width]
    oldest = max(-(-(newest - kept) // span) * span, min(loaded, default=first // span * span))
    due = []
    for day in range(oldest, newest, span):
        last = day + span - 1
        end = last - last % width + width + table.rollup.schema.lateness
        if not all(one.past(end + grace, now) for one in progress):
            break
        final = all(one.watermark is None or one.watermark >= end for one in progress)
        row = loaded.get(day)
        if row is None or (not _final(row) and now - row.loaded_at >= reload_interval):
            due.append((day, final))
    return due


def first_window(table: RollupTable, rows: Iterable[pa.RecordBatch]) -> int | None:
    """Where the oldest window starts of these rows; None without any. What to ask once, before the first export of a table."""
    starts = [pc.min(batch.column(table.time).cast(pa.int64())).as_py() for batch in rows if batch.num_rows]
    return min(starts, default=None)


def export_day(
    archive: Archive,
    warehouse: Warehouse,
    table: RollupTable,
    day: int,
    final: bool,
    rows: Callable[[int, int], Iterable[pa.RecordBatch]],
    now: int,
) -> ExportResult:
    """Load a day of a roll-up, in place of what was loaded of it before. Raises what `Warehouse.load` raises.

    rows: the windows that start in [first, second), as `rollup.<name>` has them. The file is in the archive only while it is loaded; those that killed
    processes have left go after a day.
    """
    dataset = table.dataset
    sink = io.BytesIO()
    found = table.table_of(rows(day, day + table.span))
    pq.write_table(found, sink, compression="zstd", store_schema=False)
    data = sink.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    folder = f"{FOLDER}/{dataset.name}"
    path = f"{folder}/{hour_text(day)}-{digest[:16]}.parquet"
    entry = Entry(dataset.name, day, path, table.rollup.name, 0, FINAL if final else PROVISIONAL, found.num_rows, len(data), digest)
    warehouse.prepare(dataset)
    archive.write(path, data)
    try:
        outcome = warehouse.load(Manifest(dataset.name, day, (entry,), table.span), [archive.location(path)], now)
    finally:
        archive.remove([path, *(file.path for file in archive.files(folder) if 0 < file.modified < now - DAY)])
    return ExportResult(dataset.name, day, found.num_rows, 1, outcome)


def _final(row: LedgerRow) -> bool:
    return all(pairs and pairs[-1][1] >= FINAL for pairs in row.ranges.values())


def _key(name: str, field: Field) -> Column:
    longest = field.max_bytes if isinstance(field, String) else max(len(v.encode()) for v in field.values) if isinstance(field, Enum) else 0
    return Column(name, field.kind, field.nullable, scale=getattr(field, "scale", 0), max_bytes=longest)


def _measure(rollup: Rollup, name: str, measure: Measure) -> Column:
    if isinstance(measure, (Count, Uniques)):
        return Column(name, "int", False)
    if not isinstance(measure, (Sum, Min, Max)):
        return Column(name, "float", True)  # a ratio
    field = rollup.schema.columns[measure.field]
    digits = _DIGITS if isinstance(measure, Sum) else 18
    return Column(name, field.kind, True, scale=getattr(field, "scale", 0), precision=digits if field.kind == "decimal" else 18)
