"""Answers that are kept, refreshed and asked by many; and answers as tables of other libraries."""

from __future__ import annotations

import asyncio
import json
import threading
from decimal import Decimal as D
from typing import Any

import pyarrow as pa
import pytest
from query_world import BEGIN, DAY, World, events

from penstock.errors import ConfigurationError, NotFoundError, QueryError, UnavailableError, UsageError
from penstock.query import Analytics, AsyncAnalytics, CachedAnalytics, SavedQueries
from penstock.table.memory import MemoryTable

ASKED: dict[str, Any] = {"entity": "a", "start": BEGIN, "end": BEGIN + 5 * DAY, "interval": "1d", "totals": True}


class Counting(MemoryTable):
    """A table that counts how often cells are read, and can fail or wait there."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = 0
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def rows(self, table: str, rows: Any) -> list[dict[bytes, bytes]]:
        if table.startswith("by_site"):
            self.cells += 1
            self.gate.wait(30)
            if self.broken:
                raise UnavailableError("the table does not answer")
        return super().rows(table, rows)


@pytest.fixture
def table() -> Counting:
    return Counting()


@pytest.fixture
def world(table: Counting) -> World:
    world = World(table, partitions=1)
    world.made = events(9, 600)  # type: ignore[attr-defined]
    world.produce(0, world.made[:300])  # type: ignore[attr-defined]
    world.count(0)
    return world


def more(world: World) -> None:
    """The rest of the events is counted."""
    world.produce(0, world.made[300:])  # type: ignore[attr-defined]
    world.count(0)


def test_an_answer_is_kept_until_something_is_committed(world: World, table: Counting) -> None:
    cached = CachedAnalytics(Analytics(world))
    first = cached.query("by_site", **ASKED)
    read = table.cells
    again = cached.query("by_site", **ASKED)
    assert (again, table.cells) == (first, read)
    assert (cached.stats().hits, cached.stats().misses, cached.stats().answers) == (1, 1, 1)
    more(world)
    fresh = cached.query("by_site", **ASKED)
    assert fresh == Analytics(world).query("by_site", **ASKED) != first
    assert fresh.version == cached.version("by_site", **ASKED) != first.version
    with pytest.raises(QueryError, match="measures"):
        cached.query("by_site", **ASKED, measures=["vews"])


def test_what_a_caller_does_to_an_answer_stays_with_it(world: World) -> None:
    cached = CachedAnalytics(Analytics(world))
    first = cached.query("by_site", **ASKED)
    views = first.rows[0]["views"]
    first.rows[0]["views"] = -1
    assert first.totals is not None
    first.totals.clear()
    first.rows[1].clear()
    again = cached.query("by_site", **ASKED)
    assert again.rows[0]["views"] == views and again.totals


def test_the_answers_used_longest_ago_go_first_and_bytes_are_bounded(world: World, table: Counting) -> None:
    cached = CachedAnalytics(Analytics(world, kept=0))
    cached.query("by_site", **ASKED)
    size = cached.stats().bytes
    cached = CachedAnalytics(Analytics(world, kept=0), max_bytes=2 * size + size // 2)
    for limit in (10, 11, 10, 12):  # the same five rows each
        cached.query("by_site", **ASKED, limit=limit)
        assert cached.stats().bytes <= 2 * size + size // 2
    assert cached.stats().answers == 2
    read = table.cells
    cached.query("by_site", **ASKED, limit=10)
    assert table.cells == read  # 11 went
    cached.query("by_site", **ASKED, limit=11)
    assert table.cells > read
    small = CachedAnalytics(Analytics(world, kept=0), max_bytes=10)
    assert small.query("by_site", **ASKED).rows and small.stats().answers == 0


def test_an_answer_that_is_too_old_is_read_anew(world: World, table: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("penstock.query.cached.time.monotonic", lambda: now)
    cached = CachedAnalytics(Analytics(world, kept=0), max_age=10)
    cached.query("by_site", **ASKED)
    read = table.cells
    now += 9
    cached.query("by_site", **ASKED)
    assert table.cells == read
    now += 2
    cached.query("by_site", **ASKED)
    assert table.cells > read


def test_a_question_that_many_ask_at_once_is_read_once(world: World, table: Counting) -> None:
    table.cells = 0
    Analytics(world).query("by_site", **ASKED)
    once, table.cells = table.cells, 0
    cached, answers = CachedAnalytics(Analytics(world, kept=0)), []
    table.gate.clear()
    threads = [threading.Thread(target=lambda: answers.append(cached.query("by_site", **ASKED))) for _ in range(8)]
    for thread in threads:
        thread.start()
    table.gate.set()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 8 and all(one == answers[0] for one in answers) and table.cells == once
    table.broken = True
    for _ in range(2):  # an error is nobody's answer, and is not kept
        with pytest.raises(UnavailableError):
            cached.query("by_site", **ASKED, limit=3)
    table.broken = False
    assert cached.query("by_site", **ASKED, limit=3).rows


# Saved queries.


def test_a_saved_query_is_answered_at_once_and_asked_again_when_something_was_committed(world: World, table: Counting) -> None:
    with SavedQueries(Analytics(world), every=3600) as saved:
        first = saved.save("week", "by_site", **ASKED)
        read = table.cells
        assert saved.get("week") is first and saved.refresh() == 0 and table.cells == read
        more(world)
        assert saved.refresh() == 1
        assert saved.get("week") == Analytics(world).query("by_site", **ASKED) != first
        [one] = saved.list()
        assert (one.name, one.rollup, one.question, one.error) == ("week", "by_site", ASKED, None) and one.refreshed_at
        assert saved.remove("week") and not saved.remove("week")
        with pytest.raises(NotFoundError, match="no saved query 'week'"):
            saved.get("week")


def test_a_saved_query_is_refreshed_by_a_thread_of_its_own(world: World) -> None:
    with SavedQueries(Analytics(world), every=0.01) as saved:
        first = saved.save("week", "by_site", **ASKED)
        more(world)
        wanted, pause = Analytics(world).query("by_site", **ASKED), threading.Event()
        assert wanted != first
        for _ in range(3000):
            if saved.get("week") == wanted:
                break
            pause.wait(0.01)
        assert saved.get("week") == wanted
    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-saved-queries"]


def test_a_saved_query_that_fails_keeps_its_answer_and_says_why(world: World, table: Counting) -> None:
    with SavedQueries(Analytics(world), every=3600, most=1) as saved:
        first = saved.save("week", "by_site", **ASKED)
        more(world)
        table.broken = True
        assert saved.refresh() == 0 and saved.get("week") is first
        assert saved.list()[0].error == "the table does not answer"
        table.broken = False
        assert saved.refresh() == 1 and saved.list()[0].error is None
        with pytest.raises(UsageError, match="there are 1 saved queries already"):
            saved.save("another", "by_site", **ASKED)
        with pytest.raises(QueryError, match="interval"):
            saved.save("week", "by_site", **{**ASKED, "interval": "soon"})
        assert saved.get("week").interval == "1d"


# asyncio.


def test_many_questions_are_asked_at_once(world: World) -> None:
    async def ask() -> None:
        async with AsyncAnalytics(CachedAnalytics(Analytics(world)), threads=2) as analytics:
            answers = await asyncio.gather(*(analytics.query("by_site", **ASKED, limit=limit) for limit in range(1, 6)))
            assert [len(answer) for answer in answers] == [1, 2, 3, 4, 5]
            assert answers[0].version == await analytics.version("by_site", **ASKED, limit=1)
            assert [one.name for one in await analytics.rollups()] == ["by_site"]
            assert await analytics.trending(
                "by_site", "views", entity="a", start=BEGIN + DAY, end=BEGIN + 2 * DAY, by=["country"], least=-100
            )
            with pytest.raises(QueryError, match="interval"):
                await analytics.query("by_site", **{**ASKED, "interval": "soon"})

    asyncio.run(ask())


def test_questions_beyond_what_may_wait_are_refused(world: World, table: Counting) -> None:
    async def ask() -> None:
        async with AsyncAnalytics(Analytics(world), threads=1, waiting=1) as analytics:
            table.gate.clear()
            tasks = [asyncio.create_task(analytics.query("by_site", **ASKED)) for _ in range(3)]
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            assert [type(one.exception()) for one in done] == [UnavailableError]
            table.gate.set()
            assert all([(await one).rows for one in waiting])
            assert (await analytics.query("by_site", **ASKED)).rows

    asyncio.run(ask())


# Tables of other libraries.


def test_an_arrow_table_holds_every_value_exactly(world: World) -> None:
    answer = Analytics(world).query(
        "by_site",
        entity="a",
        start=BEGIN,
        end=BEGIN + DAY,
        interval="6h",
        by=["country", "status"],
        timezone="Europe/Berlin",
        compare="previous_day",
    )
    arrow = answer.to_arrow()
    assert arrow.column_names == [column.name for column in answer.columns]
    assert (arrow.schema.field("time").type, arrow.schema.field("spend").type) == (
        pa.timestamp("us", "Europe/Berlin"),
        pa.decimal128(38, 4),
    )
    assert (arrow.schema.field("views").type, arrow.schema.field("status").type, arrow.schema.field("ctr").type) == (
        pa.int64(),
        pa.int64(),
        pa.float64(),
    )
    for row, shown in zip(arrow.to_pylist(), answer, strict=True):
        for name, value in shown.items():
            if arrow.schema.field(name).type == pa.timestamp("us", "Europe/Berlin"):
                assert (None if row[name] is None else row[name].isoformat()) == value
            else:
                assert row[name] == value and type(row[name]) is type(value), name
    about = json.loads(arrow.schema.metadata[b"penstock"])
    assert (about["as_of"], about["complete"], about["errors"]) == (answer.as_of, answer.complete, answer.errors)


def test_money_beyond_what_a_float_holds_goes_through_pandas_and_polars(world: World) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    world.produce(0, [{**one, "ts": BEGIN + 3 * DAY, "site": "rich", "cost": "99999999999999.9999"} for one in world.made[:3]])  # type: ignore[attr-defined]
    world.count(0)
    answer = Analytics(world).query("by_site", entity="rich", start=BEGIN + DAY, end=BEGIN + 4 * DAY, interval="1d")
    frame, other = answer.to_pandas(), answer.to_polars()
    assert isinstance(frame, pandas.DataFrame) and isinstance(other, polars.DataFrame)
    for made in (frame["spend"].tolist(), other["spend"].to_list()):
        assert made == [D(0), D(0), D("299999999999999.9997")]
    assert other["dearest"].to_list() == [None, None, D("99999999999999.9999")]
    assert other["views"].dtype == polars.Int64 and str(frame["views"].dtype) == "int64[pyarrow]"
    empty = Analytics(world).query("by_site", entity="nobody", start=BEGIN, end=BEGIN + DAY, by=["country"])
    assert empty.to_arrow().num_rows == 0 and empty.to_polars().columns == [column.name for column in empty.columns]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_library_that_is_not_there_is_named(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wanted: str) -> Any:
        raise ImportError(f"no {wanted}")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ConfigurationError, match=f"{name} cannot be imported") as raised:
        getattr(Analytics(world).query("by_site", **ASKED), f"to_{name}")()
    assert raised.value.hint == "pip install 'penstock[frames]'"
