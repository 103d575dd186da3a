"""Durations, granularities and UTC instants as text."""

from __future__ import annotations

import datetime as dt
import functools
import re

from penstock.errors import DeclarationError, UsageError

SECOND = 1_000_000  # all event times are integers: microseconds since 1970-01-01T00:00:00Z
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND

_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}
_DURATION = re.compile(r"(\d+)(us|ms|[smhdwy])")


def duration(text: str | int, what: str = "duration") -> int:
    """Microseconds of a duration such as "5s", "90d", "5y" (a year is 365 days). An int is taken as microseconds already.

    Raises DeclarationError, naming `what`.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise DeclarationError(
            f"{what}: {text!r} is not a duration", hint='write a whole number and a unit: "30s", "5m", "1h", "90d", "5y"'
        )
    return int(match[1]) * _UNITS[match[2]]


@functools.lru_cache(1024)
def duration_text(micros: int) -> str:
    """A text that `duration` reads back as `micros`, in the largest unit that gives a whole number (weeks apart: 7 days are "7d")."""
    for unit in ("y", "d", "h", "m", "s", "ms"):
        if micros and micros % _UNITS[unit] == 0:
            return f"{micros // _UNITS[unit]}{unit}"
    return f"{micros}us" if micros else "0s"


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def to_datetime(micros: int) -> dt.datetime:
    """The UTC datetime of an event time."""
    return EPOCH + dt.timedelta(microseconds=micros)


def from_datetime(moment: dt.datetime) -> int:
    """The event time of a datetime; one without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def instant(text: str | int | dt.datetime, what: str = "time") -> int:
    """The event time of an ISO 8601 text ("2015-05-17", "2015-05-17T10", "2015-05-17T10:05:03.5Z"), a datetime, or itself.

    Raises UsageError, naming `what`.
    """
    if isinstance(text, dt.datetime):
        return from_datetime(text)
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    try:
        # Python 3.10 takes neither hours alone nor any number of decimals.
        cleaned = re.sub(r"^(\d{4}-\d\d-\d\d[T ]\d\d)(?=$|[+-])", r"\1:00", str(text).strip().replace("Z", "+00:00"))
        cleaned = re.sub(r"\.(\d{1,6})(?=$|[+-])", lambda match: f".{match[1]:0<6}", cleaned)
        return from_datetime(dt.datetime.fromisoformat(cleaned))
    except ValueError:
        raise UsageError(
            f"{what}: {text!r} is not a time", hint="write it as ISO 8601, in UTC unless it has a zone: 2015-05-17T10:00"
        ) from None


def iso(micros: int) -> str:
    """ISO 8601 in UTC, to the second where that is exact."""
    return to_datetime(micros).isoformat(timespec="auto").replace("+00:00", "Z")


def hour_text(micros: int) -> str:
    """The hour that an event time lies in: "2015-05-17T10"."""
    return to_datetime(micros).strftime("%Y-%m-%dT%H")
