"""The benchmarks run, and every side computes what its baseline computes. No time is looked at: a test machine has none to give."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for needed in ("datasketches", "msgspec", "orjson", "polars"):
    pytest.importorskip(needed, reason="the benchmarks' baselines: pip install 'penstock[bench]'")

from bench import answers, child, report, suite  # noqa: E402
from bench.measure import Bench, BenchError, Sample, cpu_ratio, median, ratio  # noqa: E402
from bench.workload import KEPT, AdEvents, Workload  # noqa: E402

EVENTS = 3_000


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What `python -m bench --quick` writes."""
    folder = tmp_path_factory.mktemp("bench")
    command = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--events",
        str(EVENTS),
        "--directory",
        str(folder),
        "--output",
        str(folder / "results.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [folder / "results.json"], "logs and tables are left behind"
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def test_every_benchmark_runs_and_agrees_with_its_baseline(quick: list[dict[str, object]]) -> None:
    assert [one["name"] for one in quick] == list(suite.NAMES)


def test_every_result_has_the_agreed_keys(quick: list[dict[str, object]]) -> None:
    for one in quick:
        assert one["events_per_second"] > 0 and one["cpu_seconds_per_million"] > 0 and one["ratio"] > 0, one  # type: ignore[operator]
        assert one["baseline"] and one["peak_rss_mb"] > 10, one  # type: ignore[operator]
    assert all("cells_per_event" in one for one in quick if str(one["name"]).startswith("topology"))


def test_the_table_has_a_line_for_every_result(quick: list[dict[str, object]]) -> None:
    lines = report.table(quick).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2 : 2 + len(quick)]] == list(suite.NAMES)


def exact(workload: Workload) -> dict[tuple[object, ...], tuple[int, int, int]]:
    """Count, sum in millionths and unique users by group, in whole numbers, from the generator's own dicts."""
    found: dict[tuple[object, ...], tuple[int, int, set[int]]] = {}
    for event in AdEvents(workload.seed, format=workload.format, **workload._ads()).dicts(workload.events):
        assert event is not None
        if event["type"] in KEPT:
            key = event["advertiser_id"], event["type"], event["ts"] // 60_000
            count, total, users = found.get(key, (0, 0, set()))
            found[key] = count + 1, total + (0 if event["cost"] is None else round(event["cost"] * 1_000_000)), users | {event["user_id"]}
    return {key: (count, total, len(users)) for key, (count, total, users) in found.items()}


@pytest.mark.parametrize("side", ["kernel", "loop", "msgspec-polars", "topology", "kernel-sketch", "loop-sketch"])
def test_a_side_computes_the_roll_up(tmp_path: Path, side: str) -> None:
    workload, scratch = Workload(EVENTS, hours=1, advertisers=4, users=300), tmp_path / "scratch"
    workload.write(tmp_path / "log")
    scratch.mkdir()
    made = child.make(side, workload, tmp_path / "log", scratch)
    made.run()
    found, expected = made.answer(), exact(workload)
    assert {key: tuple(measured[:2]) for key, measured in found.items()} == {key: measured[:2] for key, measured in expected.items()}
    if side.endswith("sketch"):
        assert answers.difference(found, {key: list(measured) for key, measured in expected.items()}) is None


def test_sides_take_turns_and_those_that_disagree_have_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def sample(self: Bench, side: str, workload: Workload, answer: Path | None = None) -> Sample:
        turns.append(side)
        if answer is not None:
            answer.write_bytes(pickle.dumps({("a",): [3 if side == "wrong" else 2, 0]}))
        return Sample(1, 1.0, 1.0, 1.0, {})

    monkeypatch.setattr(Bench, "sample", sample)
    assert len(Bench(tmp_path, 0).alternate(Workload(1), {"right": "loop"}, 3)["right"]) == 3
    assert turns == ["loop", "right"] * 3
    with pytest.raises(BenchError, match="wrong and loop do not agree"):
        Bench(tmp_path, 0).alternate(Workload(1), {"right": "loop", "wrong": "loop"}, 1)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No module named 'nowhere'"):
        Bench(tmp_path, max(os.sched_getaffinity(0))).sample("nowhere:Nothing", Workload(10))


def test_differences_are_found() -> None:
    one = {("a", 1): [2, 30], ("b", 1): [1, 5]}
    assert answers.difference(one, {("a", 1): [2, 30], ("b", 1): [1, 5]}) is None
    assert answers.difference(one, {("a", 1): [2, 30]}) is not None
    assert answers.difference(one, {("a", 1): [2, 30], ("b", 1): [1, 6]}) is not None
    assert answers.difference({("a",): [1, 2, 100.0]}, {("a",): [1, 2, 101.0]}) is None
    assert answers.difference({("a",): [1, 2, 100.0]}, {("a",): [1, 2, 120.0]}) is not None


def test_a_missed_bar_is_said() -> None:
    result = {"name": "topology-json", "ratio": 3.9, "bar": 4, "baseline": "a loop", "of_kernel": 0.6, "of_kernel_bar": 0.5}
    assert suite.missed([result]) == ["topology-json: 3.9 times a loop, and should be 4"]
    assert suite.missed([{**result, "ratio": 4.0, "of_kernel": 0.4}]) == ["topology-json: 0.4 of the kernel's own rate, and should be 0.5"]
    assert len(suite.missed([{"name": "memory", "ratio": 1.4, "aim_at_most": 1.3}])) == 1


def test_each_round_is_compared_with_its_own_baseline() -> None:
    def samples(*seconds: float) -> list[Sample]:
        return [Sample(100, one, one, 1.0, {}) for one in seconds]

    ours, theirs = samples(1.0, 4.0, 1.0), samples(5.0, 20.0, 6.0)  # the machine was busy in the second round
    assert ratio(ours, theirs) == cpu_ratio(ours, theirs) == 5.0
    assert median(theirs).seconds == 6.0


def test_results_of_some_benchmarks_stand_beside_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.save(path, [{"name": "memory", "ratio": 1.0}, {"name": "kernel-json", "ratio": 5.0}], suite.NAMES)
    kept = report.save(path, [{"name": "kernel-json", "ratio": 6.0}], suite.NAMES)
    assert [(one["name"], one["ratio"]) for one in kept] == [("kernel-json", 6.0), ("memory", 1.0)]
    assert json.loads(path.read_text()) == kept


def test_the_readme_shows_the_results_that_are_there() -> None:
    text = report.README.read_text()
    shown = text[text.index(report.BEGIN) + len(report.BEGIN) : text.index(report.END)].strip()
    results = report.load(report.RESULTS)
    assert shown == (report.table(results) if results else "")
