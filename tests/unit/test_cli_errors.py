"""Mistakes are said in a line, with what mends them, and end in the documented exit code; nobody sees a traceback who did not ask for one."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from penstock.cli import execute
from penstock.cli.base import FAILED, INTERRUPTED, USAGE, guarded
from penstock.errors import CorruptionError, UsageError


def raising(problem: BaseException) -> int:
    def run() -> int:
        raise problem

    return guarded(run)


def test_a_mistake_of_the_user_is_2_with_message_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(UsageError("it is wrong", hint="mend it")) == USAGE
    assert capsys.readouterr() == ("", "error: it is wrong\n  mend it\n")


def test_what_failed_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(CorruptionError("bytes are not what they were")) == FAILED
    assert capsys.readouterr().err == "error: bytes are not what they were\n"


def test_a_bug_is_called_one_and_says_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_TRACEBACK", raising=False)
    assert raising(KeyError("x")) == FAILED
    said = capsys.readouterr().err
    assert (
        said.startswith("error: this is a bug in Penstock: KeyError: 'x' (at ")
        and "test_cli_errors.py" in said
        and "PENSTOCK_TRACEBACK=1" in said
    )
    assert "Traceback" not in said


def test_the_traceback_comes_when_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TRACEBACK", "1")
    raising(UsageError("it is wrong"))
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), click.Abort()])
def test_interrupted_is_130(problem: BaseException) -> None:
    assert raising(problem) == INTERRUPTED


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["run", "no/such/file.py"], "there is no file no/such/file.py"),
        (["run", "no_such_module"], "there is no topology 'no_such_module'"),
        (["query", "traffic", "--entity", "/", "--from", "2015-05-17", "--to", "2015-05-18"], "nothing was ever written there"),
        (
            ["query", "traffic", "--entity", "/", "--from", "2015-05-17", "--to", "2015-05-18", "--where", "status"],
            "neither field=value nor JSON",
        ),
        (["query", "traffic", "--entity", "/", "--from", "2015-05-17", "--to", "2015-05-18", "--where", "{status"], "is not JSON"),
        (["status", "--on", "nowhere"], "nowhere"),
        (["produce", "page_analytics"], "name FILEs"),
        (["produce", "page_analytics", "x.jsonl", "--generate", "5"], "not both"),
        (["produce", "page_analytics", "--generate", "5"], "--generate makes ad events"),
        (["produce", "page_analytics", "missing.jsonl"], "cannot read missing.jsonl"),
        (["run", "page_analytics", "--from", "yesterday"], "'yesterday' is not a time"),
        (["export", "page_analytics"], "say --hour TIME"),
        (["new", "2fast"], "cannot be the name of a project"),
        (["demo", "--traffic", "missing.log"], "cannot read missing.log"),
        (["frobnicate"], "No such command"),
    ],
)
def test_usage_errors(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_ON", raising=False)
    assert execute(arguments) == USAGE
    out, err = capsys.readouterr()
    assert part in err and "Traceback" not in err and out == ""


def test_an_error_inside_a_topology_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken_topology.py"
    file.write_text("import json\n\njson.loads('{')\n")
    assert execute(["check", str(file)]) == USAGE
    said = capsys.readouterr().err
    assert "JSONDecodeError" in said and f"raised at {file}:3" in said


def test_a_demo_deletes_nothing_but_a_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("x")
    assert execute(["demo", "--on", f"local:{tmp_path}"]) == USAGE
    assert (tmp_path / "precious").read_text() == "x" and "not of an earlier demo" in capsys.readouterr().err
