"""Time zones, totals, the largest groups, comparisons and small audiences, against the events themselves."""

from __future__ import annotations

import datetime as dt
import math
import random
import zoneinfo
from collections.abc import Callable, Iterator
from decimal import Decimal as D
from typing import Any

import pytest
from query_world import BEGIN, COUNTRIES, DAY, DAYS, HOUR, KEYS, MINUTE, World, by_site, events, iso, measures

from penstock.errors import QueryError
from penstock.model import Uniques
from penstock.query import Analytics, Answer
from penstock.rollup.registry import Registry
from penstock.table import Table
from penstock.table.memory import MemoryTable
from penstock.table.sqlite import SqliteTable

END = BEGIN + DAYS * DAY
SPRING = (
    int(dt.datetime(2024, 3, 31, tzinfo=dt.timezone.utc).timestamp()) * 10**6 - BEGIN
)  # moves the world's Friday to the day Berlin's clocks change
Events = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def new_table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Table]]:
    made: list[Table] = []

    def new() -> Table:
        made.append(MemoryTable() if request.param == "memory" else SqliteTable(tmp_path_factory.mktemp("table") / "cells.db"))
        return made[-1]

    yield new
    for table in made:
        table.close()


def written(table: Table, moved: int = 0, **kept: Any) -> World:
    """A world of two partitions, all folded that can be, its events moved by so many microseconds."""
    world = World(table, rollup=by_site(**kept))
    for partition in (0, 1):
        made = [dict(one, ts=one["ts"] + moved) for one in events(20240301 + partition, 1500)]
        for start in range(0, len(made), 500):
            world.produce(partition, made[start : start + 500])
            world.count(partition)
    return world


@pytest.fixture(scope="module")
def world(new_table: Callable[[], Table]) -> World:
    return written(new_table())


@pytest.fixture(scope="module")
def spring(new_table: Callable[[], Table]) -> World:
    return written(new_table(), SPRING - 2 * DAY)


def of(world: World, start: int, end: int, site: str = "a") -> Events:
    """The events of a range."""
    return [one for one in world.counted if one["site"] == site and start <= one["ts"] < end]


def values(members: Events) -> dict[str, Any]:
    """The measures of some events as an answer has them, of users the estimate."""
    found = measures(members)
    return {**found, "users": found["users"][1]}


def same(row: dict[str, Any], members: Events, but: tuple[str, ...] = ("last",)) -> None:
    wanted = {name: value for name, value in values(members).items() if name not in but and name in row}
    assert {name: row[name] for name in wanted} == wanted


# Time zones.


def local(at: int, zone: str) -> dt.datetime:
    return dt.datetime.fromtimestamp(at / 10**6, zoneinfo.ZoneInfo(zone))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Tokyo", "Pacific/Honolulu"])
@pytest.mark.parametrize("by", [(), ("country",)])
def test_a_local_day_is_merged_from_hours(spring: World, zone: str, by: tuple[str, ...]) -> None:
    first = min(one["ts"] for one in spring.counted)
    day = local(first, zone).date() + dt.timedelta(days=1)
    last = day + dt.timedelta(days=3)
    answer = Analytics(spring).query("by_site", entity="a", start=str(day), end=str(last), timezone=zone, interval="1d", by=by)
    wanted: dict[tuple[Any, ...], Events] = {}
    for one in spring.counted:
        shown = local(one["ts"], zone)
        if one["site"] == "a" and day <= shown.date() < last:
            midnight = dt.datetime.combine(shown.date(), dt.time(), zoneinfo.ZoneInfo(zone)).isoformat()
            wanted.setdefault((midnight, *(KEYS[name](one) for name in by)), []).append(one)
    assert {(row["time"], *(row[name] for name in by)) for row in answer} == set(wanted)
    for row in answer:
        same(row, wanted[(row["time"], *(row[name] for name in by))])
    assert (answer.timezone, "1d" in answer.served_from) == (zone, False)
    assert answer.start == dt.datetime.combine(day, dt.time(), zoneinfo.ZoneInfo(zone)).isoformat()


def test_a_day_on_which_the_clocks_change_has_23_hours(spring: World) -> None:
    answer = Analytics(spring).query(
        "by_site", entity="a", start="2024-03-31", end="2024-04-01", timezone="Europe/Berlin", interval="1h", totals=True
    )
    assert len(answer) == 23 and [row["time"][11:19] for row in answer][1:3] == ["01:00:00", "03:00:00"]
    for row in answer:
        start = int(dt.datetime.fromisoformat(row["time"]).timestamp()) * 10**6
        same(row, of(spring, start, start + HOUR))
    assert answer.totals is not None
    same(answer.totals, of(spring, BEGIN + SPRING - HOUR, BEGIN + SPRING + 22 * HOUR))


def test_weeks_and_months_are_read_from_days_where_they_can_be(world: World) -> None:
    for zone, served in (("UTC", ("1d",)), ("Europe/Berlin", ("1d", "1h"))):
        answer = Analytics(world).query(
            "by_site", entity="a", start="2024-03-02", end="2024-03-05", timezone=zone, interval="1w", measures=["views"]
        )
        monday = int(dt.datetime(2024, 3, 4, tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()) * 10**6
        first = monday - 2 * DAY
        assert [row["views"] for row in answer] == [
            values(of(world, first, monday))["views"],
            values(of(world, monday, monday + DAY))["views"],
        ]
        assert answer.served_from == served and answer.rows[1]["time"].startswith("2024-03-04T00:00:00")
    months = Analytics(world).query(
        "by_site", entity="a", start="2024-02-01", end="2024-04-01", interval="1mo", measures=["views", "users"]
    )
    assert [row["time"] for row in months] == ["2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"]
    same(months.rows[1], of(world, BEGIN, END))


def test_a_zone_that_cuts_windows_is_refused_with_the_granularity_that_would_do(world: World) -> None:
    asked = {"entity": "a", "range": "previous_2d", "now": END, "timezone": "Asia/Kolkata", "interval": "1d", "measures": ["views"]}
    minutes = Analytics(world).query("by_site", **asked)
    start = END - 2 * DAY - 5 * HOUR - 30 * MINUTE
    assert [row["views"] for row in minutes] == [values(of(world, start + day * DAY, start + (day + 1) * DAY))["views"] for day in (0, 1)]
    with pytest.raises(QueryError, match="timezone: Asia/Kolkata is 330m from UTC") as raised:
        Analytics(world).query("by_site", **asked, by=["country"])
    assert raised.value.hint is not None and "30m" in raised.value.hint


def test_days_of_a_zone_whose_hours_are_not_kept_any_more_are_left_out_and_named(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), hours="2d")
    answer = Analytics(world).query(
        "by_site", entity="a", start="2024-03-01", end="2024-03-06", timezone="Europe/Berlin", interval="1d", by=["status"]
    )
    assert {row["time"] for row in answer} <= {f"2024-03-0{day}T00:00:00+01:00" for day in (4, 5)}
    assert [
        reason for reason in answer.incomplete if reason.startswith("windows before 2024-03-04T00:00:00+01:00") or "2024-03-05" in reason
    ]


def test_ranges_up_to_now_end_with_the_window_that_runs(world: World) -> None:
    now = BEGIN + 3 * DAY + 7 * HOUR + 12 * MINUTE + 1
    ask = {"entity": "a", "now": now, "measures": ["views"], "totals": True}
    for by, end in (((), now - 1 + MINUTE), (("country",), BEGIN + 3 * DAY + 8 * HOUR)):
        for named, start in (
            ({"range": "today"}, BEGIN + 3 * DAY),
            ({"range": "last_2d"}, BEGIN + 2 * DAY),
            ({"start": "2024-03-02"}, BEGIN + DAY),
        ):
            answer = Analytics(world).query("by_site", **ask, **named, by=by)
            assert (answer.start, answer.end, answer.totals) == (iso(start), iso(end), {"views": values(of(world, start, end))["views"]})
    midnight = Analytics(world).query("by_site", **{**ask, "now": BEGIN + 3 * DAY}, range="today")
    assert (midnight.start, midnight.end) == (iso(BEGIN + 3 * DAY), iso(BEGIN + 3 * DAY + MINUTE))
    day = Analytics(world).query("by_site", **ask, start="-24h", end="-1h")
    assert (day.start, day.end) == (iso(now - 1 - DAY), iso(now - 1 + MINUTE - HOUR))


# Totals, and the largest groups.


@pytest.mark.parametrize("seed", range(8))
def test_totals_are_of_all_groups_and_windows_whatever_is_left_out(world: World, seed: int) -> None:
    rng = random.Random(seed)
    by = rng.choice(((), ("country",), ("country", "status")))
    answer = Analytics(world).query(
        "by_site",
        entity="a",
        start=BEGIN,
        end=END,
        interval=rng.choice((None, "1d", "12h")),
        by=by,
        totals=True,
        limit=rng.choice((None, 1, 3)),
        offset=rng.choice((0, 2)),
    )
    assert answer.totals is not None and answer.row_count is not None
    same(answer.totals, of(world, BEGIN, END), ())
    assert answer.row_count >= len(answer)


@pytest.mark.parametrize("measure", ["views", "spend", "users", "ctr", "dearest"])
@pytest.mark.parametrize("interval", [None, "1d"])
def test_top_keeps_the_groups_that_are_largest_over_the_whole_range(world: World, measure: str, interval: str | None) -> None:
    whole = {country: values([one for one in of(world, BEGIN, END) if one["country"] == country]) for country in COUNTRIES}
    largest = sorted(COUNTRIES, key=lambda country: (-whole[country][measure], country))[:2]
    answer = Analytics(world).query(
        "by_site", entity="a", start=BEGIN, end=END, interval=interval, by=["country"], order=f"-{measure}", top=2, other=True, totals=True
    )
    assert {row["country"] for row in answer} == set(largest)
    if interval is None:
        assert [row["country"] for row in answer] == largest
    assert answer.other is not None and answer.totals is not None
    for window, row in zip(range(BEGIN, END, DAY if interval else END - BEGIN), answer.other):
        rest = [one for one in of(world, window, window + (DAY if interval else END - BEGIN)) if one["country"] not in largest]
        same(row, rest)
        assert "country" not in row and row.get("time", iso(BEGIN)) == iso(window)
    same(answer.totals, of(world, BEGIN, END), ())


def test_an_order_by_an_estimate_says_which_places_are_not_sure(world: World) -> None:
    asked = {"entity": "a", "start": BEGIN, "end": END, "by": ["country"], "measures": ["users", "views"]}
    for more in ({"order": "-users", "limit": 2}, {"order": "-users", "top": 2}):
        ranking = Analytics(world).query("by_site", **asked, **more).ranking
        assert ranking is not None and ranking.measure == "users" and ranking.error == pytest.approx(1.04 / math.sqrt(2**11))
        order = sorted((people([one for one in of(world, BEGIN, END) if one["country"] == country]) for country in COUNTRIES), reverse=True)
        near = [a - b <= 2 * ranking.error * math.hypot(a, b) for a, b in zip(order, order[1:])]
        assert len(ranking.unsure) == near[0] + (near[0] or near[1])
        assert ranking.contenders == sum(order[1] - one <= 2 * ranking.error * math.hypot(order[1], one) for one in order[2:]) >= 1
    assert Analytics(world).query("by_site", **asked, order="-views", limit=2).ranking is None
    apart = (
        Analytics(world)
        .query("by_site", entity="a", start=BEGIN, end=BEGIN + 4 * DAY + 12 * HOUR, interval="4d", measures=["users"], order="-users")
        .ranking
    )
    assert apart is not None and (apart.unsure, apart.contenders) == ((), 0)


def test_pages_of_rows(world: World) -> None:
    asked = {"entity": "a", "start": BEGIN, "end": END, "by": ["country", "status"], "order": "-views", "measures": ["views"]}
    analytics = Analytics(world)
    whole = analytics.query("by_site", **asked)
    pages = [analytics.query("by_site", **asked, limit=7, offset=at) for at in range(0, 21, 7)]
    assert [row for page in pages for row in page] == whole.rows and {page.row_count for page in pages} == {len(whole)}
    assert analytics.query("by_site", **asked, offset=1000).rows == []


# Comparison.


def changed(now: Any, before: Any) -> tuple[Any, Any]:
    if now is None or before is None:
        return None, None
    return now - before, None if not before else pytest.approx(100 * float(now - before) / float(before))


@pytest.mark.parametrize(("compare", "away"), [("previous_period", 2 * DAY), ("previous_day", DAY)])
@pytest.mark.parametrize("by", [(), ("country",)])
@pytest.mark.parametrize("interval", [None, "1d", "6h"])
def test_each_row_is_compared_with_the_same_window_before(
    world: World, compare: str, away: int, by: tuple[str, ...], interval: str | None
) -> None:
    start, end, width = BEGIN + 2 * DAY, BEGIN + 4 * DAY, {None: 2 * DAY, "1d": DAY, "6h": 6 * HOUR}[interval]
    answer = Analytics(world).query("by_site", entity="a", start=start, end=end, interval=interval, by=by, compare=compare, totals=True)
    assert answer.previous is not None and (answer.previous.start, answer.previous.end) == (iso(start - away), iso(end - away))
    seen = set()
    for row in answer:
        window = int(dt.datetime.fromisoformat(row.get("time", iso(start)).replace("Z", "+00:00")).timestamp()) * 10**6
        seen.add((window, *(row[name] for name in by)))

        def members(at: int, row: dict[str, Any] = row) -> Events:
            return [one for one in of(world, at, at + width) if all(KEYS[name](one) == row[name] for name in by)]

        same(row, members(window))
        before = values(members(window - away))
        now = values(members(window))
        for name in ("views", "spend", "users", "ctr", "cheapest"):
            assert row[f"{name}_previous"] == before[name], name
            assert (row[f"{name}_change"], row[f"{name}_percent"]) == changed(now[name], before[name]), name
        assert row["last_previous"] == before["last"] and "last_change" not in row
    groups = {tuple(KEYS[name](one) for name in by) for one in of(world, start - away, end)}
    assert {tuple(group) for _, *group in seen} == groups
    assert answer.totals is not None
    assert answer.totals["views_previous"] == values(of(world, start - away, end - away))["views"]


def test_a_change_against_nothing_has_no_percent(world: World) -> None:
    row = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + DAY, compare="previous_day").rows[0]
    assert (row["views_previous"], row["views_change"], row["views_percent"]) == (0, row["views"], None)
    assert (row["cheapest_previous"], row["cheapest_change"], row["ctr_previous"], row["ctr_percent"]) == (None, None, None, None)


def test_what_is_no_longer_kept_is_nothing_to_compare_with(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), minutes="3d")
    now = max(one["ts"] for one in world.counted)
    kept = (now - 3 * DAY) // MINUTE * MINUTE
    start = -(-(kept + DAY - HOUR) // HOUR) * HOUR
    answer = Analytics(world).query(
        "by_site", entity="a", start=start, end=start + 2 * HOUR, interval="1m", compare="previous_day", measures=["views"]
    )
    before = [row["views_previous"] for row in answer]
    gone = (kept - (start - DAY)) // MINUTE
    assert 0 < gone < 120 and before[:gone] == [None] * gone and None not in before[gone:]
    assert [reason for reason in answer.incomplete if reason.startswith("previous_day: windows before")]
    with pytest.raises(QueryError, match="compare: start: .* nothing is kept any more"):
        Analytics(world).query("by_site", entity="a", start=start, end=start + HOUR, interval="1m", compare="previous_week")


def test_a_group_that_is_gone_is_compared_with_what_it_was(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    world.produce(0, [one for one in events(5, 400) if one["ts"] < BEGIN + DAY or one["country"] != "FR"])
    world.count(0)
    answer = Analytics(world).query(
        "by_site", entity="a", start=BEGIN + DAY, end=BEGIN + 2 * DAY, by=["country"], compare="previous_day", measures=["views"]
    )
    gone = next(row for row in answer if row["country"] == "FR")
    assert (gone["views"], gone["views_percent"]) == (0, -100.0) and gone["views_previous"] > 0
    trend = Analytics(world).trending("by_site", "views", entity="a", start=BEGIN + DAY, end=BEGIN + 2 * DAY, by=["country"], falling=True)
    assert trend[0].group == {"country": "FR"} and trend[0].now == 0


def test_months_are_compared_with_whole_months(world: World) -> None:
    answer = Analytics(world).query(
        "by_site",
        entity="a",
        start="2024-04-01",
        end="2024-05-01",
        timezone="Europe/Berlin",
        interval="1d",
        compare="previous_month",
        measures=["views"],
    )
    assert answer.previous is not None and (answer.previous.start[:10], answer.previous.end[:10]) == ("2024-03-01", "2024-04-01")
    third = int(dt.datetime(2024, 3, 3, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).timestamp()) * 10**6
    assert answer.rows[2]["views_previous"] == values(of(world, third, third + DAY))["views"]


def test_hours_are_compared_by_the_walls_clock(spring: World) -> None:
    asked = {"entity": "a", "timezone": "Europe/Berlin", "interval": "1h", "measures": ["views"]}
    answer = Analytics(spring).query("by_site", **asked, start="2024-03-31", end="2024-04-01", compare="previous_day")
    before = {row["time"][11:19]: row["views"] for row in Analytics(spring).query("by_site", **asked, start="2024-03-30", end="2024-03-31")}
    assert {row["time"][11:19]: row["views_previous"] for row in answer} == {
        clock: views for clock, views in before.items() if clock != "02:00:00"
    }


# Small audiences.


def people(members: Events) -> int:
    """As the roll-up's sketch estimates them."""
    return int(values(members)["users"])


@pytest.mark.parametrize("minimum", [1, 40, 60, 75, 90, 10_000])
def test_what_few_people_stand_behind_is_hidden_and_cannot_be_had_by_subtraction(world: World, minimum: int) -> None:
    end = BEGIN + DAY
    asked = {"entity": "a", "start": BEGIN, "end": end, "by": ["country", "status"], "totals": True, "order": "-users"}
    open_rows = {(row["country"], row["status"]): row for row in Analytics(world).query("by_site", **asked)}
    answer = Analytics(world).query("by_site", **asked, minimum_audience=minimum)
    assert {(row["country"], row["status"]) for row in answer} == set(open_rows)
    shut, shown = [], []
    marks = {one.row: one.measures for one in answer.suppressed if one.where == "rows"}
    for at, row in enumerate(answer):
        group = [one for one in of(world, BEGIN, end) if (one["country"], one["status"]) == (row["country"], row["status"])]
        if all(row[name] is None for name in ("views", "clicks", "spend", "users", "ctr", "last")):
            shut.append(group)
            assert marks[at] == ("views", "clicks", "spend", "cheapest", "dearest", "last", "users", "ctr")
        else:
            shown.append(group)
            assert row == open_rows[row["country"], row["status"]] and people(group) >= minimum and at not in marks
    assert [row["users"] for row in answer] == [
        *sorted((people(group) for group in shown), reverse=True),
        *[None] * len(shut),
    ]  # and no order gives them away
    if shut and shown:
        assert people([one for group in shut for one in group]) >= minimum
    assert answer.totals is not None
    assert (answer.totals["views"] is None) == (minimum == 10_000) == ("totals" in {one.where for one in answer.suppressed})


def test_a_filtered_audience_hides_what_has_its_filter_and_no_more(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), clickers=Uniques("user", where={"kind": "click"}))
    asked = {"entity": "a", "start": BEGIN, "end": END, "by": ["country"], "measures": ["views", "clicks", "users", "clickers", "ctr"]}
    plain = {row["country"]: row for row in Analytics(world).query("by_site", **asked)}
    most = max(row["clickers"] for row in plain.values()) + 1
    assert most < min(row["users"] for row in plain.values())
    for row in Analytics(world).query("by_site", **asked, minimum_audience=most):
        assert row == {**plain[row["country"]], "clicks": None, "clickers": None, "ctr": None}


def test_windows_are_hidden_so_that_their_total_does_not_give_them_away(world: World) -> None:
    asked = {"entity": "a", "start": BEGIN, "end": BEGIN + DAY, "interval": "1h", "measures": ["users", "views"]}
    plain = Analytics(world).query("by_site", **asked)
    least = min(row["users"] for row in plain) + 1
    shut = [row["time"] for row in Analytics(world).query("by_site", **asked, minimum_audience=least) if row["views"] is None]
    assert shut and people([one for one in of(world, BEGIN, BEGIN + DAY) if iso(one["ts"] // HOUR * HOUR) in shut]) >= least
    empty = Analytics(world).query("by_site", **{**asked, "entity": "nobody"}, minimum_audience=5)
    assert {row["views"] for row in empty} == {0} and empty.suppressed == ()


def test_the_comparison_and_the_rest_are_hidden_as_well(world: World) -> None:
    asked = {
        "entity": "a",
        "start": BEGIN + DAY,
        "end": BEGIN + 2 * DAY,
        "by": ["country"],
        "measures": ["views"],
        "minimum_audience": 10_000,
    }
    answer = Analytics(world).query("by_site", **asked, compare="previous_day", top=2, other=True, totals=True)
    assert answer.other is not None and answer.totals is not None
    for row in (*answer.rows, *answer.other, answer.totals):
        assert {value for name, value in row.items() if name != "country"} == {None}
    assert {one.where for one in answer.suppressed} == {"rows", "other", "totals"}


def test_a_small_group_is_not_among_the_largest_however_large(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    made = [
        {"ts": BEGIN + n, "site": "a", "kind": "view", "country": "DE" if n % 2 else "FR", "status": 200, "user": n, "cost": None}
        for n in range(200)
    ]
    world.produce(0, made + [{**made[0], "ts": BEGIN + HOUR + n, "country": "NL", "user": n % 3} for n in range(500)])
    world.count(0)
    asked = {"entity": "a", "start": BEGIN, "end": BEGIN + DAY, "by": ["country"], "measures": ["views"], "order": "-views", "top": 1}
    assert [row["country"] for row in Analytics(world).query("by_site", **asked)] == ["NL"]
    assert [row["country"] for row in Analytics(world).query("by_site", **asked, minimum_audience=20)] != ["NL"]


# Mistakes, and limits.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": None}, "start: it is not said which time"),
        ({"range": "today"}, "range: start or end is given as well"),
        ({"range": "someday", "start": None, "end": None}, "range: 'someday' is no range of time"),
        ({"start": "-3x"}, "start: 'x' is no unit of time"),
        ({"start": "-9999y"}, "start: "),
        ({"timezone": "Moon"}, "timezone: 'Moon' is no time zone"),
        ({"timezone": 3}, "timezone: '3' is no time zone"),
        ({"interval": "5h", "timezone": "Europe/Berlin"}, "interval: windows of 5h do not divide"),
        ({"offset": -1}, "offset: -1 is not a number of rows"),
        ({"top": 3}, "top: there are no groups"),
        ({"top": 0, "by": ["country"]}, "top: 0 is not a number of groups"),
        ({"other": True, "by": ["country"]}, "other: nothing is left out"),
        ({"compare": "yesterday"}, "compare: 'yesterday' is unknown"),
        (
            {"compare": "previous_year", "start": "1970-02-01", "end": "1970-02-02"},
            "compare: the previous_year lies before 1970|start: .* nothing is kept",
        ),
        (
            {"measures": ["views", "views_change=clicks/views"], "compare": "previous_day"},
            "measures: the answer would have two columns 'views_change'",
        ),
        ({"minimum_audience": 0}, "minimum_audience: 0 is not a number of people"),
        ({"minimum_audience": True}, "minimum_audience: True is not a number of people"),
        ({"max_rows": 0}, "max_rows: 0 is not a number of rows"),
        ({"interval": "1h", "max_rows": 100}, "interval: the answer would have 120 windows, and 100 rows are the most"),
        ({"now": "soon"}, "now: 'soon' is not a time"),
    ],
)
def test_a_mistake_names_the_parameter(world: World, change: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said) as raised:
        Analytics(world).query("by_site", **{"entity": "a", "start": BEGIN, "end": END, **change})
    assert raised.value.hint


def test_a_question_with_too_many_windows_is_refused_before_any_cell_is_read(world: World) -> None:
    seen = Calls(world.table)
    with pytest.raises(QueryError, match="max_rows"):
        Analytics.over(seen, world.now).query("by_site", entity="a", start=BEGIN, end=END, interval="1m", max_rows=7199)
    assert not [name for name in seen.read if name.startswith("by_site")]
    assert len(Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, interval="1m", max_rows=7200)) == 7200
    with pytest.raises(QueryError, match=r"by: there are more than 19 rows \(max_rows\)"):
        Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, by=["country", "status"], max_rows=19)


class Calls:
    """A table that writes down which tables are read."""

    def __init__(self, table: Table) -> None:
        self.table, self.read = table, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.table, name)

        def made(*args: Any, **named: Any) -> Any:
            self.read.append(args[0] if args else name)
            return call(*args, **named)

        return made


# Versions.


def version(world: World, **more: Any) -> str:
    return Analytics(world, refresh=0).version("by_site", **{"entity": "a", "start": BEGIN, "end": END, **more})


def test_a_version_changes_when_something_is_committed_published_or_asked_differently(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=2)
    made = events(11, 400)
    world.produce(0, made[:200])
    world.count(0)
    seen = [version(world)]
    assert seen == [version(world)] and seen[0] == Analytics(world).query("by_site", entity="a", start=BEGIN, end=END).version
    world.clock += HOUR
    assert version(world) == seen[0]
    for different in (
        {"entity": "b"},
        {"interval": "1d"},
        {"measures": ["views"]},
        {"measures": ["x=clicks/views"]},
        {"timezone": "Europe/Berlin"},
        {"limit": 1},
        {"totals": True},
        {"minimum_audience": 5},
    ):
        seen.append(version(world, **different))
    world.produce(0, made[200:])
    world.count(0)
    seen.append(version(world))
    world.count(1)  # found empty: the answer is complete now
    seen.append(version(world))
    world.define(by_site(all=Uniques("user")))
    world.start("earliest")
    assert version(world) == seen[-1]
    Registry(world.table).publish(world.definition.bolt, world.definition.generation)
    seen.append(version(world))
    assert len(set(seen)) == len(seen)


def test_the_version_is_read_from_control_cells_alone(world: World) -> None:
    seen = Calls(world.table)
    analytics = Analytics.over(seen, world.now)
    analytics.version("by_site", entity="a", start=BEGIN, end=END)
    assert set(seen.read) <= {"control", "tables"}
    seen.read.clear()
    analytics.version("by_site", entity="b", start=BEGIN, end=END)
    assert seen.read == ["control"]  # the definition is known


def test_what_is_published_shows_after_so_long_at_the_latest(new_table: Callable[[], Table], monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(new_table(), partitions=1)
    world.produce(0, events(3, 50))
    world.count(0)
    now = 1000.0
    monkeypatch.setattr("penstock.query.analytics.time.monotonic", lambda: now)
    analytics, asked = Analytics(world), {"entity": "a", "start": BEGIN, "end": END}
    old = analytics.query("by_site", **asked).generation
    world.define(by_site(all=Uniques("user")))
    world.start("earliest")
    Registry(world.table).publish(world.definition.bolt, world.definition.generation)
    now += 1.9
    assert analytics.query("by_site", **asked).generation == old
    now += 0.2
    assert analytics.query("by_site", **asked).generation == world.definition.generation != old


# Trends.


def test_what_grew_by_more_than_chance_is_trending(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    made: Events = []
    for country, before, after in (("DE", 100, 105), ("FR", 20, 60), ("NL", 0, 9), ("??", 1, 3), ("日本", 90, 20)):
        for day, count in ((0, before), (1, after)):
            made += [
                {
                    "ts": BEGIN + day * DAY + n * MINUTE,
                    "site": "a",
                    "kind": "view",
                    "country": country,
                    "status": 200,
                    "user": n,
                    "cost": "1",
                }
                for n in range(count)
            ]
    world.produce(0, sorted(made, key=lambda one: one["ts"]))
    world.count(0)
    analytics, asked = Analytics(world), {"entity": "a", "start": BEGIN + DAY, "end": BEGIN + 2 * DAY, "by": ["country"]}
    rising = analytics.trending("by_site", "views", **asked)
    assert [(one.group["country"], one.before, one.now, one.percent) for one in rising] == [("FR", 20, 60, 200.0), ("NL", 0, 9, None)]
    assert rising[0].score == pytest.approx(2 * (math.sqrt(60.375) - math.sqrt(20.375)) / math.sqrt(2))
    assert [one.group["country"] for one in analytics.trending("by_site", "views", **asked, falling=True)] == ["日本"]
    assert [one.group["country"] for one in analytics.trending("by_site", "users", **asked, limit=1)] == ["FR"]
    assert analytics.trending("by_site", "views", **asked, minimum_audience=1000) == []
    for wrong, said in (
        ({"measure": "spend"}, "measures: 'spend' is a sum"),
        ({"by": []}, "by: "),
        ({"interval": "1h"}, "interval: what is trending"),
    ):
        with pytest.raises(QueryError, match=said):
            analytics.trending("by_site", **{"measure": "views", **asked, **wrong})


def test_a_ratio_of_money_is_compared_exactly(world: World) -> None:
    answer: Answer = Analytics(world).query(
        "by_site",
        entity="a",
        start=BEGIN + DAY,
        end=BEGIN + 2 * DAY,
        measures=["cpc=spend/clicks", "spend"],
        compare="previous_day",
        totals=True,
    )
    now, before = (values(of(world, BEGIN + at * DAY, BEGIN + (at + 1) * DAY)) for at in (1, 0))
    row = answer.rows[0]
    assert row["cpc"] == float(now["spend"] / now["clicks"]) and row["cpc_previous"] == float(before["spend"] / before["clicks"])
    assert isinstance(row["spend_change"], D) and row["spend_change"] == now["spend"] - before["spend"]
    assert answer.totals == row
