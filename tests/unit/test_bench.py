"""The benchmarks run, and every side computes what its baseline computes. No time is looked at: a test machine has none to give."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter, deque
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for needed in ("datasketches", "msgspec", "orjson", "polars"):
    pytest.importorskip(needed, reason="the benchmarks' baselines: pip install 'penstock[bench]'")

from bench import answers, child, export_redshift, query, report, servers, suite  # noqa: E402
from bench.measure import Bench, BenchError, Sample, cpu_ratio, median, ratio  # noqa: E402
from bench.workload import KEPT, AdEvents, Topic, Workload  # noqa: E402

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


def test_every_round_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def sample(self: Bench, side: str, workload: Workload, answer: Path | None = None) -> Sample:
        turns.append(side)
        assert answer is not None
        answer.write_bytes(pickle.dumps({("a",): [len(turns) if turns.count("ours") == 2 else 1, 0]}))
        return Sample(1, 1.0, 1.0, 1.0, {})

    monkeypatch.setattr(Bench, "sample", sample)
    with pytest.raises(BenchError, match="ours and loop do not agree"):
        Bench(tmp_path, 0).alternate(Workload(1), {"ours": "loop"}, 3)
    assert turns == ["loop", "ours"] * 2


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
    fresh = {"name": "freshness", "p99_seconds": 15.5, "at_most_seconds": 15.0}
    assert suite.missed([fresh]) == ["freshness: 99 % are readable within 15.5 s, and should be within 15 s"]
    assert suite.missed([{**fresh, "p99_seconds": 15.0}]) == []
    asked = {"name": "q", "ratio": 20, "bar": 10, "at_least_times": {"a": 9.9, "b": 10}, "at_most_times": {"c": 2.1, "d": 2}, "at_most": 2}
    assert suite.missed([asked]) == [
        "q: a is 9.9 by the 99th percentile, and should be 10",
        "q: c is 2.1 by the 99th percentile, and should be at most 2",
    ]


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


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_list_says_which_benchmarks_need_servers() -> None:
    lines = bench("--list").stdout.splitlines()
    assert [line for line in lines if "(needs " not in line] == list(suite.NAMES)
    assert [line.split()[0] for line in lines if line.endswith("(needs PostgreSQL)")] == list(export_redshift.NAMES)
    assert [line.split()[0] for line in lines if line.endswith("(needs Java and PostgreSQL)")] == list(query.NAMES)
    assert [line.split()[0] for line in lines if line.endswith("(needs servers)")] == list(servers.NAMES)


def test_without_servers_one_is_told_how_to_start_them(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text('[half]\nlocal = "data"\n[half.kafka]\nbootstrap = "127.0.0.1:1"\n')
    half = bench("freshness", "--on", "half", "--directory", str(tmp_path), PENSTOCK_CONFIG=str(tmp_path / "some.toml"))
    none = bench("kafka-rollup", "--directory", str(tmp_path), PENSTOCK_STACK=str(tmp_path), PENSTOCK_CONFIG=str(tmp_path / "some.toml"))
    assert (none.returncode, half.returncode) == (1, 1)
    assert "kafka-rollup" in none.stderr and "penstock stack up" in none.stderr
    assert "deployment half has no hbase" in half.stderr and "penstock stack up" in half.stderr
    assert "Traceback" not in none.stderr + half.stderr


def test_events_of_the_live_stream_are_steady_and_in_minutes_of_their_own_time() -> None:
    from bench import freshness

    start = 1_772_409_600_000
    found = list(freshness.events(7_000, start))
    assert [event.arrival for event in found] == [start + number * 1000 // freshness.RATE for number in range(7_000)]
    parsed = [json.loads(event.value) for event in found]
    assert [one["ts"] // 60_000 for one in parsed] == [event.minute for event in found]
    assert [one["advertiser_id"] for one in parsed] == [event.advertiser for event in found]
    late = sum(one["ts"] < event.arrival - 60_000 for one, event in zip(parsed, found))
    assert 0.02 < late / 7_000 < 0.04 and all(one["ts"] <= event.arrival for one, event in zip(parsed, found))


def test_a_sample_waits_until_an_answer_counts_it(tmp_path: Path) -> None:
    from bench import freshness
    from penstock.deployment import Deployment
    from penstock.kernels.encode import encode_list
    from penstock.query import Analytics
    from penstock.runner.local import LocalRunner, prepare
    from penstock.topologies.advertiser_analytics import AdvertiserAnalytics

    events = list(freshness.events(2_000, 1_772_409_630_000))
    counts = Counter((event.advertiser, event.minute) for event in events)
    (advertiser, minute), count = counts.most_common(1)[0]
    with Deployment("test", {"local": str(tmp_path), "partitions": 1}) as deployment:
        definitions = prepare(AdvertiserAnalytics, deployment)
        deployment.log.append("ads", 0, [encode_list([event.value for event in events], [event.arrival * 1000 for event in events])])
        LocalRunner(AdvertiserAnalytics, deployment, definitions).run(until_caught_up=True)
        waiting = deque(freshness.Sampled(minute, number, 0.0) for number in (1, count, count + 1))
        ages = freshness.look(Analytics(deployment), advertiser, waiting)
        assert len(ages) == 2 and min(ages) > 0
        assert [sample.count for sample in waiting] == [count + 1]
        assert freshness.look(Analytics(deployment), advertiser, waiting) == [] and len(waiting) == 1


@pytest.fixture
def on_kafka(kafka: dict[str, Any], tmp_path: Path) -> Iterator[Any]:
    """A place for workloads in the stack's Kafka."""
    pytest.importorskip("confluent_kafka")
    from bench.confluent import KafkaBench

    made = KafkaBench(Bench(tmp_path, None), kafka)
    yield made
    made.close()


@pytest.mark.servers
@pytest.mark.parametrize("side", ["confluent-rollup", "topology"])
@pytest.mark.parametrize("batch_bytes", [1 << 16, 0])
def test_a_side_computes_the_roll_up_of_a_topic(on_kafka: Any, tmp_path: Path, side: str, batch_bytes: int) -> None:
    workload, scratch = Workload(EVENTS, hours=1, advertisers=4, users=300, batch_bytes=batch_bytes), tmp_path / "scratch"
    scratch.mkdir()
    made = child.make(side, workload, Topic(**on_kafka.place(workload)["topic"]), scratch)
    made.run()
    assert {key: tuple(found) for key, found in made.answer().items()} == {key: found[:2] for key, found in exact(workload).items()}


@pytest.mark.servers
@pytest.mark.parametrize("side", ["confluent-decode", "kafka-decode"])
def test_a_side_decodes_a_topic(on_kafka: Any, tmp_path: Path, side: str) -> None:
    workload = Workload(EVENTS, format="msgpack", hours=1)
    made = child.make(side, workload, Topic(**on_kafka.place(workload)["topic"]), tmp_path)
    made.run()
    times = [event["ts"] for event in AdEvents(workload.seed, format="msgpack", **workload._ads()).dicts(EVENTS) if event is not None]
    assert made.answer() == {("all",): [EVENTS, sum(times)]}


@pytest.mark.servers
@pytest.mark.parametrize(("batch_bytes", "least", "most"), [(0, 1, 1), (1 << 14, 60, 100), (1 << 16, 250, 400)])
def test_record_batches_are_as_large_as_is_said(on_kafka: Any, batch_bytes: int, least: int, most: int) -> None:
    from penstock.kernels.encode import walk_batches
    from penstock.log.batches import FIRST, NEXT

    place = on_kafka.place(Workload(EVENTS, advertisers=50, batch_bytes=batch_bytes))["topic"]
    sizes, position = [], 0
    while (chunk := on_kafka.log.read(place["name"], 0, position, 1 << 20, 1 << 17)) is not None:
        rows, _ = walk_batches(chunk.data, 0, len(chunk.data))
        sizes += (rows[:, NEXT] - rows[:, FIRST]).tolist()
        position = chunk.next
    assert sum(sizes) == on_kafka.log.end(place["name"], 0) > 0
    assert max(sizes) <= most and np.median(sizes) >= least


@pytest.mark.servers
def test_retention_leaves_topics_of_old_events_alone(on_kafka: Any, kafka: dict[str, Any]) -> None:
    from bench.confluent import client
    from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

    resource = ConfigResource(ResourceType.TOPIC, on_kafka.new_topic(1))
    admin = AdminClient(client(kafka))
    found = admin.describe_configs([resource])[resource].result(30)
    on_kafka.delete(resource.name)
    assert found["retention.ms"].value == "-1"


@pytest.mark.servers
def test_topics_are_gone_in_the_end(on_kafka: Any) -> None:
    name = on_kafka.place(Workload(100))["topic"]["name"]
    assert name in on_kafka.log.topics()
    on_kafka.close()
    assert name not in on_kafka.log.topics()


@pytest.mark.servers
def test_the_benchmarks_on_storm_run_and_agree(stack: dict[str, Any], tmp_path: Path) -> None:
    """Both sides of storm-end-to-end count what the generator says, and every event of the live stream becomes readable; or there is no result."""
    happybase = pytest.importorskip("happybase")
    output = tmp_path / "results.json"
    done = bench(
        "storm-end-to-end",
        "freshness",
        "--quick",
        "--events",
        "5000",
        "--directory",
        str(tmp_path),
        "--output",
        str(output),
        "--on",
        "stack",
    )
    assert done.returncode == 0, done.stderr
    storm, fresh = json.loads(output.read_text())
    assert storm["name"] == "storm-end-to-end" and storm["events_per_second"] > 0 and storm["baseline_events"] == 1_000
    assert fresh["name"] == "freshness" and fresh["samples"] > 0 and 0 < fresh["p50_seconds"] <= fresh["p99_seconds"]
    assert all(name in report.table([storm, fresh]) for name in ("storm-end-to-end", "99th percentile"))
    connection = happybase.Connection(stack["hbase"]["host"], stack["hbase"]["port"])
    assert not [name for name in connection.tables() if name.startswith(b"bench_")], "tables are left behind"
