"""How a question is answered: from which breakdown, and for each shard from which granularity over which part of the range.

A coarse window of a shard that is not folded yet has no cell; the finer cells that it will be folded from are merged instead, down to the
finest, which the stream writes. The edges of a range that are no whole coarse windows are read from the finer granularities as well.
"""

from __future__ import annotations

import dataclasses
from typing import Sequence

from penstock.errors import QueryError
from penstock.model import By, Rollup
from penstock.model.rollup import GRANULARITIES
from penstock.model.units import DAY, duration_text
from penstock.query.request import MAX_WINDOWS, Question
from penstock.query.windows import ceil, floor

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
    longer kept. kept_from: by level, where the oldest window that is not hidden starts. parts: what makes up [start, end), each read from windows within it."""

    breakdown: int
    widths: tuple[int, ...]
    top: int
    start: int
    end: int
    kept_from: tuple[int, ...]
    parts: tuple[tuple[int, int], ...]

    def segments(self, folded: int) -> list[Segment]:
        """What to read for a shard whose windows are folded up to an event time."""
        return [one for start, end in self.parts for one in cover(self.widths, self.kept_from, self.top, start, end, folded)[0]]


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
    widths, text = by.widths, question.calendar.text
    _check_borders(by, question)
    kept_from = tuple(ALWAYS if newest is None else (newest - by.keep[width]) // width * width for width in widths)
    parts: list[tuple[int, int]]
    if question.windows.width is None and len(question.windows) > 1 and question.interval is not None and question.interval.unit:
        # Days and months of a calendar: coarse windows may lie within one of them though they do not divide it.
        top = len(widths) - 1
        starts = [question.start, *question.windows.starts[1:]]
        parts = _kept_parts(by, question, kept_from, list(zip(starts, [*starts[1:], question.end])))
        start = parts[0][0]
    else:
        top = max(level for level, width in enumerate(widths) if question.windows.whole(width))
        start = _kept_start(by, question, kept_from[: top + 1])
        parts = [(start, question.end)]
    covers = [cover(widths, kept_from, top, *part, NEVER) for part in parts]
    for _, hidden in covers:
        if hidden:
            width = min(width for width, kept in zip(widths, kept_from[: top + 1]) if kept <= hidden[0][0])
            raise _edge_error(by, question, hidden[0][0], width)
    if sum((one.stop - one.start) // widths[one.level] for segments, _ in covers for one in segments) > MAX_WINDOWS:
        raise QueryError(
            f"start, end: from {text(start)} to {text(question.end)} there are more than {MAX_WINDOWS:,} windows to read",
            hint="ask for a shorter range, or one that begins and ends on whole days",
        )
    return QueryPlan(index, widths, top, start, question.end, kept_from, tuple(parts))


def _check_borders(by: By, question: Question) -> None:
    """Refuse what would cut the breakdown's finest windows."""
    finest, calendar = by.widths[0], question.calendar
    if not calendar.utc and any(calendar.offset(time) % finest for time in (question.start, question.end)) and finest <= DAY:
        offset = next(calendar.offset(time) for time in (question.start, question.end) if calendar.offset(time) % finest)
        if any(time % finest for time in (question.start, question.end)) or not question.windows.whole(finest):
            fitting = next((width for width in reversed(GRANULARITIES) if offset % width == 0), GRANULARITIES[0])
            raise QueryError(
                f"timezone: {calendar.name} is {duration_text(abs(offset))} from UTC, which is no whole number of windows of the breakdown {_name(by)}",
                hint=f'declare it with windows of {duration_text(fitting)} or finer (keep={{"{duration_text(fitting)}": ...}}), or ask in another zone such as UTC',
            )
    if not question.windows.whole(finest):
        assert question.interval is not None
        raise QueryError(
            f"interval: {question.interval.text} is not made of whole windows of the breakdown {_name(by)}",
            hint=f"use a multiple of {duration_text(finest)}",
        )
    for what, time in (("start", question.start), ("end", question.end)):
        if time % finest:
            raise QueryError(
                f"{what}: {calendar.text(time)} is not where a window of the breakdown {_name(by)} begins",
                hint=f"use {calendar.text(floor(time, finest))} or {calendar.text(ceil(time, finest))}",
            )


def _kept_parts(by: By, question: Question, kept_from: Sequence[int], parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The windows of the answer from the first that is kept whole."""
    for at, part in enumerate(parts):
        if not cover(by.widths, kept_from, len(by.widths) - 1, *part, NEVER)[1]:
            return parts[at:]
    raise _nothing_kept(by, question, by.widths, min(kept_from))


def _kept_start(by: By, question: Question, kept_from: Sequence[int]) -> int:
    """Where the first window of the answer starts that is kept whole."""
    oldest = min(kept_from)
    if question.start >= oldest:
        return question.start
    start = oldest if question.interval is None else question.windows.next(oldest, question.end)
    if start >= question.end:
        raise _nothing_kept(by, question, by.widths[: len(kept_from)], max(start, oldest))
    return start


def _nothing_kept(by: By, question: Question, widths: Sequence[int], after: int) -> QueryError:
    kept = ", ".join(f"{duration_text(width)} windows for {duration_text(by.keep[width])}" for width in widths)
    text = question.calendar.text
    return QueryError(
        f"start: from {text(question.start)} to {text(question.end)} nothing is kept any more in the breakdown {_name(by)}: it keeps {kept}",
        hint=f"ask for a range after {text(max(after, 0))}, or for a longer interval",
    )


def _edge_error(by: By, question: Question, hidden: int, width: int) -> QueryError:
    """The range begins or ends inside a window of `width`, and the finer ones are not kept for so long. hidden: where they are missing first."""
    what, time = ("start", question.start) if hidden < ceil(question.start, width) else ("end", question.end)
    kept = ", ".join(f"{duration_text(one)} for {duration_text(by.keep[one])}" for one in by.widths if one < width)
    text = question.calendar.text
    return QueryError(
        f"{what}: {text(time)} lies inside a {duration_text(width)} window, and finer ones are no longer kept for that time ({kept})",
        hint=f"use {text(floor(time, width))} or {text(ceil(time, width))}",
    )
