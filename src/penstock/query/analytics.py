"""The reading side in Python: ask a roll-up of a deployment for an entity's numbers."""

from __future__ import annotations

import dataclasses
import inspect
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, Protocol, Sequence

from penstock.errors import NotFoundError
from penstock.kernels import RollupPlan
from penstock.model.units import duration_text
from penstock.query.answer import Answer
from penstock.query.answering import Prepared, answer
from penstock.query.calendars import calendar_of
from penstock.query.kept import MAX_BYTES, NotKept, RowCache, Unread
from penstock.query.ranges import parse_time
from penstock.query.request import MAX_ROWS, parse
from penstock.query.standing import Standing
from penstock.query.trends import Trend, trending
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, ShardId
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
class _Known:
    """What is known of a roll-up until some moment of the monotonic clock; and its shards, as they were when they were looked at last."""

    until: float
    definition: BoltDefinition
    plan: RollupPlan
    shards: tuple[ShardId, ...]
    standing: Standing
    looked_at: float


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

    refresh: how many seconds a roll-up's published definition and its list of partitions are taken as known; a `penstock publish` and a new partition show after so long at the latest.
    lag: how many seconds old what is known of the stream's progress may be; 0 to read it anew for every question. An answer then may say so much less than it
    holds, never more: `as_of` and `version` are those of a moment before its cells were read.
    kept: bytes of rows kept in memory, at most. A row is asked of the table anew once anything was committed that could have changed it (see `penstock.query.kept`).

    Safe for use by several threads. Nothing is written.
    """

    def __init__(self, source: Source | Deployment, *, refresh: float = 2.0, lag: float = 0.0, kept: int = MAX_BYTES) -> None:
        self.source, self.refresh, self.lag = source, refresh, lag
        self._rows = RowCache(kept)
        self._known: dict[str, _Known] = {}
        self._plans: dict[tuple[str, str, str], tuple[BoltDefinition, RollupPlan]] = {}

    @classmethod
    def on(cls, name: str, key: str | None = None) -> Analytics:
        """The analytics of a deployment: "local:DIR" or a name in penstock.toml; or of a server, "https://HOST", asked with a key ($PENSTOCK_KEY unless given).

        Raises ConfigurationError, and NotFoundError where nothing ever ran.
        """
        if name.startswith(("https://", "http://")):
            from penstock.client import RemoteAnalytics

            return RemoteAnalytics(name, key)
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

    def _at_hand(self, name: str, now: float) -> _Known | None:
        """What is known of a roll-up, as long as neither the definition nor the control cells have to be read anew."""
        known = self._known.get(name)
        return None if known is None or now >= min(known.until, known.looked_at + self.lag) else known

    def _served(self, name: str) -> _Known:
        """The published definition of a roll-up, and its shards as they are now. Which definition and which shards there are is read anew once what is known of
        that is older than `refresh`; else one read of the control cells does, and none within `lag` of the last."""
        known, table, now = self._known.get(name), self.source.table, time.monotonic()
        if known is not None and now < known.until:
            if self._at_hand(name, now) is None:
                cells = table.get(CONTROL_TABLE, [(shard.row, CONTROL_COLUMN) for shard in known.shards])
                found = [(shard, Control.decode(cell)) for shard, cell in zip(known.shards, cells) if cell is not None]
                known = self._known[name] = dataclasses.replace(known, standing=Standing(found), looked_at=now)
            return known
        registry = Registry(table)
        definition = registry.provider("rollup", name)
        shards = registry.shards(definition.bolt, definition.generation)
        plan = self._plan(definition, name)
        known = self._known[name] = _Known(now + self.refresh, definition, plan, tuple(shard for shard, _ in shards), Standing(shards), now)
        return known

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
        asked = {name: value for name, value in locals().items() if name not in ("self", "rollup")}
        return self.answer(self.prepare(rollup, **asked))

    def trending(self, rollup: str, measure: str, *, by: Sequence[str], **question: Any) -> list[Trend]:
        """The groups of `by` whose measure grew most against the period before, by more than chance explains. See `penstock.query.trends.trending`."""
        return trending(self, rollup, measure, by=by, **question)

    def version(self, rollup: str, **question: Any) -> str:
        """A token of what the answer to a question rests on: the generation that is served, its definition, how far each partition is durable, and the question,
        with relative times resolved. It is read from the control cells alone. The same parameters and errors as `query`."""
        return self.prepare(rollup, **question).version

    def prepare(self, rollup: str, **question: Any) -> Prepared:
        """A question understood, and the control cells as they are now: what `answer` needs. The same parameters and errors as `query`."""
        return self._prepared(rollup, self._served(rollup), question)

    def _prepared(self, rollup: str, known: _Known, question: Mapping[str, Any]) -> Prepared:
        asked: dict[str, Any] = {**_DEFAULTS, **question}
        now, plan, standing = asked.pop("now"), known.plan, known.standing
        clock = self.source.now() if now is None else parse_time(now, "now", calendar_of("UTC"), self.source.now())[0]
        return Prepared(rollup, known.definition, plan, standing, parse(plan, **asked, now=clock, newest=standing.newest))

    def prepare_at_hand(self, rollup: str, **question: Any) -> Prepared | None:
        """As `prepare`, where the control cells were looked at within `lag`; None where they would have to be read."""
        known = self._at_hand(rollup, time.monotonic())
        return None if known is None else self._prepared(rollup, known, question)

    def answer_at_hand(self, prepared: Prepared) -> Answer | None:
        """The answer to a prepared question, where all rows of it are kept; None where some would have to be read. The same errors as `query`."""
        try:
            return answer(prepared, _UNREAD, self._rows, self.source.now())
        except NotKept:
            return None

    def answer(self, prepared: Prepared) -> Answer:
        """The answer to a prepared question. The same errors as `query`."""
        return answer(prepared, self.source.table, self._rows, self.source.now())


_UNREAD: Any = Unread()
_DEFAULTS: dict[str, Any] = {
    name: one.default for name, one in inspect.signature(Analytics.query).parameters.items() if one.default is not inspect.Parameter.empty
}

__all__ = ["Analytics", "RollupInfo", "Source"]
