"""Real traffic, as a user would run it, against DuckDB over the same file: 10,000 requests to a public web site, one of them broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = str(ROOT / "topologies" / "page_analytics.py")
Penstock = Callable[..., str]

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=["jsonl", "combined"])
def penstock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Penstock:
    """The command line over a deployment that has taken in the file and exported every hour."""
    folder = tmp_path_factory.mktemp(request.param)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments, "--on", f"local:{folder}"], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    file, *options = {"jsonl": ["pageviews.jsonl"], "combined": ["access.log", "--format", "combined"]}[request.param]
    run("produce", TOPOLOGY, str(shared / "data" / file), *options)
    run("run", TOPOLOGY, "--until-caught-up")
    run("export", TOPOLOGY, "--due")
    return run


@pytest.fixture(scope="module")
def truth(shared: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB over the same requests; it skips the broken line."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE requests AS SELECT *, epoch_ms(ts) AS moment FROM read_json(?, format='newline_delimited', ignore_errors=true, columns={"
        "ts: 'BIGINT', ip: 'VARCHAR', method: 'VARCHAR', path: 'VARCHAR', status: 'BIGINT', bytes: 'BIGINT'}) WHERE ts IS NOT NULL AND path IS NOT NULL",
        [str(shared / "data" / "pageviews.jsonl")],
    )
    return connection


def test_every_offset_is_counted_once(penstock: Penstock) -> None:
    shards = [shard for shard in json.loads(penstock("status", TOPOLOGY, "--json"))["shards"] if shard["bolt"] == "page_analytics.rollups"]
    totals = {
        name: sum(shard[name] for shard in shards) for name in ("committed", "accepted", "rejected", "late", "skipped", "lost", "lag")
    }
    assert totals == {"committed": 10_000, "accepted": 9_999, "rejected": 1, "late": 0, "skipped": 0, "lost": 0, "lag": 0}


def test_pages_equal_duckdb_by_hour_and_status(penstock: Penstock, truth: duckdb.DuckDBPyConnection) -> None:
    paths = [path for (path,) in truth.execute("SELECT path FROM requests GROUP BY path ORDER BY count(*) DESC, path LIMIT 5").fetchall()]
    for path in paths:
        expected = {
            (str(hour).replace(" ", "T") + "Z", status): (views, size)
            for hour, status, views, size in truth.execute(
                "SELECT date_trunc('hour', moment), status, count(*), sum(coalesce(bytes, 0)) FROM requests WHERE path = ? GROUP BY ALL",
                [path],
            ).fetchall()
        }
        answer = json.loads(
            penstock(
                "query",
                "traffic",
                "--entity",
                path,
                "--from",
                "2015-05-17",
                "--to",
                "2015-05-21",
                "--interval",
                "1h",
                "--by",
                "status",
                "--format",
                "json",
            )
        )
        assert {(row["time"], row["status"]): (row["views"], row["bytes"]) for row in answer["rows"]} == expected


def test_visitors_lie_within_the_stated_error(penstock: Penstock, truth: duckdb.DuckDBPyConnection) -> None:
    for path, visitors in truth.execute("SELECT path, count(DISTINCT ip) FROM requests GROUP BY path ORDER BY 2 DESC LIMIT 5").fetchall():
        answer = json.loads(
            penstock("query", "traffic", "--entity", path, "--from", "2015-05-17", "--to", "2015-05-21", "--format", "json")
        )
        assert abs(answer["rows"][0]["visitors"] - visitors) <= max(1, 3 * answer["errors"]["visitors"] * visitors)


def test_the_warehouse_holds_each_request_once_however_often_it_is_loaded(penstock: Penstock, truth: duckdb.DuckDBPyConnection) -> None:
    for _ in range(2):
        found = json.loads(
            penstock(
                "sql",
                "SELECT count(*) AS n, count(DISTINCT (partition_id, log_offset)) AS different, sum(bytes) AS size FROM pages",
                "--format",
                "json",
            )
        )
        assert [tuple(row.values()) for row in found] == [(9_999, 9_999, truth.execute("SELECT sum(bytes) FROM requests").fetchone()[0])]
        assert "loaded" not in penstock("export", TOPOLOGY, "--due")
    by_hour = json.loads(
        penstock(
            "sql",
            "SELECT CAST(date_trunc('hour', ts) AS VARCHAR) AS hour, count(*) AS n FROM pages GROUP BY 1 ORDER BY 1",
            "--format",
            "json",
        )
    )
    expected = truth.execute("SELECT CAST(date_trunc('hour', moment) AS VARCHAR), count(*) FROM requests GROUP BY 1 ORDER BY 1").fetchall()
    assert [tuple(row.values()) for row in by_hour] == expected
