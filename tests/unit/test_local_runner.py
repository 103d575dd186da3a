"""The local runner: errors, restarts, draining, resuming, two of them at once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, ClassVar

import pyarrow as pa
import pytest

from penstock import By, Count, Int, KafkaSpout, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology
from penstock.bolts import BatchBolt, BatchContext
from penstock.deployment import Deployment
from penstock.errors import UnavailableError, UsageError
from penstock.log.producer import Producer
from penstock.query.analytics import Analytics
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.runner import local
from penstock.runner.local import LocalRunner, prepare

EVENTS = Schema("events", time="ts", lateness="1h", fields={"ts": Timestamp("ms"), "k": Int(), "amount": Int()})
COUNTS = Rollup("counts", of=EVENTS, entity="k", measures={"n": Count(), "amount": Sum("amount")}, by=[By(keep={"1m": "50y", "1h": "60y"})])
START, MINUTE = 1_699_999_200_000, 60_000  # milliseconds


class Sink(BatchBolt):
    """Keeps what it flushed under the range's start, as a bolt of one's own should. `errors`: what `process` and `flush` still raise."""

    flushed: ClassVar[dict[tuple[int, int], list[int]]] = {}
    errors: ClassVar[dict[str, list[Exception]]] = {}
    starts: ClassVar[int] = 0

    def start(self, context: BatchContext) -> None:
        Sink.starts += 1
        self.taken: dict[int, list[int]] = getattr(self, "taken", {})
        self.taken[context.partition] = []

    def process(self, batch: pa.RecordBatch, context: BatchContext) -> None:
        if self.errors.get("process"):
            raise self.errors["process"].pop()
        self.taken[context.partition] += batch.column("k").to_pylist()

    def flush(self, context: BatchContext) -> None:
        if self.errors.get("flush"):
            raise self.errors["flush"].pop()
        Sink.flushed[context.partition, context.first_offset] = self.taken[context.partition]
        self.taken[context.partition] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Sink.flushed, Sink.errors, Sink.starts = {}, {}, 0


class Runs(Topology):
    live = KafkaSpout.spec(EVENTS)
    counts = RollupBolt.spec(live, [COUNTS], flush="100ms")


class Own(Topology):
    live = KafkaSpout.spec(EVENTS)
    sink = Sink.spec(live, flush="50ms")


@pytest.fixture
def deployment(tmp_path: Path) -> Any:
    with Deployment("test", {"local": str(tmp_path / "data"), "partitions": 2}) as made:
        made.log.create("events", 2)
        yield made


def produce(deployment: Deployment, count: int, first: int = 0) -> list[dict[str, int]]:
    """Events in both partitions, in order of time; what was produced."""
    events = [{"ts": START + n * 1000, "k": n % 7, "amount": n} for n in range(first, first + count)]
    with Producer(deployment.log, "events") as producer:
        for event in events:
            producer.send(json.dumps(event).encode(), partition=event["k"] % 2)
    return events


def answer(deployment: Deployment) -> dict[int, tuple[int, int]]:
    found = {}
    for k in range(7):
        [row] = Analytics(deployment).query("counts", entity=k, start="2023-11-14", end="2023-11-20").rows
        found[k] = (row["n"], row["amount"])
    return found


def expected(events: list[dict[str, int]]) -> dict[int, tuple[int, int]]:
    counted, summed = Counter(event["k"] for event in events), Counter[int]()
    for event in events:
        summed[event["k"]] += event["amount"]
    return {k: (counted[k], summed[k]) for k in range(7)}


def committed(deployment: Deployment, definition: BoltDefinition) -> int:
    return sum(control.done.offset for _, control in Registry(deployment.table).shards(definition.bolt, definition.generation))


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    by = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < by, "it did not happen in time"
        time.sleep(0.01)


def test_until_caught_up_counts_all_there_is(deployment: Deployment) -> None:
    events = produce(deployment, 500)
    definitions = prepare(Runs, deployment)
    seen: list[Any] = []
    LocalRunner(Runs, deployment, definitions).run(until_caught_up=True, on_progress=seen.append)
    assert answer(deployment) == expected(events)
    assert (
        all(position.done and position.taken == position.target and position.control.caught_up_at for position in seen[-1])
        and len(seen[-1]) == 2
    )


def test_until_caught_up_with_nothing_in_the_topic_ends(deployment: Deployment) -> None:
    began = time.monotonic()
    LocalRunner(Runs, deployment, prepare(Runs, deployment)).run(until_caught_up=True)
    assert time.monotonic() - began < 5
    assert answer(deployment) == expected([])


def test_a_topic_that_is_not_there_is_created(tmp_path: Path) -> None:
    with Deployment("new", {"local": str(tmp_path), "partitions": 3}) as made:
        LocalRunner(Runs, made, prepare(Runs, made)).run(until_caught_up=True)
        assert made.log.partitions("events") == 3


def test_a_second_run_goes_on_and_counts_nothing_twice(deployment: Deployment) -> None:
    events: list[dict[str, int]] = []
    for run in range(3):
        events += produce(deployment, 100 * run, first=1000 * run)
        definitions = prepare(Runs, deployment)
        LocalRunner(Runs, deployment, definitions).run(until_caught_up=True)
        assert answer(deployment) == expected(events)
    assert committed(deployment, definitions[0]) == 300


def test_stop_makes_durable_what_was_taken(deployment: Deployment) -> None:
    events = produce(deployment, 300)

    class Slow(Topology):
        live = KafkaSpout.spec(EVENTS)
        counts = RollupBolt.spec(live, [COUNTS], flush="1h")

    definitions = prepare(Slow, deployment)
    runner = LocalRunner(Slow, deployment, definitions)

    def progress(positions: list[Any]) -> None:
        if sum(position.taken for position in positions) == 300:
            runner.stop()

    runner.run(on_progress=progress)
    assert committed(deployment, definitions[0]) == 300 and answer(deployment) == expected(events)
    assert all(
        control.flushing == control.done.offset
        for _, control in Registry(deployment.table).shards(definitions[0].bolt, definitions[0].generation)
    )


@pytest.mark.parametrize("stage, errors", [("process", 2), ("flush", 2)])
def test_a_bolt_that_raises_twice_is_started_again_and_misses_nothing(deployment: Deployment, stage: str, errors: int) -> None:
    events = produce(deployment, 200)
    Sink.errors = {stage: [RuntimeError("mine")] * errors}
    definitions = prepare(Own, deployment)
    LocalRunner(Own, deployment, definitions).run(until_caught_up=True)
    assert not Sink.errors[stage]
    assert Counter(k for keys in Sink.flushed.values() for k in keys) == Counter(event["k"] for event in events)
    assert Sink.starts >= 2 + errors - 1 and committed(deployment, definitions[0]) == 200


def test_a_sink_that_is_away_for_a_while_is_waited_for(deployment: Deployment) -> None:
    produce(deployment, 20)
    Sink.errors = {"flush": [UnavailableError("sink: no answer")] * 3}
    LocalRunner(Own, deployment, prepare(Own, deployment)).run(until_caught_up=True)
    assert Sink.starts == 2 and sum(map(len, Sink.flushed.values())) == 20


def test_a_bolt_that_goes_on_raising_ends_the_run_with_its_error(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RESTARTS", 2)
    produce(deployment, 20)
    Sink.errors = {"process": [RuntimeError(f"error {n}") for n in range(100)]}
    definitions = prepare(Own, deployment)
    with pytest.raises(RuntimeError, match="error 9[0-9]"):
        LocalRunner(Own, deployment, definitions).run(until_caught_up=True)
    assert len(Sink.errors["process"]) >= 100 - 2 * 3 and committed(deployment, definitions[0]) == 0
    Sink.errors = {}
    LocalRunner(Own, deployment, prepare(Own, deployment)).run(until_caught_up=True)
    assert sum(map(len, Sink.flushed.values())) == 20


def test_a_users_mistake_ends_the_run_at_once(deployment: Deployment) -> None:
    produce(deployment, 20)
    Sink.errors = {"process": [UsageError("no such sink", hint="name another")] * 2}
    with pytest.raises(UsageError, match="no such sink"):
        LocalRunner(Own, deployment, prepare(Own, deployment)).run(until_caught_up=True)
    assert Sink.errors["process"]


def test_an_error_while_draining_is_not_swallowed(deployment: Deployment) -> None:
    class Slow(Topology):
        live = KafkaSpout.spec(EVENTS)
        sink = Sink.spec(live, flush="1h")

    produce(deployment, 20)
    definitions = prepare(Slow, deployment)
    runner = LocalRunner(Slow, deployment, definitions)

    def progress(positions: list[Any]) -> None:
        if sum(position.taken for position in positions) == 20:
            Sink.errors = {"process": [RuntimeError("mine")] * 100}
            runner.stop()

    with pytest.raises(RuntimeError, match="mine"):
        runner.run(on_progress=progress)


def test_a_tuple_that_is_not_answered_for_in_time_comes_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local, "MESSAGE_TIMEOUT", 0.05)
    monkeypatch.setattr(local, "TICK_EVERY", 0.05)
    events = produce(deployment, 200)

    class Slower(Topology):
        live = KafkaSpout.spec(EVENTS)
        counts = RollupBolt.spec(live, [COUNTS], flush="400ms")

    definitions = prepare(Slower, deployment)
    runner = LocalRunner(Slower, deployment, definitions)
    thread = threading.Thread(target=runner.run)
    thread.start()
    until(lambda: committed(deployment, definitions[0]) == 200)
    runner.stop()
    thread.join()
    assert "not answered for" in caplog.text
    assert answer(deployment) == expected(events)


@pytest.mark.parametrize("mode", ["until caught up", "until stopped"])
def test_two_runners_at_once_count_every_event_once(tmp_path: Path, mode: str) -> None:
    """Two owners of every shard that both live: they take them from each other, and the result is exact."""
    places = [Deployment("both", {"local": str(tmp_path / "data"), "partitions": 2}) for _ in range(2)]
    places[0].log.create("events", 2)
    events = produce(places[0], 400)
    definitions = prepare(Runs, places[0])
    runners = [LocalRunner(Runs, place, definitions) for place in places]
    failures: list[BaseException] = []

    def run(runner: LocalRunner) -> None:
        try:
            runner.run(until_caught_up=mode == "until caught up")
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=run, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for n in range(5):
        time.sleep(0.05)
        events += produce(places[0], 20, first=1000 + 100 * n)
    time.sleep(0.3)
    for runner in runners[:1] if mode == "until stopped" else []:
        runner.stop()
    threads[0].join(20)
    for runner in runners:
        runner.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not failures
    LocalRunner(Runs, places[1], prepare(Runs, places[1])).run(until_caught_up=True)
    assert committed(places[1], definitions[0]) == 500 and answer(places[1]) == expected(events)
    for place in places:
        place.close()


def test_each_of_several_tasks_runs_its_own_partitions(deployment: Deployment) -> None:
    events = produce(deployment, 100)
    definitions = prepare(Runs, deployment)
    for index in range(3):  # the third has none
        runner = LocalRunner(Runs, deployment, definitions, place=(index, 3))
        runner.run(until_caught_up=True)
        assert sum(
            control.done.accepted for _, control in Registry(deployment.table).shards(definitions[0].bolt, definitions[0].generation)
        ) == sum(event["k"] % 2 <= index for event in events)
    assert answer(deployment) == expected(events)
