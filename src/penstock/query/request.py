"""The question: what was asked, checked and in canonical values. Every mistake is a QueryError that names the parameter and the fix."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any, Mapping, Sequence

from penstock.errors import QueryError, UsageError
from penstock.kernels import RollupPlan
from penstock.model import Field, Rollup, check_filter, fields_of
from penstock.model.units import instant
from penstock.query.calendars import Calendar, calendar_of
from penstock.query.measures import Output, outputs
from penstock.query.ranges import parse_range, parse_time
from penstock.query.windows import Interval, Windows, ceil, floor, parse_interval, windows

MAX_WINDOWS = 1_000_000  # in one answer, and to be read for one
MAX_ROWS = 100_000  # of an answer, unless asked for more
TIME = "time"  # the column of an answer that holds where a window starts
COMPARISONS = {
    "previous_period": None,
    "previous_day": (1, "d"),
    "previous_week": (1, "w"),
    "previous_month": (1, "mo"),
    "previous_year": (1, "y"),
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


@dataclasses.dataclass(frozen=True)
class Question:
    """entity: its canonical value. start, end: event times, microseconds.
    interval: None for one total. windows: of the answer. by: dimensions, in the order asked. where: canonical (see `check_filter`), over `fields`.
    order: (column, descending), the first counts most. The rest is as in `Analytics.query`."""

    entity: Any
    outputs: tuple[Output, ...]
    calendar: Calendar
    start: int
    end: int
    interval: Interval | None
    windows: Windows
    by: tuple[str, ...]
    where: Mapping[str, Any] | None
    order: tuple[tuple[str, bool], ...]
    limit: int | None
    offset: int = 0
    top: int | None = None
    other: bool = False
    totals: bool = False
    compare: str | None = None
    minimum_audience: int | None = None
    max_rows: int = MAX_ROWS

    @property
    def dimensions(self) -> set[str]:
        """What a breakdown must split by so that this can be answered."""
        return set(self.by) | (fields_of(self.where) if self.where else set())

    def over(self, start: int, end: int) -> Question:
        """The same question about another range. Raises QueryError, naming `interval`."""
        return dataclasses.replace(self, start=start, end=end, windows=windows(self.interval, self.calendar, start, end, MAX_WINDOWS))


def parse_value(field: Field, value: Any, what: str) -> Any:
    """The canonical value that a text (or a value already of the field's kind) stands for. Raises QueryError, naming `what`."""
    try:
        if field.kind == "timestamp" and isinstance(value, (str, dt.datetime)):
            value = instant(value, what)
        elif field.kind == "int" and isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        elif field.kind == "bool" and isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        return field.canonical(value)
    except UsageError as problem:
        raise QueryError(problem.message, hint=problem.hint) from None
    except (ValueError, TypeError) as problem:
        raise QueryError(f"{what}: {value!r} {problem}", hint=f"give a value that the field ({field.kind}) can hold") from None


def parse(
    plan: RollupPlan,
    *,
    entity: Any,
    measures: Sequence[str] | None,
    start: Any,
    end: Any,
    interval: str | int | None,
    by: Sequence[str],
    where: Mapping[str, Any] | None,
    order: str | None,
    limit: int | None,
    range: str | None = None,
    timezone: str = "UTC",
    offset: int = 0,
    top: int | None = None,
    other: bool = False,
    totals: bool = False,
    compare: str | None = None,
    minimum_audience: int | None = None,
    max_rows: int = MAX_ROWS,
    now: int = 0,
    newest: int | None = None,
) -> Question:
    """The question that a user's parameters ask of a roll-up. Raises QueryError, naming the parameter and the fix.

    now: the wall clock, microseconds; newest: the newest event time of any shard, None before the first event.
    """
    rollup = plan.rollup
    calendar = calendar_of(timezone) if isinstance(timezone, str) else calendar_of(str(timezone))
    dimensions, condition = _by(rollup, by), _where(rollup, where)
    needed = set(dimensions) | (fields_of(condition) if condition else set())
    begin, stop = _range(rollup, calendar, range, start, end, now, newest, needed)
    if begin >= stop:
        raise QueryError(
            f"end: {calendar.text(stop)} is not after start, {calendar.text(begin)}",
            hint="the range is [start, end): the end itself is not in it",
        )
    width = None if interval is None else parse_interval(interval)
    parts = windows(width, calendar, begin, stop, MAX_WINDOWS)
    rows = _count(max_rows, "max_rows", "rows")
    if len(parts) > rows:
        raise QueryError(
            f"interval: the answer would have {len(parts):,} windows, and {rows:,} rows are the most (max_rows)",
            hint="ask for a longer interval or a shorter range, or for a larger max_rows",
        )
    chosen = tuple(outputs(plan, measures))
    if compare is not None and compare not in COMPARISONS:
        raise QueryError(f"compare: {compare!r} is unknown", hint=f"use {', '.join(COMPARISONS)}")
    more = [name for one in chosen for name in comparison_names(one)] if compare else []
    columns = [*([TIME] if width is not None else []), *dimensions, *(one.name for one in chosen), *more]
    for name in columns:
        if columns.count(name) > 1:
            raise QueryError(f"measures: the answer would have two columns {name!r}", hint="leave one out, or give a quotient another name")
    key = parse_value(rollup.schema.columns[rollup.entity], entity, f"entity: {rollup.entity}")
    if top is not None and not dimensions:
        raise QueryError("top: there are no groups to choose from", hint="say by=[...], or leave top out")
    if other and top is None:
        raise QueryError("other: nothing is left out to be merged", hint="say top=N, or leave other out")
    if minimum_audience is not None and not any(one.kind == "uniques" for one in plan.measures):
        raise QueryError(
            f"minimum_audience: roll-up {rollup.name!r} does not count people", hint='declare a measure Uniques("user"), or leave it out'
        )
    return Question(
        key,
        chosen,
        calendar,
        begin,
        stop,
        width,
        parts,
        dimensions,
        condition,
        _order(order, columns),
        _limit(limit),
        offset=_count(offset, "offset", "rows", 0),
        top=None if top is None else _count(top, "top", "groups"),
        other=other,
        totals=totals,
        compare=compare,
        minimum_audience=None if minimum_audience is None else _count(minimum_audience, "minimum_audience", "people"),
        max_rows=rows,
    )


def comparison_names(one: Output) -> list[str]:
    """The columns that a comparison adds for a measure: what it was, and unless it is an instant, by how much it changed, and in percent of what it was."""
    return [f"{one.name}_{what}" for what in (("previous",) if one.type == "timestamp" else ("previous", "change", "percent"))]


def _range(
    rollup: Rollup, calendar: Calendar, range: str | None, start: Any, end: Any, now: int, newest: int | None, dimensions: set[str]
) -> tuple[int, int]:
    """The range as event times. What is relative is moved outwards to the borders of the finest windows that are kept there; up to now is with the one that runs."""

    def outwards(time: int, up: bool) -> int:
        return _snapped(rollup, time + (up and time == now), newest, dimensions, up)

    if range is not None:
        if start is not None or end is not None:
            raise QueryError("range: start or end is given as well", hint="say range, or start and end")
        begin, stop, to_now = parse_range(range, calendar, now)
        return begin, outwards(stop, True) if to_now else stop
    if start is None:
        raise QueryError("start: it is not said which time is asked for", hint='say range="last_7d", or start and end')
    begin, away = parse_time(start, "start", calendar, now)
    stop, until = (now, True) if end is None else parse_time(end, "end", calendar, now)
    return outwards(begin, False) if away else begin, outwards(stop, True) if until else stop


def _snapped(rollup: Rollup, time: int, newest: int | None, dimensions: set[str], up: bool) -> int:
    """Where a window begins, not after the time, or not before it: a window of the smallest breakdown, the finest that is kept for so long."""
    fitting = [one for one in rollup.by if dimensions <= set(one.dimensions)]
    if not fitting:
        return time  # refused later, with the breakdowns that there are
    keep = min(fitting, key=lambda one: len(one.dimensions)).keep
    kept = [width for width in keep if newest is None or floor(time, width) >= (newest - keep[width]) // width * width] or list(keep)
    return ceil(time, kept[0]) if up else floor(time, kept[0])


def dimensions_of(rollup: Rollup) -> list[str]:
    """All dimensions of any breakdown, in declared order."""
    return list(dict.fromkeys(name for one in rollup.by for name in one.dimensions))


def _by(rollup: Rollup, by: Sequence[str]) -> tuple[str, ...]:
    if isinstance(by, str):
        raise QueryError(f"by: {by!r} is one text, not a list of dimensions", hint=f"write by=[{by!r}]")
    known = dimensions_of(rollup)
    for name in by:
        if name not in known:
            fix = f"it has {', '.join(known)}" if known else "it has totals only: leave by out"
            raise QueryError(f"by: roll-up {rollup.name!r} has no dimension {name!r}", hint=fix)
    if len(set(by)) != len(by):
        raise QueryError(f"by: {', '.join(by)} names a dimension twice", hint="name each dimension once")
    return tuple(by)


def _where(rollup: Rollup, where: Any) -> dict[str, Any] | None:
    if where is None:
        return None
    fields = {name: rollup.schema.columns[name] for name in dimensions_of(rollup)}
    if not fields:
        raise QueryError(
            f"where: roll-up {rollup.name!r} has no dimensions, so there is nothing to filter by",
            hint='leave where out, or declare a breakdown: By("country", keep=...)',
        )
    try:
        return check_filter(_from_text(where, fields), fields, "where")
    except QueryError:
        raise
    except UsageError as problem:
        raise QueryError(problem.message, hint=problem.hint) from None


def _from_text(data: Any, fields: Mapping[str, Field]) -> Any:
    """A filter with the texts in it read as what their fields hold, so that a command line can give any value. What is no filter is left to the check."""
    if not isinstance(data, Mapping):
        return data
    read: dict[Any, Any] = {}
    for name, condition in data.items():
        if name == "any" and isinstance(condition, (list, tuple)):
            read[name] = [_from_text(one, fields) for one in condition]
        elif name == "not":
            read[name] = _from_text(condition, fields)
        elif name not in fields:
            read[name] = condition
        elif isinstance(condition, Mapping):
            read[name] = {op: _values(fields[name], value, name) for op, value in condition.items()}
        else:
            read[name] = _values(fields[name], condition, name)
    return read


def _values(field: Field, value: Any, name: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_values(field, one, name) for one in value]
    return (
        parse_value(field, value, f"where: {name}")
        if field.kind in ("int", "bool", "timestamp") and isinstance(value, (str, dt.datetime))
        else value
    )


def _order(order: str | None, columns: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    if order is None:
        return ()
    keys = [(part.strip().removeprefix("-"), part.strip().startswith("-")) for part in str(order).split(",")]
    for name, _ in keys:
        if name not in columns:
            raise QueryError(
                f"order: the answer has no column {name!r}", hint=f"it has {', '.join(columns)}; a - before the name puts the largest first"
            )
    return tuple(keys)


def _count(value: Any, what: str, things: str, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise QueryError(f"{what}: {value!r} is not a number of {things}", hint=f"use {least} or more, or leave it out")
    return value


def _limit(limit: int | None) -> int | None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise QueryError(f"limit: {limit!r} is not a number of rows", hint="use 1 or more, or leave it out for all of them")
    return limit
