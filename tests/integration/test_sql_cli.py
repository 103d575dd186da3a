"""`penstock sql` as a command: statements, files, pipes and reports, in every format."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.cli import execute
from penstock.cli.base import USAGE
from penstock.deployment import Deployment
from penstock.log.generate import AdEvents, generate_into
from penstock.model import Schema
from penstock.runner.local import LocalRunner, prepare
from penstock.topology import load_topology

COUNT, MADE = 1500, {"advertisers": 3, "users": 50, "too_late": 0.0}


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment with some ads, archived, rolled up and loaded."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    topology = load_topology("advertiser_analytics")
    with Deployment("cli", {"local": str(folder), "partitions": 1}) as deployment:
        deployment.log.create("ads", 1)
        generate_into(deployment.log, Schema.from_json(next(iter(topology.definitions.values())).schema), COUNT, 1, **MADE)  # type: ignore[arg-type]
        LocalRunner(topology, deployment, prepare(topology, deployment)).run(until_caught_up=True)
    assert execute(["export", "advertiser_analytics", "--from", "2026-03-02", "--to", "2026-03-03", "--on", f"local:{folder}"]) == 0
    return f"local:{folder}"


@pytest.fixture
def sql(on: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert execute(["sql", *arguments, "--on", on]) == code
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        return found.out, found.err

    return run


EVENTS = [event for event in AdEvents(1, **MADE).dicts(COUNT) if event]  # type: ignore[arg-type]
SPEND = {
    one: sum((Decimal(str(event["cost"])) for event in EVENTS if event["advertiser_id"] == one and event["cost"] is not None), Decimal(0))
    for one in (1001, 1002, 1003)
}
STATEMENT = "SELECT advertiser, sum(cost) AS spend, count(*) AS events FROM ads GROUP BY 1 ORDER BY 1"


def test_every_format_is_exact(sql: Any, tmp_path: Path) -> None:
    wanted = [
        {"advertiser": one, "spend": str(spend), "events": sum(event["advertiser_id"] == one for event in EVENTS)}
        for one, spend in SPEND.items()
    ]
    assert json.loads(sql(STATEMENT, "--format", "json")[0]) == wanted
    assert [json.loads(line) for line in sql(STATEMENT, "--format", "jsonl")[0].splitlines()] == wanted
    found = list(csv.DictReader(io.StringIO(sql(STATEMENT, "--format", "csv")[0])))
    assert found == [{name: str(value) for name, value in one.items()} for one in wanted]
    assert sql(STATEMENT)[0].splitlines()[1].split() == [str(value) for value in wanted[0].values()]
    out, err = sql(STATEMENT, "--output", "spend.parquet")
    assert out == "" and "3 rows written to spend.parquet" in err
    assert pq.read_table(tmp_path / "spend.parquet").to_pylist() == [{**one, "spend": SPEND[one["advertiser"]]} for one in wanted]
    sql(STATEMENT, "-o", "spend.csv")
    assert list(csv.DictReader((tmp_path / "spend.csv").open())) == found


def test_a_screen_takes_so_many_rows_and_says_that_there_are_more(sql: Any) -> None:
    out, err = sql("SELECT range AS n FROM range(1001)")
    assert len(out.splitlines()) == 1001 and "the first 1,000 rows; --limit 0 gives all" in err
    out, err = sql("SELECT range AS n FROM range(1001)", "--limit", "0")
    assert len(out.splitlines()) == 1002 and err == ""
    out, err = sql("SELECT range AS n FROM range(1000)")
    assert len(out.splitlines()) == 1001 and err == ""
    assert len(sql("SELECT range AS n FROM range(100000)", "--format", "csv")[0].splitlines()) == 100_001
    out, err = sql("SELECT range AS n FROM range(100000)", "--format", "csv", "--limit", "20000", "--timing")
    assert len(out.splitlines()) == 20_001 and "20,000 rows in " in err


def test_statements_of_a_file_and_of_a_pipe(sql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two.sql").write_text("-- one\nSELECT 'a;b' AS x; SELECT 2 AS y -- and two\n;\n")
    assert sql("-f", "two.sql", "--format", "csv")[0] == "x\na;b\ny\n2\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 3 AS z"))
    assert sql("--format", "csv")[0] == "z\n3\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 4 AS z;"))
    assert sql("-f", "-", "--format", "csv")[0] == "z\n4\n"


def test_live_archived_and_loaded_agree_and_freshness_is_said(sql: Any) -> None:
    out, err = sql(
        "SELECT r.advertiser, r.spend = a.spend AND a.spend = w.spend AS same, r.spend FROM rollup.by_advertiser_1d r "
        "JOIN (SELECT advertiser, sum(cost) AS spend FROM archive.ads GROUP BY 1) a USING (advertiser) "
        "JOIN (SELECT advertiser, sum(cost) AS spend FROM ads GROUP BY 1) w USING (advertiser) ORDER BY 1",
        "--format",
        "jsonl",
    )
    assert [json.loads(line) for line in out.splitlines()] == [
        {"advertiser": one, "same": True, "spend": str(spend)} for one, spend in SPEND.items()
    ]
    assert "roll-up by_advertiser: as of 2026-03-02T23:" in err


def test_the_warehouse_itself(sql: Any) -> None:
    assert json.loads(sql("SELECT count(*) AS n FROM ads", "--engine", "warehouse", "--format", "json")[0]) == [{"n": COUNT}]
    assert "no redshift" in sql("SELECT 1", "--engine", "redshift", code=USAGE)[1]
    assert "archive" in sql("SELECT * FROM archive.ads", "--engine", "warehouse", code=USAGE)[1]


def test_reports_by_name_by_file_and_listed(sql: Any, tmp_path: Path) -> None:
    out, _ = sql("--reports")
    assert "campaign_performance: Campaign performance by day" in out and "--param budget=…  decimal, must be given" in out
    span = ["--param", "from=2026-03-02", "--param", "to=2026-03-03"]
    rows = [json.loads(line) for line in sql("--report", "audience", *span, "--format", "jsonl")[0].splitlines()]
    assert sum(Decimal(row["spend"]) for row in rows) == sum(SPEND.values())
    archived = sql("--report", "audience", *span, "--param", "dataset=archive.ads", "--format", "jsonl")[0]
    assert [json.loads(line) for line in archived.splitlines()] == rows
    (tmp_path / "mine.sql").write_text("-- title: M\n-- parameter: n int = 2; a number\nSELECT :n + 1 AS n\n")
    assert sql("--report", "mine.sql", "--format", "csv")[0] == "n\n3\n"
    assert sql("--report", "mine.sql", "--param", "n=9", "--format", "csv")[0] == "n\n10\n"


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["SELECT 1", "-f", "x.sql"], "exclude one another"),
        (["SELECT 1", "--param", "a=b"], "--param is of a report"),
        (["-f", "missing.sql"], "cannot read missing.sql"),
        (["SELECT 1", "--format", "parquet"], "needs a file"),
        (["SELECT 1", "--output", "x.txt"], "does not say which format"),
        (["SELECT 1", "--output", "no/such/folder/x.csv"], "cannot write"),
        (["SELECT 1; SELECT 2", "--output", "x.csv"], "cannot be written to one file"),
        ([" -- nothing"], "no statement"),
        (["SELECT * FROM rollup.by_advertizer_1d"], "did you mean rollup.by_advertiser_1d"),
        (["SELECT * FROM rollup.by_advertiser_1m", "--max-read", "10"], "more than 10 cells"),
        (["SELECT nothing FROM ads"], "nothing"),
        (["DELETE FROM ads"], "not a statement that reads"),
        (["--report", "audiance"], "did you mean audience"),
        (["--report", "pacing_and_spend"], "needs advertiser, budget"),
        (["--report", "audience", "--param", "from"], "there is no ="),
        (["--report", "audience", "--param", "from=never"], "--param from"),
    ],
)
def test_mistakes_name_the_fix(sql: Any, arguments: list[str], part: str) -> None:
    out, err = sql(*arguments, code=USAGE)
    assert part in err and out == ""
