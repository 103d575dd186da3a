"""Answers as text: read back by JSON and CSV readers that are not ours."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from decimal import Decimal as D
from typing import Any

import pytest

from penstock.errors import QueryError
from penstock.query import Answer, Column, render

COLUMNS = (
    Column("time", "time", "timestamp"),
    Column("country", "dimension", "string"),
    Column("bot", "dimension", "bool"),
    Column("views", "measure", "int", "count"),
    Column("spend", "measure", "decimal", "sum"),
    Column("ctr", "measure", "float", "ratio"),
)
ROWS: list[dict[str, Any]] = [
    {"time": "2024-03-01T00:00:00Z", "country": "DE", "bot": False, "views": 1200, "spend": D("9007199254740993.123400"), "ctr": 0.1},
    {"time": "2024-03-01T01:00:00Z", "country": 'a "quoted",\ttext', "bot": True, "views": 600, "spend": D("0.000000"), "ctr": None},
    {"time": "2024-03-01T02:00:00Z", "country": None, "bot": None, "views": 0, "spend": D("-1.500000"), "ctr": 1 / 3},
]


def answer(**changes: Any) -> Answer:
    whole = Answer(
        rollup="r",
        entity=42,
        start="2024-03-01T00:00:00Z",
        end="2024-03-01T03:00:00Z",
        interval="1h",
        columns=COLUMNS,
        rows=ROWS,
        as_of="2024-03-01T04:00:00Z",
        incomplete=(),
        errors={},
        saturated=(),
        generation="0123456789abcdef",
        served_from=("1h",),
        breakdown=("country", "bot"),
    )
    return dataclasses.replace(whole, **changes)


def test_json_holds_everything_and_the_very_digits_of_money() -> None:
    text = render(answer(incomplete=("why",), errors={"users": 0.023}), "json")
    data = json.loads(text, parse_float=D)
    assert data["rows"][0]["spend"] == D("9007199254740993.1234")  # beyond what a double holds
    assert '"spend": 9007199254740993.123400' in text
    assert [{**row, "ctr": None if row["ctr"] is None else float(row["ctr"]), "spend": D(row["spend"])} for row in data["rows"]] == ROWS
    assert (data["as_of"], data["complete"], data["incomplete"], data["errors"]) == (
        "2024-03-01T04:00:00Z",
        False,
        ["why"],
        {"users": D("0.023")},
    )
    assert data["columns"][0] == {"name": "time", "role": "time", "type": "timestamp"} and data["columns"][3]["measure"] == "count"
    assert data["served_from"] == ["1h"] and data["entity"] == 42 and data["generation"] == "0123456789abcdef"


def test_csv_has_a_header_and_the_values_unrounded() -> None:
    found = list(csv.DictReader(io.StringIO(render(answer(), "csv"))))
    assert list(found[0]) == ["time", "country", "bot", "views", "spend", "ctr"]
    assert found[0]["spend"] == "9007199254740993.123400" and found[0]["bot"] == "false"
    assert found[1]["country"] == 'a "quoted",\ttext' and found[1]["ctr"] == ""
    assert found[2]["country"] == found[2]["bot"] == "" and float(found[2]["ctr"]) == 1 / 3


def test_a_table_is_aligned_and_has_bars_for_the_first_measure() -> None:
    lines = render(answer(rows=[dict(row, spend=D("1234.500000")) for row in ROWS])).splitlines()
    assert lines[0].split() == ["time", "country", "bot", "views", "spend", "ctr"]
    edge = lines[0].index("views") + len("views")
    assert [line[:edge].rsplit(" ", 1)[1] for line in lines[2:5]] == ["1,200", "600", "0"]
    assert [line.count("█") for line in lines[2:5]] == [16, 8, 0]
    assert "1,234.50 " in lines[2] and "1,234.500" not in lines[2]
    assert lines[-1] == "as of 2024-03-01T04:00:00Z · complete"


def test_the_footer_says_what_is_not_complete_and_not_exact() -> None:
    text = render(answer(incomplete=("ads/1 is behind", "windows are gone"), errors={"users": 0.02298}, saturated=("spend",)))
    assert text.endswith(
        "as of 2024-03-01T04:00:00Z · incomplete · users ± 2.3 % · spend does not fit 64 bits and is cut\n"
        "  incomplete: ads/1 is behind\n  incomplete: windows are gone\n"
    )
    assert "no data yet" in render(answer(as_of=None, incomplete=("no event has been counted yet",)))


def test_texts_from_events_can_neither_steer_the_terminal_nor_break_the_lines() -> None:
    text = render(answer(rows=[dict(ROWS[0], country="\x1b[2J\nevil\u202e"), dict(ROWS[0], country="日本" * 60)]))
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[2J\\nevil\\u202e" in text
    assert "…" in text


def test_wide_characters_take_two_places() -> None:
    lines = render(answer(rows=[dict(ROWS[0], country="日本"), dict(ROWS[0], country="abcd")])).splitlines()
    assert lines[2].index("false") + 2 == lines[3].index("false")


def test_an_answer_without_rows_says_so() -> None:
    assert render(answer(rows=[])).startswith("no records\n")
    assert render(answer(rows=[]), "csv") == "time,country,bot,views,spend,ctr\n"
    assert json.loads(render(answer(rows=[]), "json"))["rows"] == []


def test_another_format_is_refused() -> None:
    with pytest.raises(QueryError, match="format: 'xml' is unknown"):
        render(answer(), "xml")
