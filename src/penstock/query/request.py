"""The question: what was asked, checked and in canonical values. Every mistake is a QueryError that names the parameter and the fix."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any, Mapping, Sequence

from penstock.errors import QueryError, UsageError
from penstock.kernels import RollupPlan
from penstock.model import Field, Rollup, Timestamp, check_filter, fields_of
from penstock.model.units import DAY, duration, duration_text, instant, iso
from penstock.query.measures import Output, outputs

MAX_WINDOWS = 1_000_000  # in one answer, and to be read for one
MAX_ROWS = 100_000  # of an answer, unless asked for more
TIME = "time"  # the column of an answer that holds where a window starts
_WEEK = 7 * DAY
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


@dataclasses.dataclass(frozen=True)
class Question:
    """entity: its canonical value. start, end: event times, microseconds. interval: microseconds, None for one total. by: dimensions, in the order asked.
    where: canonical (see `check_filter`), over `fields`. order: (column, descending), the first counts most."""

    entity: Any
    outputs: tuple[Output, ...]
    start: int
    end: int
    interval: int | None
    by: tuple[str, ...]
    where: Mapping[str, Any] | None
    order: tuple[tuple[str, bool], ...]
    limit: int | None

    @property
    def dimensions(self) -> set[str]:
        """What a breakdown must split by so that this can be answered."""
        return set(self.by) | (fields_of(self.where) if self.where else set())

    def window(self, time: int) -> int:
        """Where the answer's window that an event time lies in starts. Windows are counted from 1970, those of whole weeks from its first Monday."""
        return self.start if self.interval is None else floor(time, self.interval)


def floor(time: int, interval: int) -> int:
    """The newest start of a window that is not after `time`."""
    anchor = 4 * DAY if interval % _WEEK == 0 else 0  # 5 January 1970 was the first Monday
    return time - (time - anchor) % interval


def ceil(time: int, interval: int) -> int:
    """The oldest start of a window that is not before `time`."""
    return floor(time + interval - 1, interval)


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
) -> Question:
    """The question that a user's parameters ask of a roll-up. Raises QueryError, naming the parameter and the fix."""
    rollup = plan.rollup
    begin, stop = _time(start, "start"), _time(end, "end")
    if begin >= stop:
        raise QueryError(
            f"end: {iso(stop)} is not after start, {iso(begin)}", hint="the range is [start, end): the end itself is not in it"
        )
    width = None if interval is None else _interval(interval)
    if width is not None and (stop - floor(begin, width) - 1) // width >= MAX_WINDOWS:
        raise QueryError(
            f"interval: from {iso(begin)} to {iso(stop)} there are more than {MAX_WINDOWS:,} windows of {duration_text(width)}",
            hint="ask for a shorter range or a longer interval",
        )
    dimensions = _by(rollup, by)
    chosen = tuple(outputs(plan, measures))
    columns = [*([TIME] if width is not None else []), *dimensions, *(one.name for one in chosen)]
    for name in columns:
        if columns.count(name) > 1:
            raise QueryError(f"measures: the answer would have two columns {name!r}", hint="leave one out, or give a quotient another name")
    key = parse_value(rollup.schema.columns[rollup.entity], entity, f"entity: {rollup.entity}")
    return Question(key, chosen, begin, stop, width, dimensions, _where(rollup, where), _order(order, columns), _limit(limit))


def _time(value: Any, what: str) -> int:
    try:
        time = instant(value, what)
    except UsageError as problem:
        raise QueryError(problem.message, hint=problem.hint) from None
    if not 0 <= time < Timestamp.LIMIT:
        raise QueryError(f"{what}: {value!r} is before 1970 or after 9999", hint="an event time is microseconds since 1970, or ISO 8601")
    return time


def _interval(value: str | int) -> int:
    try:
        width = duration(value, "interval")
    except UsageError as problem:
        raise QueryError(problem.message, hint=problem.hint) from None
    if width <= 0:
        raise QueryError(f"interval: {value!r} is no length of time", hint='write "1m", "1h", "1d", or leave it out for one total')
    return width


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


def _limit(limit: int | None) -> int | None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise QueryError(f"limit: {limit!r} is not a number of rows", hint="use 1 or more, or leave it out for all of them")
    return limit
