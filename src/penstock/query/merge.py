"""Reading cells, and merging them over windows, breakdown values, partitions and incarnations."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import math
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from penstock.errors import QueryError
from penstock.kernels import RollupPlan, Series, Starts, Wanted, entity_prefix, merge_cells, row_key, select_cells, split_row
from penstock.model import Granularity, matches
from penstock.query.kept import Keyed, Ranged, Row, RowCache, State
from penstock.query.plan import QueryPlan, Segment
from penstock.query.request import Question
from penstock.query.standing import Standing
from penstock.table import Table

_POOL = concurrent.futures.ThreadPoolExecutor(
    16, thread_name_prefix="penstock-read"
)  # for stores that answer over a network; a thread starts when needed
MOST_ROWS = 256  # asked for by their keys at once; a scan of what is there is cheaper beyond that

Group = tuple[int, tuple[Any, ...]]  # where the answer's window starts, and the canonical values of `by`


class CellReader:
    """Reads one question's cells of one generation.

    shards: by a shard's 12 bytes in a cell's column, what to read for it. Cells of other shards and of other generations are passed over. standing: of the shards, as
    it was before anything else was read. kept: rows that need not be read again.
    """

    def __init__(
        self,
        table: Table,
        plan: RollupPlan,
        query: QueryPlan,
        question: Question,
        generation: bytes,
        shards: Mapping[bytes, Sequence[Segment]],
        standing: Standing,
        kept: RowCache,
    ) -> None:
        self.table, self.plan, self.query, self.question, self.generation = table, plan, query, question, generation
        self.standing, self.kept = standing, kept
        self.fields = plan.breakdowns[query.breakdown].fields
        self.prefix = entity_prefix(self.fields[0], question.entity)
        self.ranges: dict[int, dict[bytes, list[tuple[int, int]]]] = {}  # by level and shard
        for shard, segments in shards.items():
            for one in segments:
                self.ranges.setdefault(one.level, {}).setdefault(shard, []).append((one.start, one.stop))
        self.windows = question.windows.since(query.start)
        self.starts = Starts(self.windows, question.windows.width or 0)

    @property
    def levels(self) -> list[int]:
        """The levels that are read, coarsest first."""
        return sorted(self.ranges, reverse=True)

    def series(self) -> Series:
        """The windows of an answer that has no groups, merged."""
        made = Series(self.plan, self.starts)
        for _, base, width, cells, wanted in self._rows():
            made.add(cells, base, width, wanted)
        return made

    def groups(self) -> dict[Group, bytes]:
        """A cell for each window and group that has any, merged of them all. Raises QueryError for more than the question's `max_rows`."""
        groups: dict[Group, list[bytes]] = {}
        for group, base, width, cells, wanted in self._rows():
            select_cells(groups, group, cells, base, width, wanted, self.starts)
            if len(groups) > self.question.max_rows:
                raise QueryError(
                    f"by: there are more than {self.question.max_rows:,} rows (max_rows)",
                    hint="ask for a shorter range, a longer interval, fewer dimensions, a filter, or a larger max_rows",
                )
        return {group: merged(self.plan, cells) for group, cells in groups.items()}

    def _rows(self) -> Iterator[tuple[tuple[Any, ...], int, int, bytes, Wanted]]:
        """The rows that may hold cells of the question: the values of `by`, where the row's first window starts, how long each is, the cells, and which are read."""
        group_of, at = self._by_dimensions(), len(self.prefix) + 1
        for level, rows in self._levels():
            width, span, wanted = self.query.widths[level], self._span(level), Wanted(self.generation, self.ranges[level])
            for row, cells in rows:
                group = group_of(row) if cells else None
                if group is not None:
                    yield group, int.from_bytes(row[at : at + 4], "big") * span, width, cells, wanted

    def _levels(self) -> Iterator[tuple[int, Iterable[Row]]]:
        """The rows by level, each row once."""
        jobs = [(level, *buckets) for level in self.levels for buckets in self._buckets(level)]
        keyed = {job: keys for job in jobs if (keys := self._keys(*job)) is not None}
        scanned = [job for job in jobs if job not in keyed]
        for (level, _, _), rows in zip(scanned, self._scans(scanned)):
            yield level, rows
        found = self.kept.rows(self.table, list(keyed.values()))
        for (level, _, _), keys, cells in zip(keyed, keyed.values(), found):
            yield level, zip(keys.rows, cells)

    def _state(self, level: int) -> State:
        token = self.standing.folded(self.query.widths[level]) if level else self.standing.committed
        return State(self.generation, self.standing.names, token)

    def _final(self, level: int, first: int, last: int) -> int:
        """Of how many buckets, the first of some, all windows are closed."""
        return max(0, min(last + 1, self.standing.closed // self._span(level)) - first)

    def _span(self, level: int) -> int:
        """How long a row is."""
        return _length(self.query.widths[level])

    def _buckets(self, level: int) -> list[tuple[int, int]]:
        """The buckets of windows that are read of a level, first and last of those that lie side by side."""
        span = self._span(level)
        return joined({(start // span, (stop - 1) // span) for one in self.ranges[level].values() for start, stop in one})

    def _table(self, level: int) -> str:
        return self.plan.rollup.table(self.query.widths[level])

    def _keys(self, level: int, first: int, last: int) -> Keyed | None:
        """The rows of the buckets first to last of a level; None where the filter does not name them, or they are too many."""
        choices = self._choices()
        if choices is None:
            return None
        count = math.prod(map(len, choices))
        if count * (last - first + 1) > MOST_ROWS:
            return None
        head = row_key(self.prefix, self.query.breakdown, 0, ())[:-4]
        tails = [row_key(b"", 0, 0, zip(self.fields[1:], values))[5:] for values in itertools.product(*choices)]
        rows = [head + bucket.to_bytes(4, "big") + tail for bucket in range(first, last + 1) for tail in tails]
        return Keyed(self._table(level), rows, self._state(level), count * self._final(level, first, last))

    def _scans(self, jobs: Sequence[tuple[int, int, int]]) -> Iterable[Iterable[Row]]:
        """The rows of the buckets first to last of levels."""

        def scan(job: tuple[int, int, int]) -> Iterator[Row]:
            level, first, last = job
            start, stop = (row_key(self.prefix, self.query.breakdown, bucket, ()) for bucket in (first, last + 1))
            final = self._final(level, first, last) == last + 1 - first
            return self.kept.scan(self.table, Ranged(self._table(level), start, stop, self._state(level), final))

        if len(jobs) > 1 and getattr(self.table, "remote", False):
            return [answer.result() for answer in [_POOL.submit(lambda job: list(scan(job)), job) for job in jobs]]
        return map(scan, jobs)

    def _choices(self) -> list[list[Any]] | None:
        """For each dimension the values that can pass the filter; None if it does not name them all."""
        choices: list[list[Any]] = []
        for name in self.plan.rollup.by[self.query.breakdown].dimensions:
            condition = (self.question.where or {}).get(name, {})
            if "eq" not in condition and "in" not in condition:
                return None
            choices.append([condition["eq"]] if "eq" in condition else condition["in"])
        return choices

    def _by_dimensions(self) -> Callable[[bytes], tuple[Any, ...] | None]:
        """From a row to the values of `by`; None for one that the filter leaves out. Each combination of values is looked at once."""
        names = self.plan.rollup.by[self.query.breakdown].dimensions
        if not names:
            return lambda row: ()
        places = [names.index(name) for name in self.question.by]
        where, at, known = self.question.where, len(self.prefix) + 5, {}  # type: ignore[var-annotated]

        def group(row: bytes) -> tuple[Any, ...] | None:
            tail = row[at:]
            if tail not in known:
                values = split_row(self.plan, self.query.breakdown, row)[2]
                passed = where is None or matches(where, dict(zip(names, values)).__getitem__)
                known[tail] = tuple(values[place] for place in places) if passed else None
            return known[tail]

        return group


@functools.lru_cache(64)
def _length(width: int) -> int:
    """How long a row of windows of a width is."""
    return Granularity(width).span * width


def merged(plan: RollupPlan, cells: Sequence[bytes]) -> bytes:
    """One cell of several, none of which counts a record that another counts."""
    return cells[0] if len(cells) == 1 else merge_cells(plan, cells, 0)


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of whole numbers, both ends included, in order and with those that touch made one."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = result[-1][0], max(result[-1][1], last)
        else:
            result.append((first, last))
    return result
