"""What commands print, and how they read what is typed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.archive import Entry
from penstock.archive.memory import MemoryArchive
from penstock.cli.output import bar, size, table
from penstock.cli.published import GenerationView
from penstock.cli.query import condition, names
from penstock.demo.ads import estimate
from penstock.demo.reconcile import compare
from penstock.errors import QueryError


@given(st.floats(0, 1e12), st.floats(1e-3, 1e12))
def test_a_bar_is_as_long_as_its_value(value: float, largest: float) -> None:
    value = min(value, largest)
    drawn = bar(value, largest, 10)
    eighths = 8 * drawn.count("█") + (" ▏▎▍▌▋▊▉".index(drawn[-1]) if drawn and drawn[-1] != "█" else 0)
    assert abs(eighths - 80 * value / largest) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    "count, text", [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (188_100_000, "188.1 MB"), (5e15, "5000.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "count"], [["x" * 300, 1], ["[bold]y[/bold]", None]], right=[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 300 + "      1" and lines[2] == "[bold]y[/bold]" and "\x1b" not in "".join(lines)


def test_filters_of_the_command_line() -> None:
    assert condition(("country=DE", "path=/a=b")) == {"country": "DE", "path": "/a=b"}
    assert condition(('{"status": {"ge": 500}}', "method=GET")) == {"status": {"ge": 500}, "method": "GET"}
    assert condition(()) is None
    assert names(("a,b", " c ")) == ["a", "b", "c"]
    with pytest.raises(QueryError, match="twice"):
        condition(("country=DE", "country=FR"))


def entry(generation: str, first: int, hour: int = 0) -> Entry:
    return Entry("ads", hour, f"ads/{generation}-{first}.parquet", f"{generation}-ads-inc-0", first, first + 10, 10, 100, "0" * 64)


def test_a_generation_sees_its_own_files_alone() -> None:
    archive = MemoryArchive()
    archive.add([entry("a" * 16, 0), entry("b" * 16, 0), entry("a" * 16, 10), entry("b" * 16, 0, 3_600_000_000)])
    view = GenerationView(archive, "a" * 16)
    assert [one.first for one in view.entries("ads", 0)] == [0, 10] and view.hours("ads") == [0]
    assert archive.hours("ads") == [0, 3_600_000_000]


def test_a_difference_is_found_and_named() -> None:
    same = compare("x", {1: 5, 2: 0}, {1: 5})
    assert not same.differences and same.numbers == 2
    wrong = compare("x", {n: n for n in range(10)}, {n: n + (n > 4) for n in range(10)})
    assert wrong.differences == ("5: 5 and 6", "6: 6 and 7", "7: 7 and 8", "and 2 more")
    assert compare("x", {}, {1: 5}).differences == ("1: None and 5",)


def test_an_estimate_may_be_off_by_its_error_and_not_by_more() -> None:
    assert not estimate("reach", {1: 1020, 2: 3}, {1: 1000, 2: 3}, 0.023).differences
    assert estimate("reach", {1: 1500}, {1: 1000}, 0.023).differences
    assert json.dumps(estimate("reach", {}, {1: 1000}, 0.023).differences)
