"""How a question is answered: from which breakdown, and for each shard from which granularity over which part of the range.

A coarse window of a shard that is not folded yet has no cell; the finer cells that it will be folded from are merged instead, down to the
finest, which the stream writes. The edges of a range that are no whole coarse windows are read from the finer granularities as well.
"""

from __future__ import annotations

import dataclasses
from typing import Sequence

from penstock.errors import QueryError
from penstock.model import By, Rollup
from penstock.model.units import duration_text, iso
from penstock.query.request import MAX_WINDOWS, Question, ceil, floor

ALWAYS = -(2**62)  # before any event time
NEVER = 2**62  # after any


@dataclasses.dataclass(frozen=True)
class Segment:
    """The windows of a granularity (`level` counts from the finest) that start in [start, stop); both are on its windows' borders."""

    level: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class QueryPlan:
    """breakdown: its index in the roll-up. top: the coarsest usable level. start: where the answer begins; later than what was asked where that is no
    longer kept. kept_from: by level, where the oldest window that is not hidden starts."""

    breakdown: int
    widths: tuple[int, ...]
    top: int
    start: int
    end: int
    kept_from: tuple[int, ...]

    def segments(self, folded: int) -> list[Segment]:
        """What to read for a shard whose windows are folded up to an event time."""
        return cover(self.widths, self.kept_from, self.top, self.start, self.end, folded)[0]


def cover(
    widths: Sequence[int], kept_from: Sequence[int], level: int, start: int, stop: int, folded: int
) -> tuple[list[Segment], list[tuple[int, int]]]:
    """Disjoint segments that make up [start, stop), and the parts of it that no granularity keeps any more.

    start and stop are on borders of the finest windows. Whole windows of `level` that are kept and folded are taken; the others, and the edges, are
    taken from the level below. What stands in for a coarse window that is kept is not hidden, however short its own keep: the table has it still.
    """
    if level == 0:
        first = min(max(start, kept_from[0]), stop)
        return [Segment(0, first, stop)] if first < stop else [], [(start, first)] if start < first else []
    width = widths[level]
    first, last = max(-(-start // width) * width, kept_from[level]), stop // width * width
    if first >= last:
        return cover(widths, kept_from, level - 1, start, stop, folded)
    ready = max(first, min(last, folded // width * width))
    segments, hidden = [Segment(level, first, ready)] if first < ready else [], []
    for part_start, part_stop, kept in ((start, first, kept_from), (ready, last, (ALWAYS,) * len(widths)), (last, stop, kept_from)):
        if part_start < part_stop:
            part, part_hidden = cover(widths, kept, level - 1, part_start, part_stop, folded)
            segments += part
            hidden += part_hidden
    return segments, hidden


def choose(rollup: Rollup, question: Question, newest: int | None) -> QueryPlan:
    """The smallest breakdown that answers the question; of several, the first that still keeps the whole range.

    newest: the newest event time of any shard, None before the first event. A window is hidden once it ended more than `keep` before that: data
    sets of the past stay readable, whatever the wall clock says. Raises QueryError, naming the parameter and the fix.
    """
    fitting = sorted((len(one.dimensions), index) for index, one in enumerate(rollup.by) if question.dimensions <= set(one.dimensions))
    if not fitting:
        known = "; ".join(_name(one) for one in rollup.by)
        parameter = "by" if not question.where else "by and where" if question.by else "where"
        raise QueryError(
            f"{parameter}: roll-up {rollup.name!r} has no breakdown by {' and '.join(sorted(question.dimensions))} together",
            hint=f"its breakdowns are {known}; declare another one to look it up",
        )
    plans: list[QueryPlan] = []
    problems: list[QueryError] = []
    for _, index in fitting:
        try:
            plans.append(_plan(index, rollup.by[index], question, newest))
        except QueryError as problem:
            problems.append(problem)
    if not plans:
        raise problems[0]
    return min(plans, key=lambda plan: plan.start)


def _name(by: By) -> str:
    return f"by {', '.join(by.dimensions) or 'nothing'} ({', '.join(map(duration_text, by.widths))})"


def _plan(index: int, by: By, question: Question, newest: int | None) -> QueryPlan:
    widths, interval = by.widths, question.interval
    usable = [level for level, width in enumerate(widths) if interval is None or interval % width == 0]
    if not usable:
        raise QueryError(
            f"interval: {duration_text(interval or 0)} is not made of whole windows of the breakdown {_name(by)}",
            hint=f"use a multiple of {duration_text(widths[0])}",
        )
    for what, time in (("start", question.start), ("end", question.end)):
        if time % widths[0]:
            raise QueryError(
                f"{what}: {iso(time)} is not where a window of the breakdown {_name(by)} begins",
                hint=f"use {iso(floor(time, widths[0]))} or {iso(ceil(time, widths[0]))}",
            )
    top = max(usable)
    kept_from = tuple(ALWAYS if newest is None else (newest - by.keep[width]) // width * width for width in widths)
    start = _kept_start(by, question, kept_from[: top + 1])
    segments, hidden = cover(widths, kept_from, top, start, question.end, NEVER)
    if hidden:
        raise _edge_error(
            by, question, hidden[0][0], min(width for width, kept in zip(widths, kept_from[: top + 1]) if kept <= hidden[0][0])
        )
    if sum((one.stop - one.start) // widths[one.level] for one in segments) > MAX_WINDOWS:
        raise QueryError(
            f"start, end: from {iso(start)} to {iso(question.end)} there are more than {MAX_WINDOWS:,} windows to read",
            hint="ask for a shorter range, or one that begins and ends on whole days",
        )
    return QueryPlan(index, widths, top, start, question.end, kept_from)


def _kept_start(by: By, question: Question, kept_from: Sequence[int]) -> int:
    """Where the first window of the answer starts that is kept whole."""
    oldest = min(kept_from)
    if question.start >= oldest:
        return question.start
    start = oldest if question.interval is None else ceil(oldest, question.interval)
    if start >= question.end:
        kept = ", ".join(f"{duration_text(width)} windows for {duration_text(by.keep[width])}" for width in by.widths[: len(kept_from)])
        raise QueryError(
            f"start: from {iso(question.start)} to {iso(question.end)} nothing is kept any more in the breakdown {_name(by)}: it keeps {kept}",
            hint=f"ask for a range after {iso(max(start, 0))}, or for a longer interval",
        )
    return start


def _edge_error(by: By, question: Question, hidden: int, width: int) -> QueryError:
    """The range begins or ends inside a window of `width`, and the finer ones are not kept for so long. hidden: where they are missing first."""
    what, time = ("start", question.start) if hidden < ceil(question.start, width) else ("end", question.end)
    kept = ", ".join(f"{duration_text(one)} for {duration_text(by.keep[one])}" for one in by.widths if one < width)
    return QueryError(
        f"{what}: {iso(time)} lies inside a {duration_text(width)} window, and finer ones are no longer kept for that time ({kept})",
        hint=f"use {iso(floor(time, width))} or {iso(ceil(time, width))}",
    )
