"""Reports as files: their parameters, and what a value may do to the SQL around it."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from penstock.errors import ConfigurationError, NotFoundError, UsageError
from penstock.model.units import instant
from penstock.reports import Report, own_folder, parse, report, reports

NOW = instant("2026-03-10T15:30")
ANY = {"timestamp": "2026-03-02", "date": "2026-03-02", "int": "5", "decimal": "1.5", "text": "x", "table": "t"}


def one(kind: str, default: str = "", sql: str = "SELECT :x AS x") -> Report:
    return parse("r", f"-- title: R\n-- parameter: x {kind}{default}; what x is\n{sql};\n")


@pytest.mark.parametrize(
    "kind, text, literal",
    [
        ("int", "-5", "-5"),
        ("decimal", "12.50", "12.50"),
        ("decimal", "1e3", "1000"),
        ("text", "it's; DROP TABLE x --", "'it''s; DROP TABLE x --'"),
        ("date", "2026-03-02", "DATE '2026-03-02'"),
        ("timestamp", "2026-03-02T10:00+02:00", "TIMESTAMP '2026-03-02 08:00:00'"),
        ("timestamp", "today-7d", "TIMESTAMP '2026-03-03 00:00:00'"),
        ("timestamp", "today + 1d", "TIMESTAMP '2026-03-11 00:00:00'"),
        ("timestamp", "now-30m", "TIMESTAMP '2026-03-10 15:00:00'"),
        ("table", "archive.ads", '"archive"."ads"'),
    ],
)
def test_values_are_literals_of_their_kind(kind: str, text: str, literal: str) -> None:
    assert one(kind).statement({"x": text}, NOW) == f"SELECT {literal} AS x"


@pytest.mark.parametrize(
    "kind, text",
    [
        ("int", "5; DROP TABLE x"),
        ("int", "5.5"),
        ("decimal", "NaN"),
        ("decimal", "x"),
        ("text", "a\\' OR 1=1"),
        ("text", "line\nbreak"),
        ("table", 'ads"; DROP TABLE x'),
        ("table", "a.b.c"),
        ("table", "(SELECT 1)"),
        ("timestamp", "yesterday"),
        ("timestamp", "today-7"),
        ("date", "null"),
    ],
)
def test_other_values_are_refused_by_name(kind: str, text: str) -> None:
    with pytest.raises(UsageError) as problem:
        one(kind).statement({"x": text}, NOW)
    assert "--param x" in str(problem.value) and problem.value.hint


def test_a_text_comes_back_as_it_was() -> None:
    for text in ("it's", '"', "%_", ":x", "日本", "-- no comment", "''"):
        assert duckdb.connect().execute(one("text").statement({"x": text}, NOW)).fetchall() == [(text,)]


def test_defaults_and_what_must_be_given() -> None:
    assert one("int", " = 20").statement({}, NOW) == "SELECT 20 AS x"
    assert one("text", " = null").statement({}, NOW) == "SELECT NULL AS x"
    with pytest.raises(UsageError, match="needs x") as problem:
        one("int").statement({}, NOW)
    assert "--param x=" in str(problem.value) and "what x is" in str(problem.value)
    with pytest.raises(UsageError, match="no parameter 'xs'") as problem:
        one("int").statement({"xs": "1"}, NOW)
    assert "did you mean x" in str(problem.value)


def test_what_is_quoted_or_commented_or_a_cast_is_no_parameter() -> None:
    sql = "SELECT ':y' AS \":z\", 1::BIGINT, :x /* :w */ -- :v\nFROM t"
    assert one("int", sql=sql).statement({"x": "3"}, NOW) == sql.replace(":x", "3")


@pytest.mark.parametrize(
    "text, part",
    [
        ("-- title: T\nSELECT :x", "x is declared or used"),
        ("-- parameter: x int; what\nSELECT 1", "x is declared or used"),
        ("-- parameter: x float; what\nSELECT :x", "does not declare a parameter"),
        ("-- parameter: x int\nSELECT :x", "does not declare a parameter"),
        ("-- title: T\n", "no statement"),
    ],
)
def test_a_file_that_is_no_report_says_why(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        parse("mine", text)


def test_a_projects_own_reports_go_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    (tmp_path / "penstock.toml").write_text('[x]\nlocal = "x"\n')
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "top_content.sql").write_text("-- title: Mine\nSELECT 1\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert own_folder() == tmp_path / "reports"
    assert report("top_content").title == "Mine" and report(str(tmp_path / "reports" / "top_content.sql")).title == "Mine"
    with pytest.raises(NotFoundError, match="top_contents") as problem:
        report("top_contents")
    assert "did you mean top_content" in str(problem.value)


@pytest.mark.parametrize("name", ["audience", "campaign_performance", "funnel", "new_versus_returning", "pacing_and_spend", "top_content"])
def test_shipped_reports_keep_to_what_both_engines_have(name: str) -> None:
    found = reports()[name]
    statement = found.statement({one.name: ANY[one.kind] for one in found.parameters if one.default is None}, NOW)
    assert found.title and found.description and len(duckdb.extract_statements(statement)) == 1
    for pattern in (r"\bFILTER\b", r"GROUP BY ALL", r"::", r"\[", r"\bLATERAL\b", r"\bDISTINCT ON\b", r"generate_series", r"\bQUALIFY\b"):
        assert not re.search(pattern, statement, re.IGNORECASE), pattern
    assert re.search(r"ORDER BY [^()]*$", statement)
