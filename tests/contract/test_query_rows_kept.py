"""Rows that are kept in memory: an answer is what it would be without them, whatever was committed, folded, begun or declared anew in between."""

from __future__ import annotations

import random
from typing import Any

import pytest
from query_world import BEGIN, COUNTRIES, DAY, HOUR, MINUTE, STATUSES, World, by_site, events

from penstock.errors import QueryError
from penstock.model import Count
from penstock.query import Analytics, CachedAnalytics
from penstock.query.kept import RowCache
from penstock.rollup.registry import Registry
from penstock.table.memory import MemoryTable


class Recording(MemoryTable):
    """A table that writes down which rows are read, and which ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[str, Any]] = []

    def rows(self, table: str, rows: Any) -> list[dict[bytes, bytes]]:
        self.read += [(table, row) for row in rows if table.startswith("by_site")]
        return super().rows(table, rows)

    def scan(self, table: str, start: bytes = b"", stop: bytes | None = None) -> Any:
        if table.startswith("by_site"):
            self.read.append((table, (start, stop)))
        return super().scan(table, start, stop)

    def taken(self) -> list[tuple[str, Any]]:
        """What was read since the last look."""
        found, self.read = self.read, []
        return found


def a_question(rng: random.Random) -> dict[str, Any]:
    start = BEGIN + rng.choice((0, DAY, 2 * DAY, 30 * HOUR, 95 * MINUTE))
    asked: dict[str, Any] = {"entity": rng.choice("ab"), "start": start, "end": start + rng.choice((HOUR, DAY, 3 * DAY))}
    asked["interval"] = rng.choice((None, "1d", "6h", "1h"))
    shape = rng.randrange(4)
    if shape == 0:
        asked.update(interval=rng.choice(("1m", "5m", "1h")), totals=True)
    elif shape == 1:
        asked.update(start=BEGIN + DAY, end=BEGIN + 3 * DAY, by=["country"], where={"country": {"in": rng.sample(COUNTRIES, 2)}})
    elif shape == 2:
        asked.update(start=BEGIN, end=BEGIN + 4 * DAY, by=rng.choice((["country"], ["status"])), order="-views", limit=4)
    else:
        asked.update(start=BEGIN + 2 * DAY, end=BEGIN + 3 * DAY, compare="previous_day", where={"status": rng.choice(STATUSES)})
    return asked


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_those_of_an_analytics_that_keeps_nothing(seed: int) -> None:
    rng = random.Random(seed)
    world = World(MemoryTable(), partitions=2)
    made = {partition: events(seed * 2 + partition, 500) for partition in range(2)}
    kept, without = Analytics(world, refresh=0), Analytics(world, refresh=0, kept=0)
    asked = [a_question(rng) for _ in range(12)]
    compared = 0
    for _ in range(25):
        step = rng.randrange(10)
        partition = rng.randrange(2)
        if step < 6:
            some, made[partition] = made[partition][:60], made[partition][60:]
            if some:
                world.produce(partition, some)
            commit = rng.random() < 0.7
            world.count(partition, commit=commit, caught_up=commit)  # else what is flushed, and folded, is not committed yet
        elif step == 6:
            world.count(partition)
        elif step == 7 and rng.random() < 0.3:
            world.define(by_site(**{f"more_{rng.randrange(10**6)}": Count()}))
            world.start("earliest")
            world.count(0)
            Registry(world.table).publish(world.definition.bolt, world.definition.generation)
        elif step == 8 and rng.random() < 0.3:
            world.recreate()  # another log, whose events may lie in windows that all shards so far have folded
            made = {partition: events(seed + partition, 500) for partition in range(2)}
        for question in rng.sample(asked, 5):
            expected = without.query("by_site", **question)
            assert kept.query("by_site", **question) == expected, (seed, question)
            assert kept.query("by_site", **question) == expected, (seed, question)
            compared += any(row["views"] for row in expected)
    assert compared > 20, seed


def test_a_row_is_read_again_once_a_commit_could_have_changed_it() -> None:
    table = Recording()
    world = World(table, partitions=1)
    made = events(4, 900)
    world.produce(0, made[:700])
    world.count(0)
    analytics = Analytics(world)
    days: dict[str, Any] = {"entity": "a", "start": BEGIN, "end": BEGIN + 5 * DAY, "interval": "1d"}
    minutes: dict[str, Any] = {"entity": "a", "start": BEGIN + DAY, "end": BEGIN + 2 * DAY, "interval": "1m"}
    groups = {**days, "end": BEGIN + 3 * DAY, "by": ["country"]}
    table.taken()  # what folding read
    for question in (days, minutes, groups):
        analytics.query("by_site", **question)
    first = table.taken()
    assert {name for name, _ in first} == {"by_site_1d", "by_site_1h", "by_site_1m"} and len(first) == len(set(first))
    for question in (days, minutes, groups):
        analytics.query("by_site", **question)
    assert not table.taken()

    world.produce(0, made[700:702])  # some minutes
    world.count(0)  # folds no hour: the finest windows may have changed, as far as they are not folded
    table.taken()
    analytics.query("by_site", **minutes)
    analytics.query("by_site", **groups)
    assert not table.taken()  # the second day is folded
    analytics.query("by_site", **days)
    again = table.taken()
    assert again and {name for name, _ in again} == {"by_site_1m"} and len(again) < len([name for name, _ in first if name == "by_site_1m"])

    world.produce(0, made[720:])
    world.count(0)
    table.taken()
    analytics.query("by_site", **days)
    assert {name for name, _ in table.taken()} >= {"by_site_1d", "by_site_1h"}
    analytics.query("by_site", **minutes)
    assert not table.taken()


def test_rows_are_bounded_in_bytes_and_in_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("penstock.query.kept.time.monotonic", lambda: now)
    table = Recording()
    world = World(table, partitions=1)
    world.produce(0, events(5, 400))
    world.count(0)
    question: dict[str, Any] = {"entity": "a", "start": BEGIN, "end": BEGIN + 3 * DAY, "interval": "1m"}
    analytics = Analytics(world, kept=20_000)
    table.taken()
    first = analytics.query("by_site", **question)
    everything = len(table.taken())
    assert analytics.query("by_site", **question) == first and 0 < len(table.taken()) <= everything  # 72 rows are more than 20,000 bytes
    rows = analytics._rows
    kept = rows._kept
    assert 0 < kept.bytes <= kept.max_bytes and kept.bytes == sum(one[1] for one in kept.entries.values())
    roomy = Analytics(world)
    roomy.query("by_site", **question)
    table.taken()
    now += 299
    assert roomy.query("by_site", **question) == first and not table.taken()
    now += 2
    assert roomy.query("by_site", **question) == first and len(table.taken()) == everything
    nothing = Analytics(world, kept=0)
    for _ in range(2):
        assert nothing.query("by_site", **question) == first and len(table.taken()) == everything
    rows.clear()
    assert kept.bytes == 0 and isinstance(rows, RowCache) and analytics.query("by_site", **question) == first


def test_what_is_at_hand_is_answered_without_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("penstock.query.analytics.time.monotonic", lambda: now)
    table = Recording()
    world = World(table, partitions=1)
    made = events(6, 400)
    world.produce(0, made[:300])
    world.count(0)
    question: dict[str, Any] = {"entity": "a", "start": BEGIN, "end": BEGIN + 3 * DAY, "interval": "1h"}
    for analytics in (Analytics(world, lag=10), CachedAnalytics(Analytics(world, lag=10))):
        assert analytics.prepare_at_hand("by_site", **question) is None  # nobody has looked yet
        prepared = analytics.prepare("by_site", **question)
        assert analytics.answer_at_hand(prepared) is None
        expected = analytics.answer(prepared)
        again = analytics.prepare_at_hand("by_site", **question)
        table.taken()
        assert again is not None and analytics.answer_at_hand(again) == expected and not table.taken()
        wider = analytics.prepare_at_hand("by_site", **{**question, "end": BEGIN + 4 * DAY})
        assert wider is not None and analytics.answer_at_hand(wider) is None and not table.taken()
        with pytest.raises(QueryError, match="interval"):
            analytics.prepare_at_hand("by_site", **{**question, "interval": "soon"})
        now += 1.9
        assert analytics.prepare_at_hand("by_site", **question) is not None
        now += 0.2  # `refresh`: there may be another definition
        assert analytics.prepare_at_hand("by_site", **question) is None
    fresh = Analytics(world)
    fresh.query("by_site", **question)
    assert fresh.prepare_at_hand("by_site", **question) is None  # without a lag, the control cells are read for every question
