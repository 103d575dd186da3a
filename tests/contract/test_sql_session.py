"""A session of SQL: what it reads of the archive, what it refuses, what it says of mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from penstock.bolts import ArchiveBolt

from penstock.archive import Archive, Entry
from penstock.archive.directory import DirectoryArchive
from penstock.archive.s3 import S3Archive
from penstock.errors import CorruptionError, QueryError
from penstock.log.memory import MemoryLog
from penstock.model import Decimal, Enum, Int, Schema, String, Timestamp
from penstock.model.units import HOUR, instant, to_datetime
from penstock.query.sql import CancelledError, SqlSession
from penstock.query.sql.distant import DistantTable
from penstock.query.sql.reading import Reading
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.table import Table
from penstock.table.memory import MemoryTable
from penstock.warehouse import Manifest
from penstock.warehouse.datasets import arrow_schema, dataset_of
from penstock.warehouse.duckdb import DuckDbWarehouse

BEGIN = instant("2026-03-02")
VISITS = Schema(
    "visits",
    time="ts",
    key="site",
    fields={
        "ts": Timestamp("us"),
        "site": String(),
        "kind": Enum("view", "click"),
        "status": Int(nullable=True),
        "cost": Decimal(4, nullable=True),
    },
)
DATASET = dataset_of(VISITS)
HOURS, EACH = 6, 100


@dataclasses.dataclass
class Stores:
    """As much of a deployment as a session looks at."""

    table: Table
    archive: Archive
    warehouse: Any


def row(number: int) -> dict[str, Any]:
    """A visit; `number` says all of it."""
    return {
        "ts": to_datetime(BEGIN + number * (HOUR // EACH)).replace(tzinfo=None),
        "site": f"it's {number % 7}",
        "kind": ("view", "click")[number % 3 == 0],
        "status": None if number % 5 == 0 else 200 + number % 4,
        "cost": None if number % 2 else decimal.Decimal(number) / 8,
        "partition_id": 0,
        "log_offset": number,
        "log_time": to_datetime(BEGIN).replace(tzinfo=None),
    }


ROWS = [row(number) for number in range(HOURS * EACH)]


def write(archive: Archive, hour: int, generation: str) -> Entry:
    """The file of an hour, and its entry."""
    schema = arrow_schema(DATASET)
    rows = ROWS[hour * EACH : (hour + 1) * EACH]
    arrays = [
        pa.array([one[field.name] for one in rows], pa.string()).dictionary_encode().cast(field.type)
        if pa.types.is_dictionary(field.type)
        else pa.array([one[field.name] for one in rows], field.type)
        for field in schema
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=schema), sink)
    data, at = sink.getvalue(), BEGIN + hour * HOUR
    path = f"visits/hour={hour}/{generation}-visits-i-0-{hour * EACH}.parquet"
    archive.write(path, data)
    return Entry(
        "visits", at, path, f"{generation}-visits-i-0", hour * EACH, (hour + 1) * EACH, EACH, len(data), hashlib.sha256(data).hexdigest()
    )


def stores(archive: Archive, folder: Path, loaded: int = 3) -> Stores:
    """The archive's hours, of a generation that is published and of one that is not; the first of them loaded."""
    table, log = MemoryTable(), MemoryLog()
    log.create("visits", 1)
    definition = BoltDefinition("visits.archive", **ArchiveBolt.definition_of(VISITS))
    Registry(table).prepare(definition, log, "visits")
    entries = [write(archive, hour, definition.generation) for hour in range(HOURS)]
    archive.add(entries + [write(archive, 0, "f" * 16)])
    warehouse = DuckDbWarehouse(folder / "it's a warehouse.duckdb")
    warehouse.prepare(DATASET)
    if isinstance(archive, DirectoryArchive):
        for entry in entries[:loaded]:
            warehouse.load(Manifest("visits", entry.hour, (entry,)), [archive.location(entry.path)], BEGIN)
    return Stores(table, archive, warehouse)


@pytest.fixture(params=["directory", "s3"])
def archived(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    archive = S3Archive(request.getfixturevalue("s3")) if request.param == "s3" else DirectoryArchive(tmp_path / "archive")
    return stores(archive, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Stores:
    return stores(DirectoryArchive(tmp_path / "archive"), tmp_path)


def session(stores: Stores, **options: Any) -> SqlSession:
    return SqlSession(stores, **options)  # type: ignore[arg-type]


def ask(stores: Stores, statement: str, **options: Any) -> list[dict[str, Any]]:
    with session(stores, **options).run(statement) as reader:
        found: list[dict[str, Any]] = reader.read_all().to_pylist()
    return found


def test_the_archive_as_a_table(archived: Stores) -> None:
    assert ask(archived, "SELECT * FROM archive.visits ORDER BY log_offset") == ROWS
    [found] = ask(
        archived, "SELECT count(*) AS n, sum(cost) AS cost FROM archive_visits WHERE kind = 'click' AND site IN ('it''s 1', 'it''s 2')"
    )
    passing = [one for one in ROWS if one["kind"] == "click" and one["site"] in ("it's 1", "it's 2")]
    assert found == {"n": len(passing), "cost": sum(one["cost"] for one in passing if one["cost"] is not None)}
    assert ask(archived, "SELECT * FROM archive.visits_late") == ask(archived, "SELECT * FROM archive.visits_rejects") == []


class Watched:
    """An archive that tells which hours are listed."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self.listed = archive, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        self.listed.append((hour - BEGIN) // HOUR)
        return self._archive.entries(dataset, hour)


@pytest.mark.parametrize(
    "condition, hours",
    [
        ("ts >= '2026-03-02 02:00' AND ts < '2026-03-02 04:00'", [2, 3]),
        ("ts::DATE = '2026-03-03'", []),
        ("date_trunc('hour', ts) = '2026-03-02 05:00'", [5]),
        ("ts BETWEEN '2026-03-02 00:30' AND '2026-03-02 00:31' OR ts > '2026-03-02 05:59'", [0, 5]),
        ("kind = 'click'", list(range(HOURS))),
    ],
)
def test_only_hours_that_can_match_are_listed(local: Stores, condition: str, hours: list[int]) -> None:
    watched = Watched(local.archive)
    local.archive = watched  # type: ignore[assignment]
    found = ask(local, f"SELECT log_offset FROM archive.visits WHERE {condition} ORDER BY 1")
    assert watched.listed == hours
    local.archive = watched._archive
    everything = ask(local, f"WITH x AS MATERIALIZED (SELECT * FROM archive.visits) SELECT log_offset FROM x WHERE {condition} ORDER BY 1")
    assert found == everything


def test_the_warehouse_by_both_names(local: Stores) -> None:
    loaded = [{"n": 3 * EACH}]
    assert ask(local, "SELECT count(*) AS n FROM visits") == ask(local, "SELECT count(*) AS n FROM warehouse.visits") == loaded
    assert ask(local, "SELECT count(*) AS n FROM archive.visits a LEFT JOIN visits w USING (log_offset) WHERE w.site IS NULL") == loaded
    assert len(ask(local, "SELECT dataset, hour FROM penstock_ledger")) == 3
    listed = {(one["database"], one["schema"], one["name"]) for one in ask(local, "SHOW ALL TABLES")}
    datasets = ("visits", "visits_late", "visits_rejects")
    assert {one for one in listed if one[0] == "memory"} == {("memory", "archive", name) for name in datasets} | {
        ("memory", "main", f"archive_{name}") for name in datasets
    }
    assert ("warehouse", "main", "visits") in listed and not any(database == "temp" for database, _, _ in listed)
    assert [one["column_name"] for one in ask(local, "DESCRIBE archive.visits")] == arrow_schema(DATASET).names
    assert (
        ask(local, "EXPLAIN SELECT * FROM visits") and ask(local, "SUMMARIZE visits") and ask(local, "PIVOT visits ON kind USING count(*)")
    )


def test_the_warehouse_is_not_opened_for_what_does_not_name_it(local: Stores) -> None:
    with contextlib.ExitStack() as stack:
        held = threading.Event()

        def hold() -> None:
            with local.warehouse._turn:
                held.set()
                done.wait()

        done = threading.Event()
        thread = threading.Thread(target=hold)
        thread.start()
        stack.callback(thread.join)
        stack.callback(done.set)
        held.wait()
        assert ask(local, "SELECT count(*) AS n FROM archive.visits") == [{"n": len(ROWS)}]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{warehouse}')",
        "SELECT * FROM read_parquet('{archive}/visits/hour=0/*.parquet')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{there}''')",
        "COPY (SELECT 1) TO '{there}'",
        "COPY visits FROM '/etc/passwd'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{there}'",
        "ATTACH '{there}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA enable_external_access",
        "EXPORT DATABASE '{there}'",
        "CREATE TABLE mine AS SELECT 1",
        "INSERT INTO warehouse.visits SELECT * FROM visits",
        "DELETE FROM warehouse.visits",
        "EXPLAIN ANALYZE DELETE FROM warehouse.visits",
        "DROP TABLE warehouse.visits",
        "CALL pragma_version()",
        "SELECT * FROM local",
        "SELECT getenv('HOME')",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_reading_only_and_nothing_but_the_tables(local: Stores, tmp_path: Path, statement: str) -> None:
    there = tmp_path / "there"
    filled = statement.format(there=there, warehouse=local.warehouse.path, archive=tmp_path / "archive")
    with pytest.raises(QueryError):
        ask(local, filled)
    assert not there.exists() and ask(local, "SELECT count(*) AS n FROM visits") == [{"n": 3 * EACH}]


@pytest.mark.parametrize(
    "statement, hint",
    [
        ("SELECT * FROM visitz", "did you mean archive.visits"),
        ("SELECT * FROM archive.vists", "did you mean archive.visits"),
        ("SELECT * FROM nothing_like_it", "SHOW ALL TABLES"),
    ],
)
def test_a_name_that_is_near_is_offered(local: Stores, statement: str, hint: str) -> None:
    with pytest.raises(QueryError) as problem:
        ask(local, statement)
    assert hint in (problem.value.hint or "") and "pg_catalog" not in str(problem.value)


def test_what_is_archived_and_not_loaded_is_said(tmp_path: Path) -> None:
    made = stores(DirectoryArchive(tmp_path / "archive"), tmp_path)
    made.warehouse = DuckDbWarehouse(tmp_path / "none.duckdb")
    with pytest.raises(QueryError) as problem:
        ask(made, "SELECT * FROM visits")
    assert "archive.visits has what is archived" in str(problem.value) and "penstock export" in str(problem.value)
    assert not (tmp_path / "none.duckdb").exists()


def test_a_file_that_is_missing_or_damaged_is_named(local: Stores, tmp_path: Path) -> None:
    [file] = (tmp_path / "archive" / "visits" / "hour=2").glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorruptionError, match=r"archive\.visits: .*hour=2"):
        ask(local, "SELECT sum(status) FROM archive.visits")
    file.unlink()
    with pytest.raises(CorruptionError, match=r"archive\.visits: .*hour=2"):
        ask(local, "SELECT sum(status) FROM archive.visits")
    assert ask(local, "SELECT count(status) AS n FROM archive.visits WHERE ts < '2026-03-02 02:00'") == [{"n": 2 * EACH * 4 // 5}]
    file.write_bytes(whole)
    assert ask(local, "SELECT count(*) AS n FROM archive.visits") == [{"n": len(ROWS)}]


def test_a_statement_is_cancelled_from_another_thread(local: Stores) -> None:
    running = session(local)
    timer = threading.Timer(0.3, running.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        with running.run("SELECT sum(sin(a.range) * cos(b.range)) FROM range(1000000) a, range(1000000) b") as reader:
            reader.read_all()
    timer.join()
    with running.run("SELECT 1 AS one") as reader:
        assert reader.read_all().to_pylist() == [{"one": 1}]


class Distant:
    """A warehouse that is asked for rows, and says what it was asked; DuckDB's file answers."""

    def __init__(self, warehouse: DuckDbWarehouse) -> None:
        self._warehouse, self.asked = warehouse, list[str]()

    def query(self, sql: str) -> Any:
        self.asked.append(sql)
        return self._warehouse.query(sql)


def test_of_a_distant_warehouse_only_what_is_needed_is_fetched(local: Stores) -> None:
    distant = Distant(local.warehouse)
    near = ask(local, "SELECT site, count(*) AS n FROM visits WHERE ts >= '2026-03-02 00:30' AND site IN ('it''s 1', 'x') GROUP BY 1")
    local.warehouse = distant
    assert (
        ask(local, "SELECT site, count(*) AS n FROM visits WHERE ts >= '2026-03-02 00:30' AND site IN ('it''s 1', 'x') GROUP BY 1") == near
    )
    assert distant.asked == [
        'SELECT "ts", "site" FROM "visits" WHERE "ts" >= TIMESTAMP \'2026-03-02 00:00:00\' AND "site" IN (\'it\'\'s 1\', \'x\') LIMIT 2000001'
    ]
    with pytest.raises(QueryError, match="fetches more than 50 rows") as problem:
        ask(local, "SELECT sum(cost) FROM warehouse.visits", max_read=50)
    assert "--engine warehouse" in str(problem.value)


@pytest.mark.parametrize("key", ["back\\slash", "tab\t"])
def test_a_key_that_has_no_literal_is_filtered_here(local: Stores, key: str) -> None:
    table = DistantTable(local.warehouse, DATASET, Reading((key,), 10_000))
    assert "IN" not in table.statement(["site"], ds.field("site") == key)
    assert sum(batch.num_rows for batch in table.scan(["site"], (ds.field("site") == key) & (ds.field("log_offset") < 5))) == 0
