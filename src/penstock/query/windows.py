"""The windows of an answer: an interval as it is written, and where its windows start in a time zone."""

from __future__ import annotations

import bisect
import dataclasses
import datetime as dt
import re
from typing import Sequence

from penstock.errors import QueryError, UsageError
from penstock.model.units import DAY, HOUR, duration, duration_text
from penstock.query.calendars import DAYS, MONTHS, UNITS, Calendar

_WEEK = 7 * DAY
_CALENDAR = re.compile(r"([1-9]\d{0,3})_?([a-z]+)")


@dataclasses.dataclass(frozen=True)
class Interval:
    """How long a window of an answer is: microseconds, or `count` units of the calendar ("d", "w", "mo", "y"), one of them."""

    text: str
    width: int | None = None
    unit: str | None = None
    count: int = 1


def parse_interval(value: str | int) -> Interval:
    """The interval of a text or of microseconds. Whole days are the calendar's. Raises QueryError, naming `interval`."""
    match = _CALENDAR.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = UNITS.get(match[2]) if match else None
    if match and unit in (*DAYS, *MONTHS):
        return Interval(f"{int(match[1])}{unit}", None, unit, int(match[1]))
    try:
        width = duration(f"{int(match[1])}{unit}" if match and unit else value, "interval")
    except UsageError as problem:
        raise QueryError(problem.message, hint=f'{problem.hint}, "1w", "1mo"') from None
    if width <= 0:
        raise QueryError(f"interval: {value!r} is no length of time", hint='write "1m", "1h", "1d", or leave it out for one total')
    if width % DAY == 0:
        return Interval(f"{width // DAY}d", None, "d", width // DAY)
    return Interval(duration_text(width), width)


def floor(time: int, interval: int) -> int:
    """The newest start of a window of so many microseconds that is not after `time`, counted from 1970, whole weeks from its first Monday."""
    anchor = 4 * DAY if interval % _WEEK == 0 else 0
    return time - (time - anchor) % interval


def ceil(time: int, interval: int) -> int:
    """The oldest start of a window that is not before `time`."""
    return floor(time + interval - 1, interval)


class Windows:
    """Where the windows start that [start, end) lies in, in order. width: of all of them, where they are counted from 1970 in UTC; None elsewhere."""

    def __init__(self, starts: Sequence[int], width: int | None = None) -> None:
        self.starts, self.width = starts, width

    def __len__(self) -> int:
        return len(self.starts)

    def whole(self, width: int) -> bool:
        """Whether no finer window of a granularity lies in two of these."""
        if self.width:
            return self.width % width == 0
        return all(start % width == 0 for start in self.starts[1:])

    def next(self, time: int, end: int) -> int:
        """The first start that is not before `time`, the end of the range if there is none."""
        at = bisect.bisect_left(self.starts, time)
        return self.starts[at] if at < len(self.starts) else end

    def since(self, time: int) -> Sequence[int]:
        """The windows that end after an event time."""
        return self.starts[max(bisect.bisect_right(self.starts, time) - 1, 0) :]


def windows(interval: Interval | None, calendar: Calendar, start: int, end: int, most: int) -> Windows:
    """The windows of an interval; one if it is None. Raises QueryError, naming `interval`, for more than `most`, and for a length that a zone's days cannot be
    divided by."""
    if interval is None:
        return Windows([start])
    width = _in_utc(interval, calendar, start, end)
    about = width or (interval.width if interval.width else interval.count * ({**DAYS, "mo": 28, "y": 365}[interval.unit or "d"]) * DAY)
    if (end - 1 - start) // about >= most or (width and (end - 1 - floor(start, width)) // width >= most):
        raise QueryError(
            f"interval: from {calendar.text(start)} to {calendar.text(end)} there are more than {most:,} windows of {interval.text}",
            hint="ask for a shorter range or a longer interval",
        )
    if width:
        return Windows(range(floor(start, width), end, width), width)
    return Windows(_starts(interval, calendar, start, end))


def _in_utc(interval: Interval, calendar: Calendar, start: int, end: int) -> int | None:
    """The width of windows that are the same in UTC; None for those that are not."""
    if interval.unit in MONTHS:
        return None
    width = interval.width or interval.count * DAYS[interval.unit or "d"] * DAY
    if calendar.utc:
        return width
    if interval.width is None:
        return None
    if DAY % width:
        raise QueryError(
            f"interval: windows of {interval.text} do not divide the days of {calendar.name}",
            hint='use a length that divides a day ("15m", "6h"), whole days, or timezone "UTC"',
        )
    # Minutes and hours are the same everywhere but where an offset is no multiple of them. An offset that holds for less than a day is none we know of.
    days = range(start, end + DAY, DAY)
    return width if width <= HOUR and all(calendar.offset(day) % width == 0 for day in days) else None


def _starts(interval: Interval, calendar: Calendar, start: int, end: int) -> list[int]:
    """From the zone's calendar: the windows that [start, end) lies in."""
    found: set[int] = set()
    if interval.unit:
        wall = calendar.floor_wall(calendar.wall(start), interval.unit, interval.count)
        while (time := calendar.time(wall)) < end:
            found.add(time)
            try:
                wall = calendar.add_wall(wall, interval.count, interval.unit)
            except OverflowError:
                break
        return sorted(found)
    step = dt.timedelta(microseconds=interval.width or HOUR)
    wall, last = calendar.floor_wall(calendar.wall(start), "d"), calendar.wall(end)
    while wall <= last + step:
        found.add(calendar.time(wall))
        if step <= dt.timedelta(hours=1):  # an hour that the clocks show twice is two
            again = calendar.time(wall, fold=1)
            if calendar.wall(again) == wall:
                found.add(again)
        wall += step
    starts = sorted(found)
    return starts[max(bisect.bisect_right(starts, start) - 1, 0) : bisect.bisect_left(starts, end)]
