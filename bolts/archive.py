"""The bolt that archives every record: accepted ones, late ones and rejects, each as a dataset of its own, by hour."""

from __future__ import annotations

import functools
import hashlib
import io
from typing import Any, Callable, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.bolts.base import BatchBolt
from penstock.kernels import describe
from penstock.model.units import HOUR, hour_text
from penstock.rollup.calls import Call, Job, until_answered
from penstock.rollup.control import Progress, ShardId
from penstock.rollup.reader import Run
from penstock.rollup.shard import Shard, Surroundings
from penstock.warehouse import Dataset
from penstock.warehouse.datasets import arrow_schema, datasets_of, reject_value


class ArchiveBolt(BatchBolt):
    """Writes Parquet files (zstd) by event hour: `<schema>` holds accepted records, `<schema>_late` late ones, `<schema>_rejects` rejects with their bytes."""

    kind: ClassVar[str] = "archive"
    flush_default: ClassVar[str] = "30s"

    def open(self) -> None:
        """Find the archive and its datasets."""
        assert self.deployment is not None
        self.archive = self.deployment.archive
        self.datasets = datasets_of(self.schema)

    def new_shard(self, identity: ShardId) -> Shard:
        """The owner of a shard of this bolt."""
        return ArchiveShard(identity, self, self.archive, self.datasets)


class ArchiveShard(Shard):
    """A shard whose flush writes files: the compare-and-set that moves `committed` lists them, then they are indexed.

    A file carries its owner's name, so that two owners never write the same one; what is written and never listed is an orphan.
    """

    def __init__(self, identity: ShardId, around: Surroundings, archive: Archive, datasets: tuple[Dataset, Dataset, Dataset]) -> None:
        super().__init__(identity, around)
        self.archive, self.datasets = archive, datasets
        self.tables: list[list[pa.Table]] = [[], [], []]

    def open(self) -> None:
        self.tables = [[], [], []]

    def after_claim(self) -> Job:
        """Index the files that the owner before us listed; it may have stopped before it did."""
        yield from self.index()

    def add(self, run: Run, start: int, stop: int, verdict: np.ndarray) -> None:
        verdicts = verdict[start:stop]
        for code, (dataset, tables) in enumerate(zip(self.datasets, self.tables)):
            chosen = np.flatnonzero(verdicts == code)
            if len(chosen) == 0:
                continue
            if code == 2:
                tables.append(self.rejects(run, chosen + start, dataset))
            else:
                table = self.detail(run, start, stop, dataset)
                tables.append(table if len(chosen) == stop - start else table.take(pa.array(chosen)))

    def detail(self, run: Run, start: int, stop: int, dataset: Dataset) -> pa.Table:
        """All columns of some rows."""
        schema, count = arrow_schema(dataset), len(run)
        arrays: dict[str, Any] = {name: column.to_arrow() for name, column in run.columns.columns.items()}
        arrays["partition_id"] = pa.array(np.full(count, self.identity.partition, np.int32))
        arrays["log_offset"] = pa.array(run.records.offsets)
        arrays["log_time"] = pa.array(run.records.timestamps).cast(pa.timestamp("us", "UTC"))
        return pa.Table.from_arrays([fitted(arrays[field.name], field.type) for field in schema], schema=schema).slice(start, stop - start)

    def rejects(self, run: Run, rows: np.ndarray, dataset: Dataset) -> pa.Table:
        """Rejected rows: why, and their bytes as they came."""
        names = list(run.schema.fields)
        codes = run.columns.reject[rows].tolist()
        columns: dict[str, list[Any]] = {
            "log_time": run.records.timestamps[rows].tolist(),
            "partition_id": [self.identity.partition] * len(rows),
            "log_offset": run.records.offsets[rows].tolist(),
            "reason": [describe(code, names) for code in codes],
            "field": [names[(code >> 8) - 1] if code >> 8 else None for code in codes],
            "value": [reject_value(value) for value in map(run.records.value, rows.tolist())],
        }
        schema = arrow_schema(dataset)
        return pa.Table.from_arrays(
            [
                pa.array(columns[field.name], pa.int64()).cast(field.type)
                if pa.types.is_timestamp(field.type)
                else pa.array(columns[field.name], field.type)
                for field in schema
            ],
            schema=schema,
        )

    def take_part(self) -> list[list[pa.Table]]:
        part, self.tables = self.tables, [[], [], []]
        return part

    def flush(self) -> Job:
        self.flush_at = self.around.now()
        end, parts = self.cuts[0] if self.cuts else self.cut()
        assert self.control is not None
        entries: list[Entry] = []
        for dataset, tables in zip(self.datasets, parts):
            if tables:
                for hour, make in self.by_hour(pa.concat_tables(tables), dataset):
                    path = self.path(dataset.name, hour, end)
                    write = functools.partial(self.write, dataset.name, hour, path, make, self.durable.offset, end.offset)
                    entries.append((yield from until_answered(Call("archive.write", write))))
        if not (
            yield from self.swap(
                self.control, self.next_control(done=end, flushing=end.offset, timestamp=self.next_timestamp(), files=tuple(entries))
            )
        ):
            return False
        self.done(end, len(entries))
        yield from self.index()
        return True

    def by_hour(self, table: pa.Table, dataset: Dataset) -> list[tuple[int, Callable[[], pa.Table]]]:
        """The hours that a table's rows belong to, each with a function that picks its rows, in the order they came."""
        hours = table.column(dataset.time).cast(pa.int64()).to_numpy() // HOUR
        order = np.argsort(hours, kind="stable")
        found, starts = np.unique(hours[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        return [(int(hour) * HOUR, lambda rows=order[a:b]: table.take(pa.array(rows))) for hour, a, b in zip(found, starts.tolist(), ends)]  # type: ignore[misc]

    def path(self, dataset: str, hour: int, end: Progress) -> str:
        """Where a file goes."""
        assert self.control is not None
        return f"{dataset}/hour={hour_text(hour)}/{self.identity.name}-{self.durable.offset}-{end.offset}-{self.control.owner}.parquet"

    def write(self, dataset: str, hour: int, path: str, make: Callable[[], pa.Table], first: int, upto: int) -> Entry:
        """Write one file. Runs outside the bolt's lock, at any time: it looks at nothing that changes."""
        table = make()
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", store_schema=False)
        data = sink.getvalue()
        self.archive.write(path, data)
        return Entry(dataset, hour, path, self.identity.name, first, upto, table.num_rows, len(data), hashlib.sha256(data).hexdigest())

    def index(self) -> Job:
        """Put the files that the control cell lists into the index; the next compare-and-set drops them from it."""
        if self.control is not None and self.control.files:
            files = list(self.control.files)
            yield from until_answered(Call("archive.add", lambda: self.archive.add(files)))


def fitted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as the file's type: enums as text, timestamps as the warehouse wants them."""
    return array if array.type == kind else array.cast(kind)


__all__ = ["ArchiveBolt", "ArchiveShard"]
