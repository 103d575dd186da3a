"""Bolts of one's own: which records they get, in which ranges, and what comes of their errors."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pytest
from penstock.bolts import BatchBolt, BatchContext
from stores import EVENTS, Bench, event, replies

from penstock import KafkaSpout
from penstock.errors import DeclarationError, UnavailableError
from penstock.runner.wire import TICK


class Recorder(BatchBolt):
    """A bolt of one's own that remembers everything it was told. `fails` is how often `process` and `flush` still raise, and what."""

    columns: ClassVar[Any] = ("k", "parity")
    told: ClassVar[list[tuple[Any, ...]]] = []
    fails: ClassVar[dict[str, list[Exception]]] = {}

    def start(self, context: BatchContext) -> None:
        self.told.append(("start", context.first_offset, context.next_offset))

    def process(self, batch: pa.RecordBatch, context: BatchContext) -> None:
        if self.fails.get("process"):
            raise self.fails["process"].pop()
        self.told.append(("process", context.first_offset, context.next_offset, batch.column("log_offset").to_pylist()))
        self.names = batch.schema.names

    def flush(self, context: BatchContext) -> None:
        if self.fails.get("flush"):
            raise self.fails["flush"].pop()
        self.told.append(("flush", context.first_offset, context.next_offset))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Recorder.told, Recorder.fails = [], {}


def recorder(**settings: Any) -> Bench:
    return Bench(EVENTS, Recorder, Recorder.definition_of(EVENTS), **settings)


def test_a_bolt_of_ones_own_gets_the_columns_it_asked_for_and_each_accepted_record_once() -> None:
    made = recorder()
    made.produce([event(k=n) for n in range(3)] + [b"{"] + [event(-30)])
    bolt = made.bolt()
    one = made.give(bolt, 0, 5)
    assert made.flushed(bolt) == [f"ack {one}"]
    assert Recorder.told == [("start", 0, 0), ("process", 0, 5, [0, 1, 2]), ("flush", 0, 5)]
    assert bolt.component.names == ["ts", "k", "parity", "log_offset"]
    assert (made.control().done.rejected, made.control().done.late) == (1, 1)


def test_a_flush_without_an_accepted_record_still_says_how_far_it_is() -> None:
    made = recorder()
    made.produce([b"{"])
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.flushed(bolt)
    assert Recorder.told == [("start", 0, 0), ("flush", 0, 1)] and made.control().done.offset == 1


@pytest.mark.parametrize("stage", ["bolt.process", "bolt.flush", "table.compare_and_set"])
def test_after_a_crash_the_same_range_comes_again(stage: str) -> None:
    made = recorder()
    for _ in range(7):
        made.produce([event()])
    bolt = made.bolt()
    made.give(bolt, 0, 2)
    made.flushed(bolt)
    made.give(bolt, 2, 5)
    made.later(1.01)
    made.work(bolt, until=stage)
    if stage == "table.compare_and_set":  # the flush itself was done, the commit was not
        bolt.component.driver.step()
        made.work(bolt, until=stage)
    del Recorder.told[:]
    again = made.bolt()
    made.give(again, 2, 7)
    made.flushed(again)
    assert Recorder.told == [("start", 2, 2), ("process", 2, 5, [2, 3, 4]), ("flush", 2, 5), ("process", 5, 7, [5, 6]), ("flush", 5, 7)]


def test_after_a_lost_shard_a_bolt_starts_anew_from_what_is_committed() -> None:
    made = recorder()
    for _ in range(4):
        made.produce([event()])
    old, new = made.bolt(), made.bolt()
    made.give(old, 0, 2)
    made.work(old)
    made.give(new, 0, 3)
    made.flushed(new)
    made.flushed(old)  # finds out
    del Recorder.told[:]
    made.later(20)
    made.give(old, 3, 4)
    made.flushed(old)
    assert Recorder.told == [("start", 3, 3), ("process", 3, 4, [3]), ("flush", 3, 4)]


def test_a_flush_that_finds_its_sink_away_is_tried_again_and_not_processed_again() -> None:
    made = recorder()
    made.produce([event()])
    Recorder.fails = {"flush": [UnavailableError("sink: no answer")] * 3}
    bolt = made.bolt()
    one = made.give(bolt, 0, 1)
    assert made.flushed(bolt) == [f"ack {one}"]
    assert [told[0] for told in Recorder.told] == ["start", "process", "flush"]


@pytest.mark.parametrize("stage", ["process", "flush"])
def test_an_error_of_ones_own_stops_the_bolt_with_that_error(stage: str) -> None:
    made = recorder()
    made.produce([event()])
    Recorder.fails = {stage: [RuntimeError("mine")]}
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.due(bolt)
    with pytest.raises(RuntimeError, match="mine"):
        bolt.send(dict(TICK))
    assert replies(bolt) == [] and made.control().done.offset == 0


def test_a_bolt_that_failed_does_not_answer_heartbeats() -> None:
    made = recorder()
    made.produce([event()])
    Recorder.fails = {"process": [RuntimeError("mine")]}
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.due(bolt)
    with pytest.raises(RuntimeError, match="mine"):
        bolt.send({"id": "x", "comp": None, "stream": "__heartbeat", "task": -1, "tuple": []})


def test_columns_that_the_schema_has_not_are_refused_when_they_are_declared() -> None:
    class Misspelt(BatchBolt):
        columns = ("k", "amuont")

    with pytest.raises(DeclarationError, match="'amuont'"):
        Misspelt.spec(KafkaSpout.spec(EVENTS))


def test_tuples_that_arrive_during_a_claim_are_taken_in_their_order() -> None:
    made = recorder()
    for _ in range(3):
        made.produce([event()])
    bolt = made.bolt()
    names = [made.give(bolt, 0, 1)]
    made.work(bolt, until="bolt.start")
    names.append(made.give(bolt, 1, 2))
    made.work(bolt)
    names.append(made.give(bolt, 2, 3))
    assert made.flushed(bolt) == [f"ack {name}" for name in names]
