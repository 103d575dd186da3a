"""What a topology's roll-ups cost for some events: cells, bytes, hot keys, rejects. Nothing is written anywhere."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, Iterator, Sequence

import numpy as np
import pyarrow as pa

from penstock.errors import UsageError
from penstock.kernels import Delta, RollupPlan, describe, merge_cells, row_parts
from penstock.model import Granularity, Rollup, Schema
from penstock.model.units import SECOND, duration_text
from penstock.rollup.control import NO_WATERMARK
from penstock.rollup.reader import Reader, Run

if TYPE_CHECKING:
    from penstock.deployment import Deployment

HOT = 5  # keys listed
_CHUNK_BYTES, _CHUNK_OFFSETS = 1 << 20, 1 << 17
_NOBODY = bytes(8), bytes(12)  # a generation and a shard: keys as long as real ones


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of one granularity of a breakdown. bytes: of keys and values, as stored once. folded: made from finer ones, not by the stream."""

    by: tuple[str, ...]
    granularity: str
    table: str
    cells: int
    bytes: int
    folded: bool


@dataclasses.dataclass(frozen=True)
class RollupSample:
    """What a roll-up makes of the sample. per_flush: cells that the stream writes in a flush of `flush_events` events. hot: (entity, events) of the busiest."""

    rollup: str
    cells: tuple[Cells, ...]
    per_flush: float
    flush_events: int
    hot: tuple[tuple[str, int], ...]
    entities: int

    @property
    def written(self) -> int:
        """Cells that the stream writes."""
        return sum(one.cells for one in self.cells if not one.folded)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some events of a schema, judged. span: seconds of event time from the first accepted one to the last. rate: events a second that the flushes are cut
    for. reasons: of rejects, each with how many."""

    schema: str
    events: int
    accepted: int
    rejected: int
    late: int
    span: float
    rate: float
    reasons: dict[str, int]
    rollups: tuple[RollupSample, ...]


def chunks_of_file(schema: Schema, path: str, format_: str | None, events: int) -> Iterator[bytes]:
    """The first records of a file, as the log would hold them."""
    from penstock.kernels.encode import Slices
    from penstock.log.formats import read_blocks
    from penstock.log.memory import MemoryLog
    from penstock.log.producer import Producer
    from penstock.log.sources import Source, format_of

    log = MemoryLog()
    log.create(schema.name, 1)
    with Source(path) as source, Producer(log, schema) as producer:
        for block in read_blocks(source, format_of(path, format_), schema):
            left = events - producer.sent
            producer.send_many(Slices(block.values.buffer, block.values.start[:left], block.values.length[:left]))
            if producer.sent >= events:
                break
    yield from _chunks(log, schema.name, 0, events)


def chunks_of_log(schema: Schema, deployment: Deployment, events: int) -> Iterator[bytes]:
    """The first records that a deployment's log has of a schema, as many of each partition."""
    topic = deployment.topic(schema)
    if topic not in deployment.log.topics():
        return
    partitions = deployment.log.partitions(topic)
    for partition in range(partitions):
        yield from _chunks(deployment.log, topic, partition, -(-events // partitions))


def _chunks(log: Any, topic: str, partition: int, events: int) -> Iterator[bytes]:
    at = log.start(topic, partition)
    stop = at + events
    while at < stop:
        chunk = log.read(topic, partition, at, _CHUNK_BYTES, min(_CHUNK_OFFSETS, stop - at))
        if chunk is None:
            return
        yield chunk.data
        at = chunk.next


def measure(schema: Schema, rollups: Sequence[tuple[Rollup, float]], chunks: Iterator[bytes], rate: float | None = None) -> Sample:
    """Read and judge the chunks as a bolt does, and count what its roll-ups make of them.

    rollups: each with how many seconds of events a flush takes. rate: events a second; the sample's own unless given. Raises UsageError for a sample
    without records.
    """
    reader, names = Reader(schema), list(schema.fields)
    runs: list[tuple[Run, np.ndarray]] = []
    watermark, totals, reasons = NO_WATERMARK, np.zeros(3, np.int64), collections.Counter[str]()
    bounds: list[int] = []
    for data in chunks:
        run = reader.read(data)
        verdict = np.empty(len(run), np.uint8)
        watermark, *counts = run.judge(0, len(run), watermark, verdict)
        totals += counts
        codes, numbers = np.unique(run.columns.reject[verdict == 2], return_counts=True)
        reasons.update({describe(code, names): count for code, count in zip(codes.tolist(), numbers.tolist())})
        times = run.columns.columns[schema.time].data[verdict == 0]
        bounds += [int(times.min()), int(times.max())] if len(times) else []
        runs.append((run, verdict))
    accepted, late, rejected = totals.tolist()
    if not runs:
        raise UsageError(
            f"there are no records of {schema.name!r} to look at", hint="give --sample FILE, or --on a deployment that has some in its log"
        )
    span = (max(bounds) - min(bounds)) / SECOND if bounds else 0.0
    events = accepted + late + rejected
    used = rate if rate is not None else events / max(span, 1.0)
    made = tuple(_rollup(rollup, runs, max(1, round(used * seconds))) for rollup, seconds in rollups)
    return Sample(schema.name, events, accepted, rejected, late, span, used, dict(reasons.most_common()), made)


def _rollup(rollup: Rollup, runs: list[tuple[Run, np.ndarray]], flush_events: int) -> RollupSample:
    plan = RollupPlan(rollup)
    whole, parts = _delta(plan), [_delta(plan)]
    filled, entities = 0, collections.Counter[Any]()
    for run, verdict in runs:
        whole.add(run.columns, verdict, 0, len(run))
        at = 0
        while at < len(run):
            stop = min(len(run), at + flush_events - filled)
            parts[-1].add(run.columns, verdict, at, stop)
            filled += stop - at
            at = stop
            if filled == flush_events:
                parts.append(_delta(plan))
                filled = 0
        values = run.columns.columns[rollup.entity].to_arrow().filter(pa.array(verdict == 0))
        for item in values.value_counts().to_pylist():
            entities[item["values"]] += item["counts"]
    complete = parts[:-1] or parts
    per_flush = sum(delta.cells for delta in complete) / len(complete)
    taken = flush_events if len(parts) > 1 else sum(len(run) for run, _ in runs)
    cells = tuple(itertools.chain.from_iterable(_cells(plan, whole, keys) for keys in whole.keys()))
    hot = tuple((str(entity), count) for entity, count in entities.most_common(HOT))
    return RollupSample(rollup.name, cells, per_flush, taken, hot, len(entities))


def _delta(plan: RollupPlan) -> Delta:
    return Delta(plan, *_NOBODY)


def _cells(plan: RollupPlan, delta: Delta, keys: Any) -> Iterator[Cells]:
    """The cells of a breakdown: those that the stream writes, then those folded from them."""
    breakdown = plan.rollup.by[keys.index]
    values = delta.merge(keys.index, [None] * len(keys.rows), 0)
    finest = [(row, column, value) for row, column, value in zip(keys.rows, keys.columns, values) if value is not None]
    nbytes = sum(len(row) + len(column) + len(value) for row, column, value in finest)
    yield Cells(breakdown.dimensions, duration_text(keys.width), plan.rollup.table(keys.width), len(finest), nbytes, False)
    finer: dict[tuple[bytes, bytes, int], list[bytes]] = collections.defaultdict(list)
    for row, window, value in zip(keys.rows, keys.windows.tolist(), values):
        head, _, tail = row_parts(plan, keys.index, row)
        if value is not None:
            finer[head, tail, window].append(value)
    width = keys.width
    column_bytes = len(keys.columns[0]) if keys.columns else 0
    for coarser in breakdown.widths[1:]:
        groups: dict[tuple[bytes, bytes, int], list[bytes]] = collections.defaultdict(list)
        for (head, tail, window), inner in finer.items():
            groups[head, tail, window * width // coarser] += inner
        finer, width = {place: [merge_cells(plan, inner, 0)] for place, inner in groups.items()}, coarser
        nbytes = sum(len(head) + 4 + len(tail) + column_bytes + len(inner[0]) for (head, tail, _), inner in finer.items())
        yield Cells(breakdown.dimensions, Granularity(coarser).name, plan.rollup.table(coarser), len(finer), nbytes, True)
