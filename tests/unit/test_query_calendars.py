"""Time zones and relative times, against the standard library, and days known to be short or long."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError
from penstock.model.units import DAY, HOUR, MINUTE, instant
from penstock.query.calendars import calendar_of
from penstock.query.ranges import parse_range, parse_time
from penstock.query.windows import Windows, parse_interval, windows

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
)
times = st.integers(instant("2005-01-01") // MINUTE, instant("2030-01-01") // MINUTE).map(lambda minute: minute * MINUTE)


def made(interval: str, zone: str, start: str | int, end: str | int) -> Windows:
    calendar = calendar_of(zone)
    return windows(parse_interval(interval), calendar, calendar.parse(start, "start"), calendar.parse(end, "end"), 10**6)


def wall(time: int, zone: str) -> dt.datetime:
    """As the standard library has it."""
    return dt.datetime.fromtimestamp(time // 10**6, zoneinfo.ZoneInfo(zone))


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    time=times,
    interval=st.sampled_from(("15m", "1h", "2h", "6h", "12h", "1d", "3d", "1w", "2w", "1mo", "3mo", "1y")),
)
@example(zone="Europe/Berlin", time=instant("2024-10-27T00:30"), interval="1h")
@example(zone="America/New_York", time=instant("2024-03-10T06:30"), interval="2h")
@example(zone="America/Sao_Paulo", time=instant("2018-11-04T05:00"), interval="1d")  # midnight is skipped
@example(zone="Pacific/Apia", time=instant("2011-12-30T12:00"), interval="1d")  # a day is skipped
@example(zone="Australia/Lord_Howe", time=instant("2024-04-06T15:30"), interval="1h")  # by half an hour
def test_windows_follow_one_another_without_a_gap_and_begin_where_the_walls_clock_says(zone: str, time: int, interval: str) -> None:
    end = time + (3 * DAY if interval.endswith(("m", "h")) else 500 * DAY)
    found = made(interval, zone, time, end)
    starts = list(found.starts)
    assert starts == sorted(set(starts)) and starts[0] <= time < end and starts[-1] < end
    for one in starts:
        shown = wall(one, zone)
        skipped = wall(one - MINUTE, zone).utcoffset() != shown.utcoffset()
        assert found.since(one)[0] == one
        if skipped:
            continue  # the clock jumps here: what is shown is not what was asked for, and there is no other place to begin
        minute = shown.hour * 60 + shown.minute
        if interval.endswith("m"):
            assert minute % 15 == 0
        elif interval.endswith("h"):
            assert minute % (60 * int(interval[:-1])) == 0
        else:
            assert minute == 0
        if interval.endswith("w"):
            assert shown.weekday() == 0
        if interval.endswith("mo"):
            assert shown.day == 1 and (shown.month - 1) % int(interval[:-2]) == 0
        if interval.endswith("y"):
            assert (shown.day, shown.month) == (1, 1)


@settings(deadline=None)
@given(zone=st.sampled_from(ZONES), time=times)
def test_every_instant_lies_in_the_local_day_that_a_clock_shows(zone: str, time: int) -> None:
    days = made("1d", zone, time - 3 * DAY, time + 3 * DAY)
    start = days.since(time)[0]
    assert wall(start, zone).date() == wall(time, zone).date()
    assert wall(start - 1_000_000, zone).date() < wall(time, zone).date()


def test_days_have_23_and_25_hours_where_the_clocks_change() -> None:
    spring = made("1h", "Europe/Berlin", "2024-03-31", "2024-04-01")
    autumn = made("1h", "Europe/Berlin", "2024-10-27", "2024-10-28")
    assert (len(spring), len(autumn)) == (23, 25)
    berlin = calendar_of("Europe/Berlin")
    assert [berlin.text(one)[11:] for one in autumn.starts[1:5]] == ["01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00", "03:00:00+01:00"]
    long = made("6h", "Europe/Berlin", "2024-10-27", "2024-10-28")
    assert [b - a for a, b in zip(long.starts, long.starts[1:])] == [7 * HOUR, 6 * HOUR, 6 * HOUR]
    two = made("2h", "America/New_York", "2024-03-10", "2024-03-11")  # 02:00 is skipped: the window begins at 03:00
    assert [calendar_of("America/New_York").text(one)[11:16] for one in two.starts[:3]] == ["00:00", "03:00", "04:00"]


def test_a_wall_time_that_is_skipped_is_when_the_clocks_jump_and_one_shown_twice_is_the_first() -> None:
    berlin = calendar_of("Europe/Berlin")
    assert berlin.parse("2024-03-31T02:30", "start") == instant("2024-03-31T01:00Z")
    assert berlin.parse("2024-10-27T02:30", "start") == instant("2024-10-27T00:30Z")
    assert berlin.parse("2024-10-27T02:30+01:00", "start") == instant("2024-10-27T01:30Z")
    assert berlin.parse("2024-10-27", "start") == instant("2024-10-26T22:00Z")
    assert berlin.parse(dt.datetime(2024, 1, 1), "start") == instant("2023-12-31T23:00Z")
    assert berlin.text(instant("2024-07-01T00:00Z")) == "2024-07-01T02:00:00+02:00"


NOW = "2024-05-15T14:35:10Z"  # a Wednesday, 16:35 in Berlin


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("today", "2024-05-15T00:00+02:00", NOW),
        ("yesterday", "2024-05-14T00:00+02:00", "2024-05-15T00:00+02:00"),
        ("last_1d", "2024-05-15T00:00+02:00", NOW),
        ("last_7d", "2024-05-09T00:00+02:00", NOW),
        ("last_7_days", "2024-05-09T00:00+02:00", NOW),
        ("last_60m", "2024-05-15T13:36:00Z", NOW),
        ("last_24h", "2024-05-14T15:00:00Z", NOW),
        ("last_60d", "2024-03-17T00:00+01:00", NOW),
        ("this_hour", "2024-05-15T14:00:00Z", NOW),
        ("this_week", "2024-05-13T00:00+02:00", NOW),
        ("this_month", "2024-05-01T00:00+02:00", NOW),
        ("this_y", "2024-01-01T00:00+01:00", NOW),
        ("previous_7d", "2024-05-08T00:00+02:00", "2024-05-15T00:00+02:00"),
        ("previous_week", "2024-05-06T00:00+02:00", "2024-05-13T00:00+02:00"),
        ("previous_2mo", "2024-03-01T00:00+01:00", "2024-05-01T00:00+02:00"),
        ("previous_year", "2023-01-01T00:00+01:00", "2024-01-01T00:00+01:00"),
    ],
)
def test_ranges_are_the_zones(text: str, start: str, end: str) -> None:
    found = parse_range(text, calendar_of("Europe/Berlin"), instant(NOW))
    assert found[:2] == (instant(start), instant(end))
    assert found[2] == (end == NOW)


@pytest.mark.parametrize(
    "text", ["last", "last_", "last_0d", "last_7x", "this_2d", "next_7d", "tomorrow", "7d", "", None, 7, "last_99999y", "previous_7d_"]
)
def test_what_is_no_range_is_refused_by_name(text: object) -> None:
    with pytest.raises(QueryError) as raised:
        parse_range(text, calendar_of("UTC"), instant(NOW))
    assert raised.value.message.startswith("range: ") and raised.value.hint


@pytest.mark.parametrize(
    ("text", "time", "relative"),
    [
        ("now", NOW, True),
        ("today", "2024-05-15T00:00+02:00", True),
        ("-24h", "2024-05-14T14:35:10Z", True),
        ("now-90m", "2024-05-15T13:05:10Z", True),
        ("-60d", "2024-03-16T16:35:10+01:00", True),  # at the same time of day
        ("-3mo", "2024-02-15T16:35:10+01:00", True),
        ("+1d", "2024-05-16T16:35:10+02:00", True),
        ("2024-05-01", "2024-05-01T00:00+02:00", False),
        ("2024-05-01T00:00Z", "2024-05-01T00:00Z", False),
    ],
)
def test_instants_may_be_relative(text: str, time: str, relative: bool) -> None:
    assert parse_time(text, "start", calendar_of("Europe/Berlin"), instant(NOW)) == (instant(time), relative)


def test_months_that_are_shorter_end_on_their_last_day() -> None:
    berlin = calendar_of("Europe/Berlin")
    at = berlin.parse("2024-03-31T10:00", "start")
    assert berlin.text(berlin.add(at, -1, "mo")) == "2024-02-29T10:00:00+01:00"
    assert berlin.text(berlin.add(at, -13, "mo")) == "2023-02-28T10:00:00+01:00"
    assert berlin.text(berlin.add(at, 9, "mo")) == "2024-12-31T10:00:00+01:00"


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "europe berlin", "/etc/passwd"])
def test_what_is_no_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(QueryError, match="timezone: .* is no time zone") as raised:
        calendar_of(name)
    assert raised.value.hint


def test_lengths_that_do_not_divide_a_zones_days_are_refused() -> None:
    assert len(made("5h", "UTC", "2024-05-01", "2024-05-02")) == 5
    with pytest.raises(QueryError, match="interval: windows of 5h do not divide the days of Europe/Berlin"):
        made("5h", "Europe/Berlin", "2024-05-01", "2024-05-02")
    with pytest.raises(QueryError, match="interval: .* more than 1,000,000 windows"):
        made("1m", "Europe/Berlin", "2020-01-01", "2024-05-02")
    for nonsense in ("0d", "soon", "1x", "-1h", "1.5h"):
        with pytest.raises(QueryError, match="^interval: "):
            parse_interval(nonsense)


@given(
    st.integers(0, 4_000_000_000 // 60),
    st.sampled_from([1, 5, 60, 7 * 60, 1440, 3000, 7 * 1440]),
    st.integers(0, 200),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    st.integers(0, 1),
)
@settings(deadline=None)
def test_the_texts_of_windows_are_those_of_each(first: int, step: int, count: int, zone: str, odd: int) -> None:
    calendar, minute = calendar_of(zone), 60 * 10**6
    times = range(first * minute + odd, (first + step * count) * minute + odd, step * minute)
    assert calendar.texts(times) == list(map(calendar.text, times))
