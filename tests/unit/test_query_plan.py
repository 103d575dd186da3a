"""Which windows are read: every instant of the range exactly once, from the coarsest window that may be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError
from penstock.kernels import RollupPlan
from penstock.model import By, Count, Rollup, Schema, String, Timestamp
from penstock.model.units import DAY, HOUR, MINUTE, instant
from penstock.query.plan import ALWAYS, NEVER, choose, cover
from penstock.query.request import ceil, floor, parse

WIDTHS = (MINUTE, HOUR, DAY)
minutes = st.integers(0, 5 * 1440).map(lambda minute: minute * MINUTE)


@settings(deadline=None)
@given(
    first=minutes,
    second=minutes,
    folded=st.one_of(minutes, st.sampled_from((ALWAYS, NEVER))),
    kept=st.tuples(*[st.one_of(minutes, st.just(ALWAYS))] * 3),
    top=st.integers(0, 2),
)
def test_each_minute_of_a_range_is_read_once_or_hidden(first: int, second: int, folded: int, kept: tuple[int, int, int], top: int) -> None:
    start, stop = sorted((first, second))
    kept = tuple(one if one == ALWAYS else one // width * width for one, width in zip(kept, WIDTHS))  # type: ignore[assignment]
    segments, hidden = cover(WIDTHS, kept, top, start, stop, folded)
    seen: dict[int, int] = {}
    for one in segments:
        width = WIDTHS[one.level]
        assert one.level <= top and one.start < one.stop and one.start % width == one.stop % width == 0
        assert one.level == 0 or one.stop <= folded
        for minute in range(one.start, one.stop, MINUTE):
            assert minute not in seen
            seen[minute] = one.level
    gone = {minute for low, high in hidden for minute in range(low, high, MINUTE)}
    assert not gone & set(seen)
    assert gone | set(seen) == set(range(start, stop, MINUTE))
    for minute in range(start, stop, MINUTE):
        # The rule as a reader would say it: the coarsest level whose window is whole in the range and kept; then down while that window is not folded.
        fits = [
            level
            for level in range(top + 1)
            if floor(minute, WIDTHS[level]) >= start
            and floor(minute, WIDTHS[level]) + WIDTHS[level] <= stop
            and floor(minute, WIDTHS[level]) >= kept[level]
        ]
        if not fits:
            assert minute in gone
            continue
        level = fits[-1]
        while level and floor(minute, WIDTHS[level]) + WIDTHS[level] > folded:
            level -= 1
        assert seen[minute] == level


@settings(deadline=None)
@given(time=st.integers(0, 10**16), width=st.sampled_from((MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 14 * DAY)))
def test_windows_are_where_a_calendar_has_them(time: int, width: int) -> None:
    low, high = floor(time, width), ceil(time, width)
    assert low <= time <= high and time - low < width and high - time < width
    assert floor(low, width) == low == ceil(low, width)


def test_weeks_begin_on_monday() -> None:
    assert floor(instant("2024-03-01T12:30"), 7 * DAY) == instant("2024-02-26")


schema = Schema("s", time="ts", lateness="1h", fields={"ts": Timestamp("ms"), "site": String(), "country": String(), "city": String()})
rollup = Rollup(
    "r",
    of=schema,
    entity="site",
    measures={"n": Count()},
    by=[By("country", "city", keep={"1d": "5y"}), By(keep={"1m": "3d", "1h": "90d", "1d": "1y"}), By("country", keep={"1h": "90d"})],
)
plan = RollupPlan(rollup)
NOW = instant("2024-03-31T23:10")


def chosen(start: str, end: str, interval: str | None = None, by: tuple[str, ...] = (), newest: int | None = NOW) -> tuple[int, int, int]:
    question = parse(plan, entity="a", measures=None, start=start, end=end, interval=interval, by=by, where=None, order=None, limit=None)
    found = choose(rollup, question, newest)
    return found.breakdown, found.top, found.start


def test_a_larger_breakdown_answers_what_the_smaller_ones_do_not_have() -> None:
    assert chosen("2024-03-01", "2024-03-02", "1h", ("country",))[:2] == (2, 0)
    assert chosen("2024-01-03", "2024-03-02", "1d", ("country",))[:2] == (2, 0)
    assert chosen("2020-01-01", "2024-03-02", "1d", ("country",))[:2] == (0, 0)  # hours of countries are kept for 90 days only
    assert chosen("2020-01-01", "2024-03-02")[0] == 0
    assert chosen("2024-03-01", "2024-03-02")[0] == 1


def test_the_edges_of_a_range_are_read_from_finer_windows_where_these_are_kept() -> None:
    assert chosen("2024-03-01", "2024-03-31T23:07")[:2] == (1, 2)
    assert chosen("2024-03-01T07:00", "2024-03-31T23:07")[:2] == (1, 2)
    with pytest.raises(QueryError, match=r"start: 2024-03-01T07:30:00Z lies inside a 1h window, .* \(1m for 3d\)") as raised:
        chosen("2024-03-01T07:30", "2024-03-31T23:07")
    assert raised.value.hint == "use 2024-03-01T07:00:00Z or 2024-03-01T08:00:00Z"
    with pytest.raises(QueryError, match="end: 2024-03-20T07:30:00Z lies inside a 1h window"):
        chosen("2024-03-01", "2024-03-20T07:30")


def test_the_first_window_of_an_answer_is_kept_whole() -> None:
    assert chosen("2024-01-01", "2024-03-31", "10m")[2] == ceil(NOW - 3 * DAY, 10 * MINUTE)
    assert chosen("2023-01-01", "2024-03-31", "2h", ("country",))[2] == ceil((NOW - 90 * DAY) // HOUR * HOUR, 2 * HOUR)
    assert chosen("2024-01-01", "2024-01-02", "10m", newest=None)[2] == instant("2024-01-01")


def test_a_range_with_too_many_windows_to_read_is_refused() -> None:
    minutes_only = Rollup("r", of=schema, entity="site", measures={"n": Count()}, by=[By(keep={"1m": "90d"})])
    question = parse(
        plan, entity="a", measures=None, start="2001-01-01", end="2024-03-31", interval=None, by=(), where=None, order=None, limit=None
    )
    with pytest.raises(QueryError, match="more than 1,000,000 windows to read"):
        choose(minutes_only, question, None)
