"""A project of `penstock new` runs as its README says: its bolt, its derived column, its roll-ups and its own test."""

from __future__ import annotations

import collections
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


def penstock(*arguments: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PENSTOCK_ON", "PENSTOCK_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", ["shop", "My-Shop2"])
def test_a_new_project_runs(tmp_path: Path, name: str) -> None:
    penstock("new", name, cwd=tmp_path)
    folder, module = tmp_path / name, name.lower().replace("-", "_")
    events = [json.loads(line) for line in (folder / "sample.jsonl").open()]
    said = {}
    for line in re.findall(r"^    penstock (.*)$", (folder / "README.md").read_text(), re.M):  # the README's own lines, in their order
        words = shlex.split(line)
        said[words[0]] = penstock(*words, cwd=folder)
    assert f"{module}_visits" in said["check"] and "600" in said["produce"] and said["run"].count("600") == 6

    rows = json.loads(
        penstock(
            "query",
            f"{module}_visits",
            "--entity",
            "/shop",
            "--from",
            "2026-03-02",
            "--to",
            "2026-03-03",
            "--by",
            "country",
            "--format",
            "json",
            cwd=folder,
        )
    )["rows"]
    mine = collections.Counter(event["country"] for event in events if event["page"] == "/shop")
    assert {row["country"]: row["visits"] for row in rows} == mine and len(mine) == 5
    rows = json.loads(
        penstock(
            "query", f"{module}_sections", "--entity", "shop", "--from", "2026-03-02", "--to", "2026-03-03", "--format", "json", cwd=folder
        )
    )["rows"]
    assert rows[0]["visits"] == sum(event["page"].startswith("/shop") for event in events)
    failed: collections.Counter[str] = collections.Counter()
    for file in (folder / "penstock-data" / "alerts").glob("*.json"):
        failed.update(json.loads(file.read_text())["failed"])
    assert failed == collections.Counter(event["page"] for event in events if event["status"] >= 500) and failed["/checkout"] > 0


def test_its_own_tests_pass_and_nothing_is_overwritten(tmp_path: Path) -> None:
    penstock("new", "shop", cwd=tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    again = subprocess.run([sys.executable, "-m", "penstock", "new", "shop"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2 and "is there already" in again.stderr
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "E,F,W,B", "--line-length", "160", "shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout
