"""The period before: which range it is, which window is compared with which, and by how much a measure changed."""

from __future__ import annotations

import datetime as dt
import fractions
from typing import Any, Iterable, Mapping, Sequence

from penstock.errors import QueryError, UsageError
from penstock.query.measures import Output
from penstock.query.merge import Group
from penstock.query.request import COMPARISONS, Question


def earlier(question: Question) -> Question:
    """The question about the period before. Raises QueryError, naming `compare`.

    The same time last week, month or year: start and end moved on the zone's calendar, each by itself (a month is compared with the whole one before it).
    The previous period: as many days before, if it is made of whole ones; else as many microseconds.
    """
    calendar, away = question.calendar, COMPARISONS[question.compare or ""]
    try:
        if away is not None:
            count, unit = away
            start, end = (calendar.add(time, -count, unit) for time in (question.start, question.end))
        else:
            days = calendar.whole_days(question.start, question.end)
            end = question.start
            start = calendar.add(end, -days, "d") if days else end - (question.end - question.start)
    except UsageError:
        start = end = -1
    if start < 0:
        raise QueryError(f"compare: the {question.compare} lies before 1970", hint="leave compare out, or ask for a later range")
    return question.over(start, max(end, start + 1))


class Pair:
    """Windows of a range and those of an earlier one: first with first where they are months and years; else those as far from the first on the wall's clock."""

    def __init__(self, now: Question, before: Question, kept_now: Iterable[int], kept_before: Iterable[int]) -> None:
        """kept_now, kept_before: the windows of each that are in the answer; the others are no longer kept by the table."""
        present, earlier = set(kept_now), set(kept_before)
        others = {key: window for window, key in self._keys(before).items() if window in earlier}
        self.before_of = {window: others[key] for window, key in self._keys(now).items() if window in present and key in others}
        self.now_of = {before: window for window, before in self.before_of.items()}

    @staticmethod
    def _keys(question: Question) -> dict[int, Any]:
        starts = question.windows.starts
        if question.interval is None or question.interval.unit in ("mo", "y") or question.calendar.utc:
            return {window: place for place, window in enumerate(starts)}
        first = question.calendar.wall(starts[0])
        keys: dict[int, Any] = {}
        taken: set[Any] = set()
        for window in starts:
            key: tuple[dt.timedelta, int] = question.calendar.wall(window) - first, 0
            key = (key[0], 1) if key in taken else key  # an hour that the clocks show twice
            taken.add(key)
            keys[window] = key
        return keys

    def earlier(
        self, before: Mapping[Group, Sequence[Any]], window: int, group: tuple[Any, ...], nothing: Sequence[Any]
    ) -> Sequence[Any] | None:
        """The values of a group in the window that one is compared with; those of no records where the group has none, None where there is no such window, or it is no longer kept."""
        other = self.before_of.get(window)
        return None if other is None else before.get((other, group), nothing)

    def earlier_rest(self, before: Mapping[int, Sequence[Any]], window: int, nothing: Sequence[Any]) -> Sequence[Any] | None:
        """The same for the groups left out."""
        other = self.before_of.get(window)
        return None if other is None else before.get(other, nothing)

    def only_before(self, now: Mapping[Group, Any], before: Iterable[Group]) -> list[Group]:
        """The groups that had records, and have none any more."""
        moved = ((self.now_of[window], group) for window, group in before if window in self.now_of)
        return [one for one in moved if one not in now]


def change(outputs: Sequence[Output], now: Sequence[Any], before: Sequence[Any] | None) -> list[Any]:
    """For each measure what it was, by how much it changed, and in percent; None where there is nothing to compare, or it was 0."""
    found: list[Any] = []
    for place, one in enumerate(outputs):
        value, was = now[place], None if before is None else before[place]
        found.append(was)
        if one.type == "timestamp":
            continue
        moved = None if value is None or was is None else value - was
        found.append(moved)
        found.append(None if moved is None or not was else 100 * float(fractions.Fraction(moved) / abs(fractions.Fraction(was))))
    return found
