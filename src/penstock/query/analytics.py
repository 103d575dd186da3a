"""The reading side in Python: ask a roll-up of a deployment for an entity's numbers."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, Protocol, Sequence

from penstock.errors import NotFoundError, QueryError
from penstock.kernels import RollupPlan
from penstock.model.units import duration_text, iso
from penstock.query.answer import Answer
from penstock.query.merge import CellReader
from penstock.query.plan import QueryPlan, choose
from penstock.query.request import MAX_ROWS, Question, parse
from penstock.query.rows import columns_of, rows_of, show
from penstock.query.standing import Standing, dropped_reason
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.table import Table

if TYPE_CHECKING:
    from penstock.deployment import Deployment


class Source(Protocol):
    """Where cells are and what time it is: a `Deployment` is one."""

    @property
    def table(self) -> Table:
        """Cells and control cells."""

    def now(self) -> int:
        """The wall clock, microseconds since 1970."""


@dataclasses.dataclass
class _TableSource:
    table: Table
    clock: Callable[[], int]

    def now(self) -> int:
        return self.clock()


@dataclasses.dataclass(frozen=True)
class RollupInfo:
    """What can be asked of a roll-up. entity: its field and that field's kind. measures: name to kind. breakdowns: dimensions, and of each granularity how
    long it is kept, as text."""

    name: str
    entity: tuple[str, str]
    measures: dict[str, str]
    breakdowns: tuple[tuple[tuple[str, ...], dict[str, str]], ...]
    generation: str


class Analytics:
    """Answers questions from the cells that a deployment's topologies wrote.

        with Analytics.on("local:data") as analytics:
            answer = analytics.query("by_advertiser", entity=42, start="2024-03-01", end="2024-03-02", interval="1h", measures=["clicks", "ctr"])

    Safe for use by several threads. Nothing is written.
    """

    def __init__(self, source: Source | Deployment) -> None:
        self.source = source
        self._plans: dict[tuple[str, str, str], tuple[BoltDefinition, RollupPlan]] = {}

    @classmethod
    def on(cls, name: str) -> Analytics:
        """The analytics of a deployment: "local:DIR" or a name in penstock.toml. Raises ConfigurationError, and NotFoundError where nothing ever ran."""
        from penstock.deployment import Deployment

        deployment = Deployment.named(name)
        if not deployment.exists():
            raise NotFoundError(
                f"deployment {name}: nothing was ever written to {deployment.directory}",
                hint="run a topology on it first, or look for a mistake in the name",
            )
        return cls(deployment)

    @classmethod
    def over(cls, table: Table, now: Callable[[], int] | None = None) -> Analytics:
        """The analytics of a table store by itself. now: the wall clock, microseconds since 1970."""
        return cls(_TableSource(table, now or (lambda: time.time_ns() // 1000)))

    def close(self) -> None:
        """Close the deployment that `on` opened."""
        close = getattr(self.source, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Analytics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rollups(self) -> list[RollupInfo]:
        """All roll-ups that can be asked, by name."""
        registry = Registry(self.source.table)
        found = [(registry.provider("rollup", name), name) for name in registry.names("rollup")]
        return [self._info(definition, name) for definition, name in found]

    def _info(self, definition: BoltDefinition, name: str) -> RollupInfo:
        rollup = self._plan(definition, name).rollup
        entity = rollup.entity, rollup.schema.columns[rollup.entity].kind
        breakdowns = tuple(
            (tuple(by.dimensions), {duration_text(width): duration_text(kept) for width, kept in by.keep.items()}) for by in rollup.by
        )
        return RollupInfo(name, entity, {n: m.kind for n, m in rollup.measures.items()}, breakdowns, definition.generation)

    def _plan(self, definition: BoltDefinition, name: str) -> RollupPlan:
        """The kernels' form of a definition, made once."""
        key = definition.bolt, definition.generation, name
        cached = self._plans.get(key)
        if cached is None or cached[0] != definition:
            cached = self._plans[key] = definition, RollupPlan(definition.rollup(name))
        return cached[1]

    def query(
        self,
        rollup: str,
        *,
        entity: Any,
        range: str | None = None,
        start: Any = None,
        end: Any = None,
        timezone: str = "UTC",
        interval: str | int | None = None,
        measures: Sequence[str] | None = None,
        by: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
        order: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        top: int | None = None,
        other: bool = False,
        totals: bool = False,
        compare: str | None = None,
        minimum_audience: int | None = None,
        max_rows: int = MAX_ROWS,
        now: Any = None,
    ) -> Answer:
        """An entity's measures over [start, end).

        entity: its value, or the text of it.
        range: instead of start and end: "today", "yesterday", "last_N<unit>" (the running unit and the N - 1 before it, up to now), "previous_N<unit>" (the N whole
            units before the running one), "this_<unit>" (from its first instant up to now), with the units m, h, d, w, mo, y or minute ... year: "last_7d",
            "last_60m", "previous_1mo", "this_month". Days, weeks (from Monday), months and years are the time zone's.
        start, end: ISO 8601 text (in `timezone` unless it has a zone), datetime, microseconds since 1970, or relative: "now", "today", "-24h", "-7d"; end is "now"
            unless given. Absolute ones lie on borders of the finest windows that the breakdown has; relative ones are moved outwards to them.
        timezone: an IANA name such as "Europe/Berlin". Windows are counted in it, and every instant of the answer is written with its offset.
        interval: a row for each window of "1m", "1h", "1d" or any multiple of a granularity, "1w" (from Monday), "1mo", "3mo", "1y" by the calendar; one total if None.
            In UTC, lengths that do not divide a day are counted from 1970. The first and last windows hold what of them is in the range.
        measures: names of the roll-up's measures, and quotients of them ("clicks/impressions", "ctr=clicks/impressions"); all that are declared if None.
        by: a row for each combination of these dimensions. where: a filter over dimensions (`penstock.model.filters`).
        order: a column, or several with commas between, "-" before one for largest first; nulls last; time, then dimensions, unless given.
        limit, offset: so many rows of that order, after so many.
        top: only the rows of this many groups of `by`, those largest over the whole range in the first measure of `order` (of the answer without one).
            other: the groups left out, merged, in `Answer.other`.
        totals: the measures of all groups and windows together, in `Answer.totals`, whatever limit and top leave out.
        compare: "previous_period" (the same length just before), "previous_day", "previous_week", "previous_month" or "previous_year": each measure m has three
            more columns, m_previous, m_change and m_percent (null where the one before is 0 or null); `Answer.previous` says which range it was.
        minimum_audience: what fewer people than this stand behind, by the roll-up's Uniques, is null and is listed in `Answer.suppressed`.
        max_rows: more rows than this, before limit and top, are refused.
        now: what relative times count from; the wall clock unless given.

        Without `by`, a window without records is there with zeros (null for extremes and for ratios). Windows that are older than the granularity's keep,
        counted from the newest event time, are left out and named in `incomplete`.

        Raises NotFoundError for a roll-up that is not there; QueryError, naming the parameter and the fix; UnavailableError when the table does not answer.
        """
        if (
            range
            or timezone != "UTC"
            or offset
            or top
            or other
            or totals
            or compare
            or minimum_audience
            or now
            or start is None
            or end is None
        ):
            raise QueryError("range, timezone, top, totals, compare: not built yet", hint="ask with start and end, in UTC")
        registry = Registry(self.source.table)
        definition = registry.provider("rollup", rollup)
        plan = self._plan(definition, rollup)
        question = parse(
            plan, entity=entity, measures=measures, start=start, end=end, interval=interval, by=by, where=where, order=order, limit=limit
        )
        # The control cells come first. A window that they call folded has its coarse cell by now; one that is folded after has its finer cells still.
        standing = Standing(registry.shards(definition.bolt, definition.generation))
        query = choose(plan.rollup, question, standing.newest)
        segments = {shard.key: query.segments(control.folded) for shard, control in standing.shards}
        reader = CellReader(self.source.table, plan, query, question, bytes.fromhex(definition.generation), segments)
        rows, saturated = rows_of(plan, query, question, reader.read())
        behind = standing.furthest_behind
        field = plan.rollup.schema.columns[plan.rollup.entity]
        return Answer(
            rollup=rollup,
            entity=show(field, field.kind, question.entity),
            start=iso(question.start),
            end=iso(question.end),
            interval=None if question.interval is None else duration_text(question.interval),
            columns=columns_of(plan, question),
            rows=rows,
            as_of=None if behind is None else iso(behind[1].done.watermark),
            incomplete=tuple(standing.reasons(question.end) + _gone(plan, query, question, standing, reader, self.source.now())),
            errors={one.name: one.error for one in question.outputs if one.error},
            saturated=saturated,
            generation=definition.generation,
            served_from=tuple(duration_text(query.widths[level]) for level in reader.levels),
            breakdown=tuple(plan.rollup.by[query.breakdown].dimensions),
        )


def _gone(plan: RollupPlan, query: QueryPlan, question: Question, standing: Standing, reader: CellReader, now: int) -> list[str]:
    """Which part of the range is older than it is kept, and which may be."""
    reasons = []
    if query.start > question.start:
        keep = plan.rollup.by[query.breakdown].keep
        kept = ", ".join(f"{duration_text(width)} for {duration_text(keep[width])}" for width in query.widths[: query.top + 1])
        reasons.append(f"windows before {iso(query.start)} are older than they are kept ({kept})")
    ttls = dict(plan.rollup.tables())
    for level in reader.levels:
        width = query.widths[level]
        before = standing.dropped_before(ttls[plan.rollup.table(width)], now)
        if before is not None and min(start for ranges in reader.ranges[level].values() for start, _ in ranges) + width < before:
            reasons.append(dropped_reason(width, before))
    return reasons


__all__ = ["Analytics", "RollupInfo", "Source"]
