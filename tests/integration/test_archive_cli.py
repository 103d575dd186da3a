"""`penstock archive` as a user runs it, on a directory and on S3: what it lists, and that pruning takes what is loaded and old, and no event."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.archive.merge import merge_hour
from penstock.deployment import Deployment
from penstock.log.producer import Producer
from penstock.model.units import HOUR, hour_text

START = 1_431_820_800_000_000  # 2015-05-17T00:00Z
TOPOLOGY = """
from penstock import *

clicks = Schema("clicks", time="ts", lateness="2h", fields={"ts": Timestamp("us"), "k": Int()})

class Clicks(Topology):
    detail = KafkaSpout.spec(clicks)
    archive = ArchiveBolt.spec(detail, flush="1s")
"""
Say = Callable[..., str]


@pytest.fixture(params=["directory", "s3"])
def said(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Runs a command in a folder with a topology and a deployment; gives what it prints, progress and errors included."""
    monkeypatch.chdir(tmp_path)
    Path("clicks.py").write_text(TOPOLOGY)
    text = '[here]\nlocal = "data"\npartitions = 2\n'
    if request.param == "s3":
        text += "[here.s3]\n"
        for name, value in request.getfixturevalue("s3").items():
            text += f"{name} = " + (f'{{env = "{value["env"]}"}}' if isinstance(value, dict) else f'"{value}"') + "\n"
    Path("penstock.toml").write_text(text)
    monkeypatch.setenv("PENSTOCK_ON", "here")

    def say(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "penstock", *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done
        return done.stdout + ("" if "--json" in arguments else done.stderr)

    yield say


def produce(hours: range, each: int = 50) -> None:
    """Events of some hours into the log."""
    with Deployment.named("here") as deployment:
        deployment.log.create("clicks", 2)
        with Producer(deployment.log, "clicks") as producer:
            for n in range(len(hours) * each):
                ts = START + (hours.start + n // each) * HOUR + n % each
                producer.send(json.dumps({"ts": ts, "k": n}).encode())


def listed(said: Say, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(said("archive", "list", "--json", *arguments)))


def test_hours_are_listed_and_go_when_they_are_loaded_and_closed(said: Say) -> None:
    for hours in (range(0, 5), range(4, 6)):
        produce(hours)
        said("run", "clicks.py", "--until-caught-up")
    assert [(row["hour"], row["rows"]) for row in listed(said, "clicks")] == [
        *((hour_text(START + n * HOUR), 50) for n in range(4)),
        (hour_text(START + 4 * HOUR), 100),
        (hour_text(START + 5 * HOUR), 50),
    ]
    assert "350" in said("archive", "list") and "2015-05-17T05" in said("archive", "list", "clicks")
    assert "click_s" in said("archive", "list", "click_s", code=2)

    # Nothing is loaded yet
    out = said("archive", "prune", "--keep", "1d")
    assert "2015-05-17T00 kept" in out and "--unloaded" in out and "removed 0 files" in out
    said("export", "clicks.py", "--hour", "2015-05-17T00")
    said("export", "clicks.py", "--hour", "2015-05-17T01")
    said("export", "clicks.py", "--hour", "2015-05-17T05")

    # Files that were just written stay; then hours that are loaded go, but for the last, for which events may still come
    assert "somebody may still be writing or reading it" in said("archive", "prune", "--keep", "1d")
    would = said("archive", "prune", "clicks", "--keep", "1d", "--settled", "0s", "--dry-run")
    assert "2015-05-17T00 would go" in would and len(listed(said, "clicks")) == 6
    out = said("archive", "prune", "clicks", "--keep", "1d", "--settled", "0s")
    assert "hours after 2015-05-17T03" in out, "the watermark, less the lateness"
    assert [row["hour"] for row in listed(said, "clicks")] == [hour_text(START + n * HOUR) for n in range(2, 6)]

    # The warehouse has the rows, and does not load the hours again, nor others in their place
    assert "100" in said("sql", "SELECT count(*) FROM clicks WHERE ts < TIMESTAMP '2015-05-17 02:00'")
    assert "nothing of 2015-05-17T00 is archived" in said("export", "clicks.py", "--hour", "2015-05-17T00", code=2)
    said("export", "clicks.py", "--due")
    assert "350" in said("sql", "SELECT count(*) FROM clicks")
    said("archive", "prune", "clicks", "--before", "2015-05-17T04:00", "--unloaded", "--settled", "0s")
    assert [row["hour"] for row in listed(said, "clicks")] == [hour_text(START + n * HOUR) for n in (3, 4, 5)]


def test_what_was_merged_goes_and_reports_stay_the_same(said: Say) -> None:
    for _ in range(3):
        produce(range(0, 2), each=20)
        said("run", "clicks.py", "--until-caught-up")
    with Deployment.named("here") as deployment:
        for hour in deployment.archive.hours("clicks"):
            merge_hour(deployment.archive, "clicks", hour)
    before = listed(said, "clicks")
    assert [row["rows"] for row in before] == [60, 60] and all(row["covered"] for row in before)
    assert "removed 0 files" in said("archive", "prune")
    assert "merged into others" in said("archive", "prune", "--settled", "0s")
    after = listed(said, "clicks")
    assert [row["covered"] for row in after] == [0, 0]
    assert [{**row, "covered": 0} for row in before] == after
    assert "120" in said("sql", "SELECT count(*) FROM archive_clicks")


def test_a_file_that_is_gone_or_another_one_fails_its_hour_by_name(said: Say) -> None:
    produce(range(0, 3), each=20)
    said("run", "clicks.py", "--until-caught-up")
    with Deployment.named("here") as deployment:
        archive = deployment.archive
        gone, other = (archive.entries("clicks", START + n * HOUR)[0].path for n in (0, 1))
        archive.write(other, b"PAR1 of another time")
        archive.remove([gone])
        places = archive.location(gone), archive.location(other)
    out = said("export", "clicks.py", "--due", code=1)
    assert f"{places[0]} is not there" in out and f"{places[1]} is not the file that was archived" in out
    assert "2015-05-17T02 loaded" in out and "20" in said("sql", "SELECT count(*) FROM clicks")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--keep", "90d", "--before", "2015-05-17"], "not both"),
        (["--unloaded"], "say --keep or --before"),
        (["--keep", "90"], "duration"),
        (["--before", "yesterday"], "yesterday"),
        (["nothing"], "nothing of nothing is archived"),
    ],
)
def test_mistakes_are_named(said: Say, arguments: list[str], says: str) -> None:
    with Deployment.named("here") as deployment:
        deployment.log.create("clicks", 1)
    assert says in said("archive", "prune", *arguments, code=2)
