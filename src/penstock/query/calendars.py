"""A time zone's calendar: local days, weeks, months and years as event times, and event times as text with the zone's offset."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
import zoneinfo
from typing import Any, Sequence

import numpy as np

from penstock.errors import QueryError, UsageError
from penstock.model.units import DAY, HOUR, MINUTE, from_datetime, instant, iso, to_datetime

LENGTHS = {"m": MINUTE, "h": HOUR}  # of units that the clock has; those of the calendar have no length of their own
MONTHS = {"mo": 1, "y": 12}
DAYS = {"d": 1, "w": 7}
_NAMES = {"minute": "m", "min": "m", "hour": "h", "day": "d", "week": "w", "month": "mo", "year": "y"}
UNITS = {unit: unit for unit in (*LENGTHS, *DAYS, *MONTHS)} | _NAMES | {f"{name}s": unit for name, unit in _NAMES.items()}
_WITH_ZONE = re.compile(r".*[T ].*(?:Z|[+-]\d\d(?::?\d\d)*)")
_CLOCK = [f"{hour:02}:{minute:02}:00" for hour in range(24) for minute in range(60)]  # the minutes of a day
_CLOCK_UTC = [f"T{minute}Z" for minute in _CLOCK]
_EPOCH = dt.datetime(1970, 1, 1)
_MONDAY = dt.datetime(1970, 1, 5)


class Calendar:
    """The calendar of a zone. Event times are microseconds since 1970 in UTC; wall times are datetimes without a zone.

    A wall time that the clocks skip stands for the instant at which they do; one that they show twice, for the first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.utc = name.upper() in ("UTC", "Z", "ETC/UTC")
        try:
            self.zone: dt.tzinfo = dt.timezone.utc if self.utc else zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise QueryError(
                f"timezone: {name!r} is no time zone", hint='use an IANA name such as "Europe/Berlin", "America/New_York", "UTC"'
            ) from None

    def wall(self, time: int) -> dt.datetime:
        """What a clock on the wall shows at an event time."""
        return to_datetime(time).astimezone(self.zone).replace(tzinfo=None)

    def time(self, wall: dt.datetime, fold: int = 0) -> int:
        """The event time of a wall time. fold: 1 for the second of two."""
        time = from_datetime(wall.replace(tzinfo=self.zone, fold=fold))
        if fold == 0 and not self.utc and self.wall(time) != wall.replace(fold=0):  # skipped: the clock stood still there, so to speak
            return self._change(from_datetime(wall.replace(tzinfo=self.zone, fold=1)), time)
        return time

    def _change(self, before: int, after: int) -> int:
        """The first instant that has the offset of `after`."""
        offset = self.offset(after)
        while before < after:
            middle = (before + after) // 2
            before, after = (before, middle) if self.offset(middle) == offset else (middle + 1, after)
        return after

    def offset(self, time: int) -> int:
        """How far the zone is ahead of UTC at an event time, in microseconds."""
        ahead = to_datetime(time).astimezone(self.zone).utcoffset()
        return 0 if ahead is None else ahead // dt.timedelta(microseconds=1)

    def text(self, time: int) -> str:
        """ISO 8601 with the zone's offset, Z for UTC."""
        return iso(time) if self.utc else to_datetime(time).astimezone(self.zone).isoformat()

    def texts(self, times: Sequence[int | None]) -> list[str | None]:
        """`text` of many, None for None: those of a day at once."""
        if self.utc and isinstance(times, range) and times and not (times.start % MINUTE or times.step % MINUTE):
            return _minutes(times)  # type: ignore[return-value]
        some = np.array([time for time in times if time is not None], np.int64)
        if len(some) < 24:
            return [None if time is None else self.text(time) for time in times]
        ends = np.zeros_like(some) if self.utc else some // DAY
        read: list[int] = []
        texts: list[str] = []
        for day in np.unique(ends).tolist():
            here = some if self.utc else some[ends == day]
            read += here.tolist()
            texts += self._texts(here, day)
        if read == times or read == list(times):
            return texts  # type: ignore[return-value]
        shown = dict(zip(read, texts))
        return [None if time is None else shown[time] for time in times]

    def _texts(self, here: np.ndarray[Any, np.dtype[np.int64]], day: int) -> list[str]:
        """`text` of event times, all of a day of UTC where this is not UTC's calendar."""
        offset = self.offset(day * DAY)
        if offset != self.offset((day + 1) * DAY) or offset % MINUTE:  # the clocks change that day
            return list(map(self.text, here.tolist()))
        ahead = "Z" if self.utc else f"{'-' if offset < 0 else '+'}{abs(offset) // HOUR:02}:{abs(offset) % HOUR // MINUTE:02}"
        minutes, rest = np.divmod(here + offset, MINUTE)
        if not rest.any():
            dates, clock = np.divmod(minutes, len(_CLOCK))
            names = {date: np.datetime_as_string(np.datetime64(date, "D")) + "T" for date in set(dates.tolist())}
            return [names[date] + _CLOCK[minute] + ahead for date, minute in zip(dates.tolist(), clock.tolist())]
        shown = np.datetime_as_string((here + offset).view("datetime64[us]"), unit="us").tolist()  # type: ignore[call-overload]
        return [text.removesuffix(".000000") + ahead for text in shown]

    def parse(self, value: str | int | dt.datetime, what: str) -> int:
        """The event time of an ISO 8601 text or a datetime, in this zone unless it has one of its own; or of a number. Raises UsageError, naming `what`."""
        time = instant(value, what)
        if self.utc or isinstance(value, int):
            return time
        own = value.tzinfo is not None if isinstance(value, dt.datetime) else bool(_WITH_ZONE.fullmatch(str(value).strip()))
        return time if own else self.time(to_datetime(time).replace(tzinfo=None))

    def floor(self, time: int, unit: str, count: int = 1) -> int:
        """Where the minute, hour, day, week, month or year starts that an event time lies in; of days and more, `count` of them together, counted from 1970."""
        if unit in LENGTHS:
            return time - (time + self.offset(time)) % LENGTHS[unit]
        return self.time(self.floor_wall(self.wall(time), unit, count))

    def floor_wall(self, wall: dt.datetime, unit: str, count: int = 1) -> dt.datetime:
        """The same for a wall time, in days and more."""
        if unit in MONTHS:
            count *= MONTHS[unit]
            months = ((wall.year - 1970) * 12 + wall.month - 1) // count * count
            return dt.datetime(1970 + months // 12, months % 12 + 1, 1)
        count *= DAYS[unit]
        anchor = _MONDAY if count % 7 == 0 else _EPOCH
        return anchor + dt.timedelta(days=(wall - anchor).days // count * count)

    def add(self, time: int, count: int, unit: str) -> int:
        """An event time so many units later, or earlier: minutes and hours as they pass, days and more on the calendar, at the same wall time. The 31st becomes
        the last of a shorter month. Raises UsageError beyond the years of a calendar."""
        try:
            return time + count * LENGTHS[unit] if unit in LENGTHS else self.time(self.add_wall(self.wall(time), count, unit))
        except OverflowError:
            raise UsageError(f"{count:+}{unit} from {self.text(time)} is in no year that a calendar has") from None

    @staticmethod
    def add_wall(wall: dt.datetime, count: int, unit: str) -> dt.datetime:
        """The same for a wall time, in days and more. Raises OverflowError."""
        if unit in DAYS:
            return wall + dt.timedelta(days=count * DAYS[unit])
        months = wall.year * 12 + wall.month - 1 + count * MONTHS[unit]
        if not 12 <= months < 10_000 * 12:
            raise OverflowError
        year, month = months // 12, months % 12 + 1
        return wall.replace(year=year, month=month, day=min(wall.day, calendar.monthrange(year, month)[1]))

    def whole_days(self, start: int, end: int) -> int | None:
        """How many days there are between two midnights; None if either is none."""
        first, last = self.wall(start), self.wall(end)
        if self.floor(start, "d") != start or self.floor(end, "d") != end:
            return None
        return (self.floor_wall(last, "d") - self.floor_wall(first, "d")).days


def _minutes(times: range) -> list[str]:
    """`Calendar.text` in UTC of whole minutes."""
    day, at, step = len(_CLOCK), times.start // MINUTE, times.step // MINUTE
    stop = at + step * len(times)
    days = range(at // day, (stop - step) // day + 1)
    names = np.datetime_as_string(np.array(days, "datetime64[D]")).tolist()
    if step % day == 0:
        clock = _CLOCK_UTC[at % day]
        return [name + clock for name in names[:: step // day]]
    texts: list[str] = []
    while at < stop:
        name, minute = names[at // day - days.start], at % day
        clocks = _CLOCK_UTC[minute : minute + stop - at : step]
        texts += [name + clock for clock in clocks]
        at += step * len(clocks)
    return texts


@functools.lru_cache(maxsize=64)
def calendar_of(name: str) -> Calendar:
    """The calendar of a time zone's IANA name. Raises QueryError, naming `timezone`."""
    return Calendar(name)


def unit_of(text: str, what: str) -> str:
    """The unit that a text stands for: "d" for "d", "day", "days". Raises QueryError, naming `what`."""
    if text not in UNITS:
        raise QueryError(
            f"{what}: {text!r} is no unit of time", hint=f"use {', '.join(dict.fromkeys(UNITS.values()))}, or day, week, month"
        )
    return UNITS[text]


__all__ = ["Calendar", "DAYS", "LENGTHS", "MONTHS", "UNITS", "calendar_of", "unit_of"]
