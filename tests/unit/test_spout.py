"""The spout: where it begins, what it sends, how far ahead it may be, and where it goes back to."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from stores import NOW, SECOND, Bench, replies

from penstock import By, Count, Int, Rollup, Schema, Timestamp
from penstock.bolts import RollupBolt
from penstock.errors import NotFoundError, OutOfRangeError, UnavailableError
from penstock.kernels.encode import encode_list
from penstock.rollup.control import Progress
from penstock.rollup.shard import Limits

EVENTS = Schema("events", time="ts", lateness="1h", fields={"ts": Timestamp("ms"), "k": Int()})
COUNTS = Rollup("counts", of=EVENTS, entity="k", measures={"n": Count()}, by=[By(keep={"1m": "1d"})])
PREVIOUS, NEXT, SKIPPED, LOST, DATA, CAUGHT_UP = 3, 5, 6, 7, 8, 9


def bench(**settings: Any) -> Bench:
    return Bench(EVENTS, RollupBolt, RollupBolt.definition_of(EVENTS, [COUNTS]), **settings)


def event(n: int = 0) -> dict[str, int]:
    return {"ts": NOW // 1000 + n, "k": 1}


def drained(made: Bench, spout: Any, most: int = 50) -> list[tuple[str, list[Any]]]:
    """All that the spout sends without an answer."""
    found: list[tuple[str, list[Any]]] = []
    for _ in range(most):
        found += made.next(spout)
        made.later(0.06)
    return found


def test_it_begins_where_the_control_cell_says_and_nowhere_else() -> None:
    made = bench()
    for _ in range(5):
        made.produce([event()])
    control = made.control()
    made.set_control(dataclasses.replace(control, done=Progress(3, accepted=3), flushing=5))  # flushing is not where it begins
    assert [values[PREVIOUS : NEXT + 1 : 2] for _, values in drained(made, made.spout())] == [[3, 5]]


def test_without_a_control_cell_it_says_what_makes_one() -> None:
    made = bench(prepare=False)
    made.registry.table.create("control")
    with pytest.raises(NotFoundError, match="has no control cell") as caught:
        made.next(made.spout())
    assert "penstock run" in str(caught.value)


def test_each_task_reads_the_partitions_that_are_its_own() -> None:
    made = bench(partitions=5)
    seen = []
    for index in range(3):
        seen.append(sorted({values[2] for _, values in drained(made, made.spout(index, 3))}))
    assert seen == [[0, 3], [1, 4], [2]]
    assert drained(made, made.spout(5, 6)) == []


def test_it_sends_the_logs_own_bytes() -> None:
    made = bench()
    made.produce([event(), event()], codec="lz4")
    made.produce([event()])
    [(_, values)] = made.next(made.spout())
    assert values[:6] == [made.stores.log.incarnation("events"), "events", 0, 0, 0, 3]
    assert values[DATA] == made.stores.log.read("events", 0, 0, 1 << 20, 100).data and values[CAUGHT_UP] is False  # type: ignore[union-attr]


def test_a_position_inside_a_batch_comes_with_the_whole_batch() -> None:
    made = bench(start="latest")
    made.produce([event(), event(), event()])
    made.set_control(dataclasses.replace(made.control(), done=Progress(1, accepted=1)))
    [(_, values)] = made.next(made.spout())
    assert (values[PREVIOUS], values[NEXT]) == (1, 3) and len(values[DATA]) > 0


def test_skipped_and_lost_offsets_are_said() -> None:
    made = bench()
    made.produce([event()] * 2)
    made.stores.log.skip("events", 0, 3)
    made.produce([event()])
    [(_, values)] = made.next(made.spout())
    assert (values[NEXT], values[SKIPPED], values[LOST]) == (6, [[2, 5]], [])
    made.stores.log.truncate_before("events", 0, 5)
    [(_, values)] = made.next(made.spout())
    assert (values[PREVIOUS], values[NEXT], values[LOST], values[DATA]) == (0, 5, [[0, 5]], b"")


def test_what_is_on_its_way_is_limited_in_offsets() -> None:
    made = bench(limits=Limits(flush_offsets=3, flush_bytes=1 << 20, pending=2))
    for _ in range(20):
        made.produce([event()])
    spout = made.spout()
    sent = drained(made, spout)
    assert [values[PREVIOUS] for _, values in sent][0] == 0 and sent[-1][1][NEXT] == 6
    spout.send({"command": "ack", "id": sent[0][0]})
    more = drained(made, spout)
    assert more[-1][1][NEXT] == 6 + sent[0][1][NEXT]  # as many more as were acked


def test_what_is_on_its_way_is_limited_in_bytes() -> None:
    made = bench(limits=Limits(flush_offsets=1 << 20, flush_bytes=100, pending=2))
    for _ in range(20):
        made.produce([event()])
    size = len(made.stores.log.read("events", 0, 0, 1, 1).data)  # type: ignore[union-attr]
    sent = drained(made, made.spout())
    assert 200 <= sum(len(values[DATA]) for _, values in sent) < 200 + 20 * size
    assert drained(made, made.spout())[0][1][PREVIOUS] == 0


def test_a_batch_that_is_larger_than_the_limit_goes_through_alone() -> None:
    made = bench(limits=Limits(flush_offsets=2, flush_bytes=1 << 20, pending=1))
    made.produce([event()] * 9)
    made.produce([event()])
    spout = made.spout()
    [(id_, values)] = drained(made, spout)
    assert (values[PREVIOUS], values[NEXT]) == (0, 9)
    spout.send({"command": "ack", "id": id_})
    assert [values[PREVIOUS] for _, values in drained(made, spout)] == [9]


def test_a_fail_goes_back_to_what_is_committed_and_ends_the_epoch() -> None:
    made = bench()
    spout = made.spout()
    sent = []
    for _ in range(3):
        made.produce([event()])
        sent += made.next(spout)
        made.later(0.06)
    made.set_control(dataclasses.replace(made.control(), done=Progress(1, accepted=1), flushing=1))
    spout.send({"command": "fail", "id": sent[1][0]})
    [(again, values)] = made.next(spout)
    assert (values[PREVIOUS], values[NEXT]) == (1, 3)
    for id_, _ in sent:  # of the epoch before: they say nothing any more
        spout.send({"command": "fail", "id": id_})
        spout.send({"command": "ack", "id": id_})
    assert drained(made, spout) == []  # still waits for `again`, and has not gone back
    spout.send({"command": "ack", "id": again})
    assert [values[PREVIOUS] for _, values in drained(made, spout, 2)] == [3]  # idle


def test_a_fail_of_one_partition_leaves_the_others() -> None:
    made = bench(partitions=2)
    for partition in (0, 1):
        made.produce([event()], partition)
    spout = made.spout()
    sent = {values[2]: id_ for id_, values in made.next(spout) + made.next(spout)}
    spout.send({"command": "fail", "id": sent[1]})
    assert [values[2] for _, values in drained(made, spout)] == [1]


def test_with_nothing_to_send_and_nothing_pending_it_asks_every_flush_interval() -> None:
    made = bench(flush=2 * SECOND)
    made.produce([event()])
    spout = made.spout()
    [(first, _)] = drained(made, spout)  # pending: no empty tuple
    spout.send({"command": "ack", "id": first})
    [(empty, values)] = made.next(spout)
    assert values[PREVIOUS:] == [1, 1, 1, [], [], b"", True]
    spout.send({"command": "ack", "id": empty})
    made.later(1.9)
    assert made.next(spout) == []
    made.later(0.2)
    assert [values[CAUGHT_UP] for _, values in made.next(spout)] == [True]


def test_full_tuples_follow_each_other_and_small_ones_wait() -> None:
    made = bench()
    made.produce([event()])
    spout = made.spout()
    assert len(made.next(spout)) == 1
    made.produce([event()])
    assert made.next(spout) == []
    made.later(0.051)
    assert len(made.next(spout)) == 1
    made.produce([{**event(), "pad": "x" * (1 << 20)}])
    made.produce([{**event(), "pad": "x" * (1 << 20)}])
    made.later(0.051)
    assert len(made.next(spout)) == len(made.next(spout)) == 1


def test_deactivated_it_is_silent() -> None:
    made = bench()
    made.produce([event()])
    spout = made.spout()
    spout.send({"command": "deactivate"})
    assert drained(made, spout) == []
    spout.send({"command": "activate"})
    assert len(drained(made, spout)) == 1


def test_a_store_that_does_not_answer_is_asked_again_after_a_second() -> None:
    made = bench(partitions=2)
    made.produce([event()], 1)
    spout = made.spout()
    read, down = made.stores.log.read, [True]

    def unreliable(topic: str, partition: int, *arguments: Any) -> Any:
        if partition == 0 and down[0]:
            raise UnavailableError("log.read: no answer")
        return read(topic, partition, *arguments)

    made.stores.log.read = unreliable  # type: ignore[method-assign]
    assert [values[2] for _, values in drained(made, spout, 5)] == [1]  # the other partition goes on
    down[0] = False
    assert made.next(spout) == []
    made.later(1)
    assert [values[2] for _, values in drained(made, spout, 3)] == [0]


def test_a_log_that_ends_before_the_committed_position_is_an_error() -> None:
    made = bench()
    made.set_control(dataclasses.replace(made.control(), done=Progress(7, accepted=7)))
    with pytest.raises(OutOfRangeError, match="offset 7"):
        made.next(made.spout())


def test_records_of_a_topic_created_anew_are_never_sent_as_the_old_ones() -> None:
    made = bench()
    made.produce([event()])
    spout = made.spout()
    [(first, values)] = made.next(spout)
    spout.send({"command": "ack", "id": first})
    made.stores.log.delete("events")
    made.stores.log.create("events", 1)
    made.produce([event()] * 3)
    made.later(5)
    sent = drained(made, spout)
    again = made.stores.log.incarnation("events")
    assert again != values[0] and [(later[0], later[PREVIOUS], later[NEXT]) for _, later in sent][0] == (again, 0, 3)
    assert all(later[0] == again for _, later in sent)
    [(old, _), (new, control)] = sorted(
        made.registry.shards(made.definition.bolt, made.definition.generation), key=lambda s: s[0].incarnation == again
    )
    assert new.incarnation == again != old.incarnation and control.start == 0


def test_partitions_that_are_added_are_taken_up_from_their_beginning() -> None:
    made = bench(start="latest")
    spout = made.spout()
    assert [values[2] for _, values in drained(made, spout)][:1] == [0]
    made.stores.log.grow("events", 3)
    made.stores.log.append("events", 2, [encode_list([b"{}"], [NOW])])
    made.later(5)
    sent = [(values[2], values[PREVIOUS], values[NEXT]) for _, values in drained(made, spout)]
    assert (2, 0, 1) in sent and {partition for partition, _, _ in sent} >= {1, 2}
    assert {shard.partition for shard, _ in made.registry.shards(made.definition.bolt, made.definition.generation)} == {0, 1, 2}


def test_under_storm_what_only_a_person_can_help_is_reported_and_waited_for() -> None:
    """A component that raised would be started again at once, and take its worker with it each time."""
    made = bench()
    for _ in range(2):
        made.produce([event()])
    spout = made.spout()
    spout.component.patient = True
    made.set_control(dataclasses.replace(made.control(), done=Progress(7, accepted=7)))
    for _ in range(3):
        spout.send({"command": "next"})
        made.later(1)
    said = [message for message in spout.wire.outbox if message["command"] != "sync"]
    assert "offset 7" in str(said) and [message["command"] for message in said].count("error") == 1 and spout.sent() == []
    made.set_control(dataclasses.replace(made.control(), done=Progress(1, accepted=1)))
    made.later(31)
    assert [(values[PREVIOUS], values[NEXT]) for _, values in drained(made, spout)][0] == (1, 2)


def test_it_reports_for_lag_tools_how_far_its_bolt_is() -> None:
    made, reports = bench(), []
    made.stores.log.report = lambda group, topic, offsets: reports.append((group, topic, dict(offsets)))  # type: ignore[method-assign]
    made.produce([event()])
    spout = made.spout()
    [(first, _)] = made.next(spout)
    made.produce([event()])
    made.later(6)
    made.next(spout)
    assert reports == [(made.definition.bolt, "events", {0: 0})]
    spout.send({"command": "ack", "id": first})
    made.later(6)
    made.next(spout)
    assert reports[1:] == [(made.definition.bolt, "events", {0: 1})]


def test_a_spout_that_says_there_is_no_more_behind_what_is_durable_goes_back_to_that() -> None:
    """As when the log was cut off before the committed position: what is appended then would else be taken for what was counted."""
    made = bench()
    for _ in range(3):
        made.produce([event()])
    bolt = made.bolt()
    first = made.give(bolt, 0, 3)
    assert made.flushed(bolt) == [f"ack {first}"]
    behind = made.give(bolt, 1, 1, caught_up=True)
    level = made.give(bolt, 3, 3, caught_up=True)
    assert replies(bolt) == [f"fail {behind}", f"ack {level}"]
