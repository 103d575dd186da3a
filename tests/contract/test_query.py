"""Questions about cells that the real shard wrote into every kind of table, against the events themselves."""

from __future__ import annotations

import random
from decimal import Decimal as D
from typing import Any, Callable, Iterator

import pytest
from query_world import BEGIN, COUNTRIES, DAY, DAYS, HOUR, MINUTE, STATUSES, World, by_site, events, expected, iso

from penstock.errors import NotFoundError, QueryError
from penstock.model import Count, Ratio
from penstock.query import Analytics, Answer
from penstock.rollup.registry import Registry
from penstock.table import Table
from penstock.table.memory import MemoryTable
from penstock.table.sqlite import SqliteTable

SEED = 20240301
END = BEGIN + DAYS * DAY


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def new_table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Table]]:
    made: list[Table] = []

    def new() -> Table:
        made.append(MemoryTable() if request.param == "memory" else SqliteTable(tmp_path_factory.mktemp("table") / "cells.db"))
        return made[-1]

    yield new
    for table in made:
        table.close()


def written(table: Table, how: str, **kept: str) -> World:
    """A world whose shards stand at some point of their work."""
    world = World(table, fold=how != "nothing folded", rollup=by_site(**kept))
    first, second = events(SEED, 1500), events(SEED + 1, 1500)
    if how == "one partition behind":
        second = [one for one in second if one["ts"] < BEGIN + 2.3 * DAY]
    if how == "two incarnations":
        for partition, made in enumerate((first, second)):
            world.produce(partition, [one for one in made if one["ts"] < BEGIN + 2 * DAY])
            world.count(partition)
        world.recreate()
        first, second = ([one for one in made if one["ts"] >= BEGIN + 2 * DAY] for made in (first, second))
    for partition, made in enumerate((first, second)):
        for start in range(0, len(made), 400):
            world.produce(partition, made[start : start + 400])
            world.count(partition, commit=how != "folded and not committed" or start + 400 < len(made))
    return world


STATES = ["all folded that can be", "nothing folded", "one partition behind", "folded and not committed", "two incarnations"]


@pytest.fixture(scope="module", params=STATES)
def world(request: pytest.FixtureRequest, new_table: Callable[[], Table]) -> World:
    return written(new_table(), request.param)


def check(answer: Answer, wanted: dict[tuple[Any, ...], dict[str, Any]], by: tuple[str, ...], window: str | None) -> None:
    """Every row, every measure. Estimates are those of one sketch of all, and near the truth where it is large enough for their error to mean something."""
    found = {(row.get("time", window), *(row[name] for name in by)): row for row in answer.rows}
    assert len(found) == len(answer.rows)
    assert found.keys() == wanted.keys()
    for key, measures in wanted.items():
        for name, value in measures.items():
            if name == "users":
                exact, estimate = value
                assert found[key][name] == estimate, (key, name)
                assert exact < 100 or abs(estimate - exact) <= 4 * answer.errors["users"] * exact, (key, name)
            else:
                assert found[key][name] == value, (key, name)


def random_filter(rng: random.Random, names: list[str]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]:
    """A filter, and the same as a function."""
    country, some, status = rng.choice(COUNTRIES), rng.sample(COUNTRIES, 2), rng.choice(STATUSES)
    filters: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({"country": country}, lambda event: event["country"] == country),
        ({"country": some}, lambda event: event["country"] in some),
        ({"not": {"country": country}}, lambda event: event["country"] != country),
    ]
    if "status" in names:
        filters += [
            ({"status": {"ge": "300"}}, lambda event: event["status"] is not None and event["status"] >= 300),
            ({"status": None, "country": country}, lambda event: event["status"] is None and event["country"] == country),
            ({"country": some, "status": [status]}, lambda event: event["country"] in some and event["status"] == status),
            ({"any": [{"status": status}, {"country": country}]}, lambda event: event["status"] == status or event["country"] == country),
        ]
    return rng.choice(filters)


@pytest.mark.parametrize("seed", range(24))
def test_any_question_is_answered_as_the_events_themselves_answer_it(world: World, seed: int) -> None:
    rng = random.Random(seed)
    names = rng.choice(([], ["country"], ["country", "status"]))
    by = tuple(rng.sample(names, rng.randint(0, len(names))))
    where, passes = random_filter(rng, names) if names and rng.random() < 0.6 else (None, lambda event: True)
    finest = [MINUTE, HOUR, HOUR][len(names)]
    interval = rng.choice((None, DAY, 2 * DAY, 6 * HOUR, HOUR, *([10 * MINUTE, MINUTE] if not names else [])))
    step = rng.choice((DAY, finest))
    start = rng.randrange(BEGIN, END - 2 * DAY, step)
    end = rng.randrange(start + step, END + DAY, step)
    width = None if interval is None else f"{interval // MINUTE}m"
    answer = Analytics(world).query("by_site", entity="a", start=start, end=end, interval=width, by=by, where=where)
    check(answer, expected(world.counted, "a", start, end, interval, by, passes), by, iso(start) if interval is None else None)


def test_a_range_is_read_from_as_few_windows_as_are_folded(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "all folded that can be")
    analytics = Analytics(world)
    assert analytics.query("by_site", entity="a", start=BEGIN, end=BEGIN + 2 * DAY).served_from == ("1d",)
    assert analytics.query("by_site", entity="a", start=BEGIN, end=BEGIN + 2 * DAY, interval="1h").served_from == ("1h",)
    now_ish = analytics.query("by_site", entity="a", start=BEGIN, end=END)
    assert now_ish.served_from == ("1d", "1h", "1m")  # the last day is not over: 22 hours of it are folded
    check(now_ish, expected(world.counted, "a", BEGIN, END, None), (), iso(BEGIN))


def test_the_smallest_breakdown_that_can_answer_is_read(new_table: Callable[[], Table]) -> None:
    analytics = Analytics(written(new_table(), "all folded that can be"))
    asked = {"entity": "a", "start": BEGIN, "end": END, "interval": "1d"}
    assert analytics.query("by_site", **asked).breakdown == ()
    assert analytics.query("by_site", **asked, where={"country": "DE"}).breakdown == ("country",)
    assert analytics.query("by_site", **asked, by=["status"]).breakdown == ("country", "status")


def test_records_that_are_counted_while_the_question_is_read_never_take_away(new_table: Callable[[], Table]) -> None:
    """At every call of the reader in turn, everything moves on: cells are put, windows folded, the control cell changed."""
    calls = 0
    for at in range(100):
        table = new_table()
        world = World(table, partitions=1)
        made = events(SEED, 300)
        half = len(made) // 2
        world.produce(0, made[:half])
        world.count(0)
        floor = list(world.counted)
        world.produce(0, made[half:])
        moving = Moving(table, at, lambda world=world: world.count(0))  # type: ignore[misc]
        answer = Analytics.over(moving, world.now).query("by_site", entity="a", start=BEGIN, end=END, interval="1d")
        if not moving.moved:
            calls = at
            break
        low, high = (expected(some, "a", BEGIN, END, DAY) for some in (floor, made))
        for row in answer.rows:
            key = (row["time"],)
            assert low[key]["views"] <= row["views"] <= high[key]["views"], (at, row)
            assert low[key]["spend"] <= row["spend"] <= high[key]["spend"], (at, row)
    assert calls >= 6  # provider, published, definition, shards, and cells of several granularities


class Moving:
    """A table in which something happens just before one call of its user's."""

    def __init__(self, table: Table, at: int, move: Callable[[], None]) -> None:
        self.table, self.left, self.move, self.moved = table, at, move, False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.table, name)

        def made(*args: Any, **named: Any) -> Any:
            if self.left == 0:
                self.moved = True
                self.move()
            self.left -= 1
            return call(*args, **named)

        return made


def test_only_the_published_generation_is_served(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    made = events(SEED, 200)
    world.produce(0, made)
    world.count(0)
    old = world.definition.generation
    world.define(by_site(all=Count()))
    world.start("earliest")
    world.pending[0] = made
    analytics, asked = Analytics(world, refresh=0), {"entity": "a", "start": BEGIN, "end": END}
    wanted = sum(one["site"] == "a" for one in made)
    world.count(0)
    assert analytics.query("by_site", **asked).generation == old
    assert "all" not in analytics.rollups()[0].measures
    with pytest.raises(QueryError, match="no measure 'all'"):
        analytics.query("by_site", **asked, measures=["all"])
    Registry(world.table).publish(world.definition.bolt, world.definition.generation)
    answer = analytics.query("by_site", **asked, measures=["all", "views", "clicks"])
    assert answer.generation == world.definition.generation != old
    assert answer.rows == [{"all": wanted, "views": answer.rows[0]["views"], "clicks": wanted - answer.rows[0]["views"]}]


def test_order_and_limit(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "all folded that can be")
    asked = {"entity": "a", "start": BEGIN, "end": END, "by": ["country", "status"], "measures": ["views", "dearest"]}
    wanted = expected(world.counted, "a", BEGIN, END, None, ("country", "status"))
    analytics = Analytics(world)

    def keys(**more: Any) -> list[tuple[Any, ...]]:
        return [(row["country"], row["status"]) for row in analytics.query("by_site", **asked, **more)]

    nulls_last = [key[1:] for key in sorted(wanted, key=lambda key: (key[1], key[2] is None, key[2] or 0))]
    assert keys() == nulls_last
    most = sorted(nulls_last, key=lambda key: -wanted[(iso(BEGIN), *key)]["views"])
    assert keys(order="-views") == most
    assert keys(order="-views", limit=3) == most[:3]
    assert keys(order="-country") == sorted(nulls_last, key=lambda key: key[0], reverse=True)
    descending = [key[1] for key in keys(order="-status")]
    assert descending == sorted((s for s in descending if s is not None), reverse=True) + [None] * descending.count(None)
    mixed = keys(order="status,-views")
    assert mixed == sorted(nulls_last, key=lambda key: (key[1] is None, key[1] or 0, -wanted[(iso(BEGIN), *key)]["views"]))
    days = analytics.query("by_site", entity="a", start=BEGIN, end=END, interval="1d", order="-time")
    assert [row["time"] for row in days] == [iso(BEGIN + day * DAY) for day in reversed(range(DAYS))]


def test_windows_without_records_are_there_with_zeros(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    world.produce(0, [dict(one, ts=BEGIN + 5 * HOUR) for one in events(SEED, 20)])
    world.count(0)
    rows = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + DAY, interval="1h").rows
    assert [row["time"] for row in rows] == [iso(BEGIN + hour * HOUR) for hour in range(24)]
    nothing = {"views": 0, "clicks": 0, "spend": D(0), "cheapest": None, "dearest": None, "last": None, "users": 0, "ctr": None}
    assert all({name: row[name] for name in nothing} == nothing for hour, row in enumerate(rows) if hour != 5)
    assert rows[5]["views"] > 0
    stranger = Analytics(world).query("by_site", entity="nobody", start=BEGIN, end=BEGIN + DAY)
    assert stranger.rows == [nothing]
    assert Analytics(world).query("by_site", entity="nobody", start=BEGIN, end=BEGIN + DAY, interval="1h", by=["country"]).rows == []


def test_quotients_are_taken_after_the_merge(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "nothing folded")
    answer = Analytics(world).query(
        "by_site", entity="a", start=BEGIN, end=END, measures=["ctr", "clicks/views", "mean=spend/clicks", "per_user=views/users"]
    )
    total = expected(world.counted, "a", BEGIN, END, None)[(iso(BEGIN),)]
    row = answer.rows[0]
    assert row["ctr"] == row["clicks/views"] == total["clicks"] / total["views"]
    assert row["mean"] == float(total["spend"] / total["clicks"])
    assert row["per_user"] == pytest.approx(total["views"] / total["users"][0], rel=3 * answer.errors["per_user"])
    users = Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, measures=["users"])
    assert users.rows[0]["users"] == pytest.approx(total["users"][0], rel=3 * users.errors["users"])
    assert set(answer.errors) == {"per_user"}


def test_sums_beyond_64_bits_are_cut_and_said_to_be(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    most = "99999999999999.9999"
    world.produce(0, [dict(one, site="a", ts=BEGIN, cost=most) for one in events(SEED, 20)])
    world.count(0)
    answer = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + DAY, measures=["spend", "dearest"])
    assert answer.rows == [{"spend": D(2**63 - 1).scaleb(-4), "dearest": D(most)}]
    assert answer.saturated == ("spend",)


# What an answer says of itself.


def test_an_answer_is_complete_once_every_partition_has_passed_its_end(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "one partition behind")
    analytics = Analytics(world)
    slower = max(one["ts"] for one in events(SEED + 1, 1500) if one["ts"] < BEGIN + 2.3 * DAY)
    over = analytics.query("by_site", entity="a", start=BEGIN, end=BEGIN + 2 * DAY)
    assert over.complete and over.incomplete == ()
    assert over.as_of == iso(slower)
    running = analytics.query("by_site", entity="a", start=BEGIN, end=BEGIN + 3 * DAY)
    assert not running.complete
    assert running.incomplete == (f"visits/1 has come to {iso(slower)}: windows that end later are not over",)


def test_an_answer_without_data_says_so(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    answer = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + DAY, interval="1d")
    assert (answer.as_of, answer.complete, answer.incomplete) == (None, False, ("no event has been counted yet",))
    assert answer.rows[0]["views"] == 0


def test_a_partition_that_was_never_read_makes_the_answer_incomplete_until_it_is_found_empty(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=2)
    world.produce(0, events(SEED, 100))
    world.count(0)
    asked = {"entity": "a", "start": BEGIN, "end": BEGIN + DAY}
    assert Analytics(world).query("by_site", **asked).incomplete == ("visits/1: never read to the end, so nobody knows how far behind",)
    world.count(1)
    assert Analytics(world).query("by_site", **asked).complete


def test_lost_records_make_every_answer_incomplete(new_table: Callable[[], Table]) -> None:
    world = World(new_table(), partitions=1)
    made = events(SEED, 300)
    world.produce(0, made[:100])
    world.log.truncate_before("visits", 0, 100)
    world.pending.clear()
    world.produce(0, made[100:])
    world.count(0)
    answer = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + 3 * DAY)
    assert answer.incomplete == ("100 records of visits/0 were gone from the log before they were read",)
    check(answer, expected(made[100:], "a", BEGIN, BEGIN + 3 * DAY, None), (), iso(BEGIN))


def test_a_present_incarnation_says_how_far_the_stream_has_come(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "two incarnations")
    answer = Analytics(world).query("by_site", entity="a", start=BEGIN, end=BEGIN + 3 * DAY)
    assert answer.complete
    assert answer.as_of is not None and answer.as_of > iso(BEGIN + 4 * DAY)


# Retention.


def test_windows_older_than_their_keep_are_hidden_by_event_time_not_by_the_clock(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "all folded that can be", minutes="3d", hours="2d")
    newest = max(one["ts"] for one in world.counted)
    answer = Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, interval="1m")
    first = (newest - 3 * DAY) // MINUTE * MINUTE
    assert answer.rows[0]["time"] == iso(first)
    assert f"windows before {iso(first)} are older than they are kept (1m for 3d)" in answer.incomplete
    check(answer, expected(world.counted, "a", first, END, MINUTE), (), None)
    world.clock += 5 * DAY
    assert Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, interval="1m").rows == answer.rows
    partly = Analytics(world).query("by_site", entity="a", start=BEGIN, end=END, interval="1h", by=["country", "status"])
    first_hour = -(-(newest - 2 * DAY) // HOUR) * HOUR - HOUR
    assert partly.rows[0]["time"] >= iso(first_hour) and any("(1h for 2d)" in reason for reason in partly.incomplete)


def test_cells_that_may_have_been_dropped_by_the_table_are_named(new_table: Callable[[], Table]) -> None:
    world = written(new_table(), "all folded that can be", minutes="3d", hours="2d")
    asked = {"entity": "a", "start": BEGIN + 3 * DAY, "end": BEGIN + 4 * DAY, "interval": "1m"}
    world.clock += 7 * DAY  # cells of minutes live 3 days, an hour of lateness and 7 days
    assert Analytics(world).query("by_site", **asked).complete
    world.clock += 3 * DAY
    assert [
        reason
        for reason in Analytics(world).query("by_site", **asked).incomplete
        if "1m windows before" in reason and "may have been dropped" in reason
    ]
    assert Analytics(world).query("by_site", **{**asked, "interval": "1h"}).complete


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entity": None}, "entity: site: None is not text"),
        ({"start": "yesterday"}, "start: 'yesterday' is not a time"),
        ({"end": BEGIN}, "end: 2024-03-01T00:00:00Z is not after start"),
        ({"start": BEGIN + 1}, "start: 2024-03-01T00:00:00.000001Z is not where a window"),
        ({"end": BEGIN + HOUR + 7}, "end: .* is not where a window"),
        (
            {"end": BEGIN + 90 * MINUTE, "by": ["country"]},
            r"end: 2024-03-01T01:30:00Z is not where a window of the breakdown by country \(1h, 1d\) begins",
        ),
        ({"interval": "soon"}, "interval: 'soon' is not a duration"),
        ({"interval": "0s"}, "interval: '0s' is no length of time"),
        ({"interval": "90s"}, "interval: 90s is not made of whole windows"),
        ({"interval": "1m", "by": ["country"]}, r"interval: 1m is not made of whole windows of the breakdown by country \(1h, 1d\)"),
        ({"interval": "1m", "end": BEGIN + 1000 * DAY}, "interval: .* more than 1,000,000 windows of 1m"),
        ({"measures": []}, "measures: none is asked for"),
        ({"measures": "views"}, "measures: 'views' is one text"),
        ({"measures": ["vews"]}, "measures: roll-up 'by_site' has no measure 'vews'"),
        ({"measures": ["views/vews"]}, "measures: 'vews' is not a stored measure"),
        ({"measures": ["views/last"]}, "measures: 'views/last' would divide with 'last', which is an instant"),
        ({"measures": ["views", "views"]}, "measures: views is asked for twice"),
        ({"measures": ["views=clicks/views"]}, "measures: 'views' cannot name the quotient"),
        ({"measures": ["country=clicks/views"], "by": ["country"]}, "measures: the answer would have two columns 'country'"),
        ({"by": "country"}, "by: 'country' is one text"),
        ({"by": ["planet"]}, "by: roll-up 'by_site' has no dimension 'planet'"),
        ({"by": ["country", "country"]}, "by: country, country names a dimension twice"),
        ({"where": "DE"}, "where: 'DE' is not a filter"),
        ({"where": {"user": 1}}, "where: there is no field 'user'"),
        ({"where": {"status": "ok"}}, "where: status: 'ok' is not a whole number"),
        ({"where": {"status": {"like": 2}}}, "where: 'like' is not an operator"),
        ({"order": "-time"}, "order: the answer has no column 'time'"),
        ({"order": "clicks", "measures": ["views"]}, "order: the answer has no column 'clicks'"),
        ({"limit": 0}, "limit: 0 is not a number of rows"),
        ({"limit": "3"}, "limit: '3' is not a number of rows"),
        ({"start": "2019-04-01", "end": "2019-05-01"}, None),
        ({"start": "2001-01-01", "end": "2001-02-01"}, "start: from 2001-01-01T00:00:00Z to .* nothing is kept any more"),
        ({"start": BEGIN + MINUTE}, "start: 2024-03-01T00:01:00Z lies inside a 1h window"),
        ({"start": BEGIN + HOUR, "end": BEGIN + 2 * DAY, "by": ["status"]}, "start: 2024-03-01T01:00:00Z lies inside a 1d window"),
        ({"start": BEGIN, "end": BEGIN + 25 * HOUR, "by": ["status"]}, "end: 2024-03-02T01:00:00Z lies inside a 1d window"),
    ],
)
def test_a_question_that_cannot_be_answered_names_the_parameter(asked: Analytics, change: dict[str, Any], said: str | None) -> None:
    question = {"entity": "a", "start": BEGIN, "end": END, **change}
    if said is None:
        assert asked.query("by_site", **question).rows
    else:
        with pytest.raises(QueryError, match=said) as raised:
            asked.query("by_site", **question)
        assert raised.value.hint


@pytest.fixture(scope="module")
def asked() -> Analytics:
    return Analytics(written(MemoryTable(), "all folded that can be", minutes="3d", hours="2d"))


def test_a_roll_up_that_is_not_there_is_named_with_those_that_are(asked: Analytics) -> None:
    with pytest.raises(NotFoundError, match="no roll-up 'by_sight'") as raised:
        asked.query("by_sight", entity="a", start=BEGIN, end=END)
    assert raised.value.hint is not None and "by_site" in raised.value.hint
    with pytest.raises(NotFoundError, match="none yet"):
        Analytics.over(MemoryTable()).query("by_site", entity="a", start=BEGIN, end=END)
    assert Analytics.over(MemoryTable()).rollups() == []


def test_a_deployment_that_never_ran_is_not_created_by_a_question(tmp_path: Any) -> None:
    with pytest.raises(NotFoundError, match="nothing was ever written"):
        Analytics.on(f"local:{tmp_path / 'typo'}")
    assert not (tmp_path / "typo").exists()


def test_what_can_be_asked(asked: Analytics) -> None:
    info = asked.rollups()[0]
    assert (info.name, info.entity) == ("by_site", ("site", "string"))
    assert info.measures["ctr"] == Ratio.kind and info.measures["users"] == "uniques"
    assert info.breakdowns[0] == ((), {"1m": "3d", "1h": "90d", "1d": "5y"})
    assert info.breakdowns[2][0] == ("country", "status")
