"""Relative times: "last_7d", "this_month", "-24h".

A range is written as one text, or as start and end. What is relative counts from `now`, in a zone's calendar:

    today, yesterday                the day that runs, up to now; the whole day before
    last_N<unit>                    the unit that runs and the N - 1 before it, up to now
    previous_N<unit>                the N whole units before the one that runs
    this_<unit>                     from where the unit that runs began, up to now
    now, today, -N<unit>, +N<unit>  one instant, for start and end

Units are m, h, d, w (from Monday), mo and y, or their names. N may be left out for 1, and `_` may stand between it and the unit.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from penstock.errors import QueryError, UsageError
from penstock.model import Timestamp
from penstock.query.calendars import Calendar, unit_of

_RANGE = re.compile(r"(last|previous|this)_(?:([1-9]\d{0,4})_?)?([a-z]+)")
_AWAY = re.compile(r"(?:now)?([+-])(\d{1,6})([a-z]+)")
_HINT = 'use "today", "yesterday", "last_7d", "last_60m", "previous_1w", "this_month", or start and end'


def parse_range(text: Any, calendar: Calendar, now: int) -> tuple[int, int, bool]:
    """The start and end of a range as event times, and whether the end is `now`. Raises QueryError, naming `range`."""
    today = calendar.floor(now, "d")
    if text == "today":
        return today, now, True
    if text == "yesterday":
        return calendar.add(today, -1, "d"), today, False
    match = _RANGE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match[1] == "this" and match[2] is not None):
        raise QueryError(f"range: {text!r} is no range of time", hint=_HINT)
    unit, count = unit_of(match[3], "range"), int(match[2] or 1)
    running = calendar.floor(now, unit)
    try:
        if match[1] == "previous":
            return _inside(calendar.add(running, -count, unit), text), running, False
        return _inside(calendar.add(running, 1 - count, unit), text), now, True
    except UsageError as problem:
        raise QueryError(f"range: {problem.message}", hint="ask for a shorter range") from None


def parse_time(value: Any, what: str, calendar: Calendar, now: int) -> tuple[int, bool]:
    """An instant, and whether it was written as one that is relative. Raises QueryError, naming `what`."""
    text = value.strip() if isinstance(value, str) else value
    if text == "now":
        return now, True
    if text == "today":
        return calendar.floor(now, "d"), True
    match = _AWAY.fullmatch(text) if isinstance(text, str) else None
    try:
        if match:
            unit = unit_of(match[3], what)
            return _inside(calendar.add(now, int(match[1] + match[2]), unit), value, what), True
        time = calendar.parse(value, what)
    except UsageError as problem:
        if isinstance(problem, QueryError):
            raise
        message = problem.message if problem.message.startswith(what) else f"{what}: {problem.message}"
        raise QueryError(message, hint=f'{problem.hint or "ask for a shorter range"}; or relative: "now", "today", "-24h"') from None
    return _inside(time, value, what), False


def _inside(time: int, value: Any, what: str = "range") -> int:
    if not 0 <= time < Timestamp.LIMIT:
        shown = value.isoformat() if isinstance(value, dt.datetime) else value
        raise QueryError(f"{what}: {shown!r} is before 1970 or after 9999", hint="an event time is microseconds since 1970, or ISO 8601")
    return time
