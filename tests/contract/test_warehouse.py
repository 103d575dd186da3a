"""What every warehouse does: an hour is loaded whole, once, from exactly its manifest's files, whatever stops it on the way."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import functools
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warehouse_worlds import ADS, H, Files, World, offsets, rows_of

from penstock.errors import ConfigurationError, CorruptionError, LoadError, NotFoundError, QueryError, UnavailableError
from penstock.model.units import HOUR
from penstock.warehouse import Column, Dataset, Manifest, Warehouse
from penstock.warehouse.datasets import arrow_schema
from penstock.warehouse.duckdb import DuckDbWarehouse


@pytest.fixture(params=["duckdb", "redshift"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A warehouse that is empty, and an archive. Redshift's side is the stand-in, with an S3 of the tests' own."""
    if request.param == "duckdb":
        return World("duckdb", tmp_path)
    return World("redshift", (request.getfixturevalue("s3"), request.getfixturevalue("redshift")))


@pytest.fixture
def warehouse(world: World) -> Iterator[Warehouse]:
    """A warehouse with the table of ADS."""
    store = world.open()
    store.prepare(ADS)
    yield store
    store.close()


@pytest.fixture
def files(world: World) -> Files:
    return Files(world.archive())


def test_an_hour_is_loaded_once_with_every_value_as_it_was(warehouse: Warehouse, files: Files) -> None:
    manifest, paths = files.manifest(files.file(0, 6), files.file(6, 10))
    assert warehouse.load(manifest, paths, 1_500_000) == "loaded"
    assert warehouse.load(manifest, paths, 2_500_000) == "unchanged"
    found = warehouse.query(
        'SELECT ts, advertiser, "hour", "type", cost, partition_id, log_offset, log_time FROM ads ORDER BY log_offset'
    ).to_pylist()
    assert found == pa.concat_tables([rows_of(0, 6), rows_of(6, 10)]).to_pylist()
    assert found[1] == {
        "ts": dt.datetime(2015, 5, 17, 10, 0, 0, 1000),
        "advertiser": 1,
        "hour": "h'1",
        "type": "click",
        "cost": decimal.Decimal("0.125"),
        "partition_id": 0,
        "log_offset": 1,
        "log_time": dt.datetime(2015, 5, 17, 10),
    }
    (row,) = warehouse.ledger("ads")
    assert dataclasses.astuple(row) == ("ads", H, manifest.hash, 10, {"g-ads-i-0": [(0, 10)]}, 1_500_000)
    assert warehouse.ledger("other") == []


def test_an_hour_of_many_rows_is_loaded_whole(warehouse: Warehouse, files: Files) -> None:
    """More rows than a row group, from many files, which an engine reads and writes in parallel."""
    manifest, paths = files.manifest(*(files.file(n * 20_000, (n + 1) * 20_000) for n in range(13)))
    for _ in range(2):  # into an empty table, then in place of what is there
        assert warehouse.load(manifest, paths, 1) == "loaded"
        assert warehouse.query("SELECT count(DISTINCT log_offset) d, sum(log_offset)::BIGINT s, count(*) c FROM ads").to_pylist() == [
            {"d": 260_000, "s": 260_000 * 259_999 // 2, "c": 260_000}
        ]
        manifest = dataclasses.replace(manifest, entries=manifest.entries[::-1])  # another manifest of the same files
        paths.reverse()


def test_late_files_make_a_new_manifest_that_takes_the_place_of_the_hour(warehouse: Warehouse, files: Files) -> None:
    first, late, other = files.file(0, 10), files.file(10, 12), files.file(0, 5, hour=H + HOUR)
    warehouse.load(*files.manifest(first), 1)
    warehouse.load(*files.manifest(other), 2)
    assert warehouse.load(*files.manifest(first, late), 3) == "loaded"
    assert offsets(warehouse) == sorted([*range(12), *range(5)])
    assert [(row.hour, row.rows, row.loaded_at) for row in warehouse.ledger("ads")] == [(H, 12, 3), (H + HOUR, 5, 2)]


def test_a_merged_file_in_place_of_its_parts_loads_the_same_rows(warehouse: Warehouse, files: Files) -> None:
    warehouse.load(*files.manifest(files.file(0, 10), files.file(10, 12)), 1)
    assert warehouse.load(*files.manifest(files.file(0, 12)), 2) == "loaded"
    assert offsets(warehouse) == list(range(12))


@pytest.mark.parametrize("kept", [[(0, 10)], [(10, 20)], [(0, 15), (17, 20)]])
def test_a_manifest_without_all_offsets_that_were_loaded_is_refused(
    warehouse: Warehouse, files: Files, kept: list[tuple[int, int]]
) -> None:
    warehouse.load(*files.manifest(files.file(0, 20), files.file(0, 3, shard="g-ads-i-1")), 1)
    before = offsets(warehouse)
    with pytest.raises(LoadError, match=r"ads 2015-05-17T10: .* offsets 0 to 20 of shard g-ads-i-0"):
        warehouse.load(*files.manifest(*(files.file(a, b) for a, b in kept), files.file(0, 3, shard="g-ads-i-1")), 2)
    with pytest.raises(LoadError, match="shard g-ads-i-1"):
        warehouse.load(*files.manifest(files.file(0, 20)), 2)
    assert offsets(warehouse) == before and warehouse.ledger("ads")[0].loaded_at == 1


def test_a_missing_file_fails_the_load_naming_it_and_loads_nothing(warehouse: Warehouse, files: Files) -> None:
    one, two = files.file(0, 5), files.file(5, 9)
    files.archive.remove([two[0].path])
    with pytest.raises(LoadError, match="g-ads-i-0-5-9.*is not there"):
        warehouse.load(*files.manifest(one, two), 1)
    assert offsets(warehouse) == [] and warehouse.ledger("ads") == []


@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:], lambda d: b"", lambda d: d + b"x"])
def test_a_corrupt_file_fails_the_load_naming_it_and_keeps_what_was_loaded(
    warehouse: Warehouse, files: Files, damage: Callable[[bytes], bytes]
) -> None:
    one, two = files.file(0, 5), files.file(5, 9)
    warehouse.load(*files.manifest(one), 1)
    files.damage(two, damage(files.archive.read(two[0].path)))
    with pytest.raises(LoadError, match="g-ads-i-0-5-9.*SHA-256"):
        warehouse.load(*files.manifest(one, two), 2)
    assert offsets(warehouse) == list(range(5)) and warehouse.ledger("ads")[0].loaded_at == 1


def test_a_file_that_was_never_parquet_fails_the_load_naming_it(warehouse: Warehouse, files: Files) -> None:
    with pytest.raises(LoadError, match="text.parquet cannot be read"):
        warehouse.load(*files.manifest(files.store("text", b"not parquet", "s", 0, 1, 1)), 1)


def test_a_file_with_another_number_of_rows_than_its_entry_fails_the_load(warehouse: Warehouse, files: Files) -> None:
    entry, path = files.file(0, 5)
    with pytest.raises(LoadError, match="holds 5 rows, not the 6"):
        warehouse.load(*files.manifest((dataclasses.replace(entry, rows=6), path)), 1)


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_outside_the_hour_fail_the_load_naming_the_file(warehouse: Warehouse, files: Files, statistics: bool) -> None:
    """Whether the file's footer says what times it has, or they have to be read."""
    sink = io.BytesIO()
    pq.write_table(rows_of(0, 4, hour=H + HOUR), sink, write_statistics=statistics)
    with pytest.raises(LoadError, match="strayed.parquet has rows from 2015-05-17T11:00:00Z to .*, which lie outside the hour by 'ts'"):
        warehouse.load(*files.manifest(files.file(4, 6), files.store("strayed", sink.getvalue(), "g-ads-i-0", 0, 4, 4)), 1)
    assert offsets(warehouse) == []


def test_a_file_whose_footer_says_nothing_of_its_values_is_loaded(warehouse: Warehouse, files: Files) -> None:
    sink = io.BytesIO()
    pq.write_table(rows_of(0, 9), sink, write_statistics=False, row_group_size=4)
    assert warehouse.load(*files.manifest(files.store("plain", sink.getvalue(), "g-ads-i-0", 0, 9, 9)), 1) == "loaded"
    assert offsets(warehouse) == list(range(9))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.append_column("extra", t["advertiser"]), "has a column 'extra'"),
        (lambda t: t.drop_columns(["advertiser"]), "lacks the column 'advertiser'"),
        (lambda t: t.select(t.column_names[::-1]), "not in the dataset's order"),
        (lambda t: t.set_column(0, "ts", t["ts"].cast(pa.int64())), "has 'ts' as int64"),
        (lambda t: t.set_column(1, "advertiser", t["advertiser"].cast(pa.string())), "has 'advertiser' as string"),
        (lambda t: t.set_column(4, "cost", t["cost"].cast(pa.decimal128(18, 7))), "has 'cost' as decimal128"),
    ],
)
def test_a_file_with_other_columns_fails_the_load_naming_it(
    warehouse: Warehouse, files: Files, change: Callable[[pa.Table], pa.Table], problem: str
) -> None:
    with pytest.raises(LoadError, match=problem):
        warehouse.load(*files.manifest(files.file(0, 5), files.file(5, 9, change(rows_of(5, 9)))), 1)
    assert offsets(warehouse) == []


def test_a_manifest_of_no_files_and_one_of_an_unknown_dataset_are_refused(warehouse: Warehouse, files: Files) -> None:
    with pytest.raises(LoadError, match="names no file"):
        warehouse.load(Manifest("ads", H, ()), [], 1)
    entry, path = files.file(0, 1)
    with pytest.raises(NotFoundError, match="'other'"):
        warehouse.load(Manifest("other", H, (dataclasses.replace(entry, dataset="other"),)), [path], 1)


def test_columns_added_to_the_schema_are_null_in_older_rows_and_files(warehouse: Warehouse, files: Files) -> None:
    warehouse.load(*files.manifest(files.file(0, 3)), 1)
    wider = dataclasses.replace(ADS, columns=(*ADS.columns[:2], Column("campaign", "int", False), *ADS.columns[2:]))
    warehouse.prepare(wider)
    warehouse.prepare(wider)
    table = rows_of(3, 5)
    new = files.file(3, 5, table.add_column(2, pa.field("campaign", pa.int64()), pa.array([7, 8])))
    assert warehouse.load(*files.manifest(files.file(0, 3), new), 2) == "loaded"
    assert warehouse.query("SELECT log_offset, campaign, advertiser FROM ads ORDER BY 1").to_pydict() == {
        "log_offset": [0, 1, 2, 3, 4],
        "campaign": [None, None, None, 7, 8],
        "advertiser": [0, 1, 2, 3, 4],
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: [x for x in c if x.name != "type"], "'type' is in the warehouse and no longer in the schema"),
        (
            lambda c: [dataclasses.replace(x, kind="string") if x.name == "advertiser" else x for x in c],
            "'advertiser' is int in the warehouse and string",
        ),
        (
            lambda c: [dataclasses.replace(x, scale=2) if x.name == "cost" else x for x in c],
            "decimal with 6 places in the warehouse and decimal with 2",
        ),
        (lambda c: [*c, Column('x"; DROP TABLE ads; --', "int", True)], "is not a usable name"),
        (lambda c: [*c, c[0]], "twice"),
    ],
)
def test_a_change_that_would_lose_data_is_refused(
    warehouse: Warehouse, change: Callable[[tuple[Column, ...]], list[Column]], problem: str
) -> None:
    before = warehouse.query("SELECT * FROM ads").schema
    with pytest.raises(ConfigurationError, match=problem):
        warehouse.prepare(dataclasses.replace(ADS, columns=tuple(change(ADS.columns))))
    assert warehouse.query("SELECT * FROM ads").schema == before


def test_the_event_time_may_not_become_another_column(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="loaded by 'ts'"):
        warehouse.prepare(dataclasses.replace(ADS, time="log_time"))


def test_a_dataset_may_not_take_the_ledgers_name(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="penstock_ledger"):
        warehouse.prepare(dataclasses.replace(ADS, name="penstock_ledger"))


def test_an_enum_may_become_a_string(warehouse: Warehouse) -> None:
    warehouse.prepare(
        dataclasses.replace(ADS, columns=tuple(dataclasses.replace(c, kind="string") if c.kind == "enum" else c for c in ADS.columns))
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("SELECT CAST('x' AS INT)", "x"),
    ],
)
def test_sql_that_cannot_run_is_an_error_with_the_engines_message(warehouse: Warehouse, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        warehouse.query(sql)


def test_a_query_answers_as_arrow_and_sees_no_variable_of_ours(warehouse: Warehouse) -> None:
    assert warehouse.query("SELECT 40 + 2 AS answer").to_pydict() == {"answer": [42]}
    with pytest.raises(QueryError):
        warehouse.query("SELECT * FROM sql")


def test_two_loaders_at_once_load_an_hour_once(world: World, warehouse: Warehouse, files: Files) -> None:
    manifest, paths = files.manifest(files.file(0, 50))
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    loaders = [context.Process(target=_load, args=(world, manifest, paths, answers)) for _ in range(2)]
    for loader in loaders:
        loader.start()
    threads = [threading.Thread(target=_load, args=(world, manifest, paths, answers)) for _ in range(2)]
    for thread in threads:
        thread.start()
    found = sorted(answers.get(timeout=60) for _ in range(4))
    for loader in loaders:
        loader.join(60)
    for thread in threads:
        thread.join(60)
    assert found == ["loaded", "unchanged", "unchanged", "unchanged"]
    assert offsets(warehouse) == list(range(50))


def _load(world: World, manifest: Manifest, paths: list[str], answers: Any) -> None:
    answers.put(world.open().load(manifest, paths, 1))


def _load_and_die(world: World, step: str, manifest: Manifest, paths: list[str]) -> None:
    """Load in a process that is killed at a step of the load, as by a power cut."""
    store = world.open()
    store.step = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
    store.load(manifest, paths, 2)


def _run_all(jobs: list[tuple[World, str, Manifest, list[str]]]) -> list[int | None]:
    """Run loads that die, each in a process of its own, two at a time. Their exit codes."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_load_and_die, args=job) for job in jobs]
    codes = []
    for pair in (workers[n : n + 2] for n in range(0, len(workers), 2)):
        for worker in pair:
            worker.start()
        for worker in pair:
            worker.join(60)
            codes.append(worker.exitcode)
    return codes


def test_a_loader_killed_at_any_step_leaves_the_hour_old_or_new_and_the_next_load_completes_it(
    world: World, warehouse: Warehouse, files: Files
) -> None:
    """Every step has an hour of its own; all of them are loaded once, and then again with a late file by a process that dies."""
    hours = {step: H + HOUR * at for at, step in enumerate(world.steps)}
    jobs = []
    for step, hour in hours.items():
        first, late = files.file(0, 1000, hour=hour), files.file(1000, 1500, hour=hour)
        assert warehouse.load(*files.manifest(first), 1) == "loaded"
        jobs.append((world, step, *files.manifest(first, late)))
    assert _run_all(jobs) == [-signal.SIGKILL] * len(jobs)
    assert [(row.hour, row.rows) for row in warehouse.ledger("ads")] == [
        (hour, 1500 if step == "committed" else 1000) for step, hour in hours.items()
    ]
    assert offsets(warehouse) == sorted(n for row in warehouse.ledger("ads") for n in range(row.rows))
    for _, step, manifest, paths in jobs:
        assert warehouse.load(manifest, paths, 3) == ("unchanged" if step == "committed" else "loaded"), step
    assert [(row.rows, row.manifest_hash) for row in warehouse.ledger("ads")] == [(1500, job[2].hash) for job in jobs]
    assert offsets(warehouse) == sorted([*range(1500)] * len(jobs))
    assert world.left_over() == []


def test_a_load_that_fails_at_any_step_keeps_what_was_loaded(world: World, warehouse: Any, files: Files) -> None:
    first, late = files.file(0, 10), files.file(10, 15)
    warehouse.load(*files.manifest(first), 1)
    for step in world.steps:
        if step == "committed":
            continue

        def fail(name: str, at: str = step) -> None:
            if name == at:
                raise world.fault("disk on fire")

        warehouse.step = fail
        with pytest.raises((LoadError, UnavailableError), match="disk on fire"):
            warehouse.load(*files.manifest(first, late), 2)
        assert offsets(warehouse) == list(range(10)), step
        assert warehouse.ledger("ads")[0].manifest_hash == files.manifest(first)[0].hash, step
        assert world.left_over() == [], step
    del warehouse.step
    assert warehouse.load(*files.manifest(first, late), 3) == "loaded"
    assert offsets(warehouse) == list(range(15))


def test_a_file_that_another_process_holds_is_waited_for_and_then_unavailable(tmp_path: Path) -> None:
    DuckDbWarehouse(tmp_path / "w").prepare(ADS)
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.readline()"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "w")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UnavailableError, match="held by another process"):
        DuckDbWarehouse(tmp_path / "w", timeout=0.2).query("SELECT 1")
    release = threading.Timer(0.2, functools.partial(holder.communicate, b"\n"))
    release.start()
    assert DuckDbWarehouse(tmp_path / "w").query("SELECT count(*) c FROM ads").to_pydict() == {"c": [0]}
    release.join()
    assert holder.returncode == 0


def test_what_is_not_a_warehouse_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"no database" * 2000)
    with pytest.raises(CorruptionError, match="w is not a sound DuckDB file"):
        DuckDbWarehouse(tmp_path / "w").query("SELECT 1")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        DuckDbWarehouse(tmp_path / "w" / "below").query("SELECT 1")
    fresh = DuckDbWarehouse(tmp_path / "fresh")
    assert fresh.ledger("ads") == []
    assert fresh.query("SELECT 1 AS one").to_pydict() == {"one": [1]}
    assert fresh.ledger("ads") == []


def test_a_table_that_penstock_did_not_make_is_left_alone(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w")) as connection:
        connection.execute("CREATE TABLE ads AS SELECT 42 AS mine")
    store = DuckDbWarehouse(tmp_path / "w")
    with pytest.raises(ConfigurationError, match="'ads'"):
        store.prepare(ADS)
    assert store.query("SELECT mine FROM ads").to_pydict() == {"mine": [42]}


def test_writing_through_a_query_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError, match="read-only"):
        warehouse.query("DELETE FROM penstock_ledger")


def test_dataset_definitions_are_hashable_so_that_their_arrow_schema_is_made_once() -> None:
    assert arrow_schema(ADS) is arrow_schema(Dataset(ADS.name, ADS.columns, ADS.time, ADS.key))
