"""Roll-ups as tables of SQL: the cells that the real shard wrote, against the events themselves, whichever way the rows are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from query_world import BEGIN, DAY, DAYS, HOUR, MINUTE, World, by_site, events, expected, iso

from penstock.archive.directory import DirectoryArchive
from penstock.errors import QueryError
from penstock.query.sql import SqlSession
from penstock.query.sql.cells import CellScan
from penstock.table import Table
from penstock.table.memory import MemoryTable
from penstock.table.sqlite import SqliteTable
from penstock.warehouse.duckdb import DuckDbWarehouse

WIDTHS = {"1m": MINUTE, "1h": HOUR, "1d": DAY}
TABLES = {
    "by_site_1m": ("1m", ()),
    "by_site_1h": ("1h", ()),
    "by_site_1d": ("1d", ()),
    "by_site_country_1h": ("1h", ("country",)),
    "by_site_country_1d": ("1d", ("country",)),
    "by_site_country_status_1d": ("1d", ("country", "status")),
}
STATES = ["all folded that can be", "nothing folded", "one partition behind", "folded and not committed", "two incarnations"]


@dataclasses.dataclass
class Stores:
    """As much of a deployment as a session looks at."""

    table: Table
    archive: DirectoryArchive
    warehouse: DuckDbWarehouse


def fill(table: Table, state: str) -> World:
    """A world whose shards stand at some point of their work."""
    world = World(table, fold=state != "nothing folded")
    first, second = events(1, 900), events(2, 900)
    if state == "one partition behind":
        second = [one for one in second if one["ts"] < BEGIN + 2.3 * DAY]
    if state == "two incarnations":
        for partition, made in enumerate((first, second)):
            world.produce(partition, [one for one in made if one["ts"] < BEGIN + 2 * DAY])
            world.count(partition)
        world.recreate()
        first, second = ([one for one in made if one["ts"] >= BEGIN + 2 * DAY] for made in (first, second))
    for partition, made in enumerate((first, second)):
        for start in range(0, len(made), 300):
            world.produce(partition, made[start : start + 300])
            world.count(partition, commit=state != "folded and not committed" or start + 300 < len(made))
    return world


@pytest.fixture(
    scope="module", params=[(kind, state) for kind in ("memory", "sqlite") for state in STATES], ids=lambda pair: " ".join(pair)
)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, SqlSession]]:
    folder = tmp_path_factory.mktemp("sql")
    kind, state = request.param
    table: Table = MemoryTable() if kind == "memory" else SqliteTable(folder / "cells.db")
    yield fill(table, state), session(table, folder)
    table.close()


def session(table: Table, folder: Path, **options: Any) -> SqlSession:
    stores = Stores(table, DirectoryArchive(folder / "archive"), DuckDbWarehouse(folder / "warehouse.duckdb"))
    return SqlSession(stores, **options)  # type: ignore[arg-type]


def rows(session: SqlSession, statement: str) -> list[dict[str, Any]]:
    with session.run(statement) as reader:
        found: list[dict[str, Any]] = reader.read_all().to_pylist()
    return found


def truth(world: World, name: str, passes: Any = lambda site, window: True) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What a table holds, computed from the events: by (site, window, *dimensions)."""
    width, by = TABLES[name]
    found = {}
    for site in ("a", "b"):
        for (window, *place), measures in expected(world.counted, site, BEGIN, BEGIN + DAYS * DAY, WIDTHS[width], by).items():
            if (measures["views"] or measures["clicks"]) and passes(site, window):
                found[(site, window, *place)] = measures
    return found


def check(found: list[dict[str, Any]], name: str, wanted: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    by = TABLES[name][1]
    keyed = {(row["site"], row["time"].isoformat() + "Z", *(row[one] for one in by)): row for row in found}
    assert len(keyed) == len(found)
    assert keyed.keys() == wanted.keys()
    for key, measures in wanted.items():
        for measure, value in measures.items():
            got = keyed[key][measure]
            if measure == "users":
                assert got == value[1], key
            elif measure == "last":
                assert got.isoformat() + "Z" == value, key
            else:
                assert got == value, (key, measure)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_what_the_events_come_to(filled: tuple[World, SqlSession], name: str) -> None:
    world, sql = filled
    assert world.counted
    check(rows(sql, f"SELECT * FROM rollup.{name}"), name, truth(world, name))


@pytest.mark.parametrize("name", TABLES)
def test_a_part_of_the_time(filled: tuple[World, SqlSession], name: str) -> None:
    world, sql = filled
    for start, end in ((BEGIN + 30 * HOUR, BEGIN + 50 * HOUR), (BEGIN + 2 * DAY, BEGIN + 3 * DAY), (BEGIN + 4 * DAY, BEGIN + 9 * DAY)):
        found = rows(sql, f"SELECT * FROM rollup.{name} WHERE time >= '{iso(start)[:-1]}' AND time < '{iso(end)[:-1]}'")
        check(found, name, truth(world, name, lambda site, window, start=start, end=end: iso(start) <= window < iso(end)))


@pytest.mark.parametrize("name", TABLES)
def test_some_entities(filled: tuple[World, SqlSession], name: str) -> None:
    world, sql = filled
    check(rows(sql, f"SELECT * FROM rollup.{name} WHERE site = 'b'"), name, truth(world, name, lambda site, _: site == "b"))
    both = f"WITH x AS (SELECT * FROM rollup.{name}) SELECT x.* FROM x WHERE site IN ('b', 'nobody', 'a') AND time >= '2024-03-03'"
    check(rows(sql, both), name, truth(world, name, lambda _, window: window >= "2024-03-03"))
    assert rows(sql, f"SELECT * FROM rollup.{name} WHERE site = 'nobody'") == []


def test_only_the_columns_that_a_statement_reads(filled: tuple[World, SqlSession]) -> None:
    world, sql = filled
    wanted = truth(world, "by_site_country_1h")
    [found] = rows(
        sql, "SELECT sum(views) AS views, count(*) AS n, max(dearest) AS dearest FROM rollup.by_site_country_1h WHERE country <> 'DE'"
    )
    passing = {key: one for key, one in wanted.items() if key[2] != "DE"}
    assert (found["views"], found["n"]) == (sum(one["views"] for one in passing.values()), len(passing))
    assert found["dearest"] == max(one["dearest"] for one in passing.values() if one["dearest"] is not None)


def test_how_the_rows_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = MemoryTable()
    fill(table, "all folded that can be")
    seen: list[str] = []
    for way in ("_by_entity", "_by_index", "_all"):
        real = getattr(CellScan, way)
        monkeypatch.setattr(CellScan, way, lambda self, *a, way=way, real=real: (seen.append(way), real(self, *a))[1])
    sql = session(table, tmp_path)

    def ways(statement: str) -> set[str]:
        seen.clear()
        rows(sql, statement)
        return set(seen)

    assert ways("SELECT * FROM rollup.by_site_1h WHERE site = 'a'") == {"_by_entity"}
    assert ways("SELECT * FROM rollup.by_site_1h WHERE site IN ('a', 'b') AND time = '2024-03-02'") == {"_by_entity"}
    assert ways("FROM (SELECT * FROM rollup.by_site_1h) AS x JOIN (VALUES (1)) v ON true WHERE time::DATE = '2024-03-02'") == {"_by_index"}
    assert ways("SELECT * FROM rollup.by_site_1d") == {"_all", "_by_index"}  # the days that are not folded yet are found by the index
    assert ways("SELECT * FROM rollup.by_site_1d WHERE site = 'a' OR views > 1") == {
        "_all",
        "_by_index",
    }


def test_a_scan_that_is_too_large_names_the_fix(tmp_path: Path) -> None:
    table = MemoryTable()
    fill(table, "all folded that can be")
    small = session(table, tmp_path, max_read=50)
    for statement in ("SELECT * FROM rollup.by_site_1m", "SELECT * FROM rollup.by_site_1m WHERE time >= '2024-03-01 05:00'"):
        with pytest.raises(QueryError, match="more than 50 cells") as problem:
            rows(small, statement)
        assert "compare site with values, or time with instants" in str(problem.value)
    assert rows(small, "SELECT * FROM rollup.by_site_1d WHERE site = 'a' AND time = '2024-03-02'")


def test_windows_that_are_no_longer_kept_are_hidden(tmp_path: Path) -> None:
    table = MemoryTable()
    world = World(table, rollup=by_site(minutes="2h"))
    world.produce(0, events(3, 500))
    world.count(0)
    newest = max(one["ts"] for one in world.counted)
    [found] = rows(session(table, tmp_path), "SELECT min(time) AS oldest, max(time) AS newest FROM rollup.by_site_1m")
    oldest = min(one["ts"] // MINUTE * MINUTE for one in world.counted if one["ts"] >= (newest - 2 * HOUR) // MINUTE * MINUTE)
    assert (found["oldest"].isoformat() + "Z", found["newest"].isoformat() + "Z") == (iso(oldest), iso(newest // MINUTE * MINUTE))


def test_a_reader_is_told_how_fresh_the_rows_are(tmp_path: Path) -> None:
    table, notes = MemoryTable(), list[str]()
    world = World(table)
    sql = session(table, tmp_path, noticed=notes.append)
    assert rows(sql, "SELECT * FROM rollup.by_site_1h") == [] and notes == ["roll-up by_site: no event has been counted yet"]
    for partition in (0, 1):
        world.produce(partition, events(4 + partition, 50))
        world.count(partition)
    rows(sql, "SELECT 1 FROM rollup.by_site_1h AS x, rollup.by_site_1d AS y")
    behind = min(max(one["ts"] for one in events(4 + partition, 50)) for partition in (0, 1))
    assert notes[1:] == [f"roll-up by_site: as of {iso(behind)}"]
