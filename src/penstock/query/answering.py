"""Answering a question that is understood: read, merge, compare, and say how far the numbers can be trusted."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Mapping, Sequence

from penstock.errors import QueryError
from penstock.kernels import RollupPlan, Series
from penstock.model.units import duration_text
from penstock.query.answer import Answer, Previous, Ranking
from penstock.query.comparison import Pair, earlier
from penstock.query.kept import RowCache
from penstock.query.merge import CellReader, Group
from penstock.query.plan import QueryPlan, choose
from penstock.query.ranking import Choice, choose_groups, ranking
from penstock.query.request import Question
from penstock.query.rows import Made, Valuer, Values, make, show
from penstock.query.standing import Standing, dropped_reason
from penstock.rollup.registry import BoltDefinition
from penstock.table import Table


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A question about a roll-up as it is served, and the control cells as they were before anything else is read."""

    rollup: str
    definition: BoltDefinition
    plan: RollupPlan
    standing: Standing
    question: Question

    @functools.cached_property
    def version(self) -> str:
        """A token of the definition, of how far each shard is durable, and of the question: while it stays the same, an answer holds all that is committed."""
        question = self.question
        where = None if question.where is None else json.dumps(question.where, sort_keys=True, default=str)
        outputs = [(one.name, one.places) for one in question.outputs]
        asked = [getattr(question, name) for name in _ASKED]
        parts = (self.rollup, self.definition.digest, self.standing.text, question.calendar.name, where, outputs, asked)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


_ASKED = sorted({field.name for field in dataclasses.fields(Question)} - {"outputs", "calendar", "windows", "where"})


@dataclasses.dataclass(frozen=True)
class _Reading:
    """What was read for a range."""

    question: Question
    query: QueryPlan
    reader: CellReader
    cells: dict[Group, bytes] | Series

    @property
    def windows(self) -> Sequence[int]:
        """Where the windows start that are kept, of the range's."""
        return self.reader.windows

    def values(self, valuer: Valuer, choice: Choice | None) -> Values:
        """The measures of what was read."""
        if isinstance(self.cells, Series):
            return valuer.series(self.cells, self.windows)
        return valuer.of(self.cells, self.windows, choice)


def answer(prepared: Prepared, table: Table, kept: RowCache, now: int) -> Answer:
    """The answer, read from the table, or from rows that are kept. now: the wall clock. Raises QueryError."""
    plan, question, standing = prepared.plan, prepared.question, prepared.standing
    reading = _read(prepared, question, table, kept)
    before = None if question.compare is None else _read_earlier(prepared, table, kept)
    choice = None
    if question.top is not None and not isinstance(reading.cells, Series):
        choice = choose_groups(plan, question, reading.cells)
    valuer = Valuer(plan, question)
    values = reading.values(valuer, choice)
    old, pair = None, None
    if before is not None:
        old = before.values(valuer, choice)
        pair = Pair(question, before.question, reading.windows, before.windows)
    made = make(valuer, values, pair, old)
    behind, text = standing.furthest_behind, question.calendar.text
    field = plan.rollup.schema.columns[plan.rollup.entity]
    reasons = [*standing.reasons(question.end), *_gone(prepared, reading, now)]
    if before is not None:
        reasons += [f"{question.compare}: {reason}" for reason in _gone(prepared, before, now)]
    estimates = {one.name: one.error for one in question.outputs if one.error}
    levels = sorted(
        {*reading.reader.levels, *(before.reader.levels if before and before.query.breakdown == reading.query.breakdown else ())}
    )
    return Answer(
        rollup=prepared.rollup,
        entity=show(field, field.kind, question.entity, question.calendar),
        start=text(question.start),
        end=text(question.end),
        interval=None if question.interval is None else question.interval.text,
        columns=made.columns,
        rows=made.rows,
        as_of=None if behind is None else text(behind[1].done.watermark),
        incomplete=tuple(reasons),
        errors={**estimates, **{f"{name}_previous": error for name, error in estimates.items() if question.compare}},
        saturated=tuple(one.name for one in question.outputs if one.name in valuer.saturated),
        generation=prepared.definition.generation,
        served_from=tuple(duration_text(reading.query.widths[level]) for level in reversed(levels)),
        breakdown=tuple(plan.rollup.by[reading.query.breakdown].dimensions),
        timezone=question.calendar.name,
        row_count=made.count,
        totals=made.totals,
        other=made.other if question.other else None,
        previous=None if before is None else Previous(question.compare or "", text(before.question.start), text(before.question.end)),
        ranking=_ranking(question, choice, made),
        minimum_audience=question.minimum_audience,
        suppressed=made.suppressed,
        version=prepared.version,
    )


def _read_earlier(prepared: Prepared, table: Table, kept: RowCache) -> _Reading:
    """What was read for the period that is compared with. Raises QueryError, naming `compare`."""
    question = earlier(prepared.question)
    try:
        return _read(prepared, question, table, kept)
    except QueryError as problem:
        raise QueryError(f"compare: {problem.message}", hint="leave compare out, or ask for a later range") from None


def _read(prepared: Prepared, question: Question, table: Table, kept: RowCache) -> _Reading:
    # The control cells come first. A window that they call folded has its coarse cell by now; one that is folded after has its finer cells still.
    plan = prepared.plan
    query = choose(plan.rollup, question, prepared.standing.newest)
    segments = {shard.key: query.segments(control.folded) for shard, control in prepared.standing.shards}
    generation = bytes.fromhex(prepared.definition.generation)
    reader = CellReader(table, plan, query, question, generation, segments, prepared.standing, kept)
    # Small audiences are found in whole cells.
    grouped = question.by or question.minimum_audience is not None
    return _Reading(question, query, reader, reader.groups() if grouped else reader.series())


def _ranking(question: Question, choice: Choice | None, made: Made) -> Ranking | None:
    """How sure an order by an estimate is: of the groups that `top` chose, or of the rows."""
    outputs = {one.name: one for one in question.outputs}
    if choice is not None:
        return ranking(choice.by, question.by, choice.ranked, 0, choice.kept) if choice.by.error else None
    if not question.order or question.order[0][0] not in outputs or not outputs[question.order[0][0]].error:
        return None
    by = outputs[question.order[0][0]]
    names = [*(["time"] if question.interval is not None else []), *question.by]
    at = len(names) + question.outputs.index(by)
    lines = list(zip(zip(*made.ordered[: len(names)]), made.ordered[at])) if names else [((), value) for value in made.ordered[at]]
    last = len(lines) if question.limit is None else min(len(lines), question.offset + question.limit)
    return ranking(by, names, lines, question.offset, last)


def _gone(prepared: Prepared, reading: _Reading, now: int) -> list[str]:
    """Which part of a range is older than it is kept, and which may be."""
    plan, query, reader, reasons = prepared.plan, reading.query, reading.reader, []
    if query.start > reading.question.start:
        keep = plan.rollup.by[query.breakdown].keep
        kept = ", ".join(f"{duration_text(width)} for {duration_text(keep[width])}" for width in query.widths[: query.top + 1])
        reasons.append(f"windows before {reading.question.calendar.text(query.start)} are older than they are kept ({kept})")
    ttls: Mapping[str, int] = dict(plan.rollup.tables())
    for level in reader.levels:
        width = query.widths[level]
        before = prepared.standing.dropped_before(ttls[plan.rollup.table(width)], now)
        if before is not None and min(start for ranges in reader.ranges[level].values() for start, _ in ranges) + width < before:
            reasons.append(dropped_reason(width, before))
    return reasons


__all__ = ["Prepared", "answer"]
