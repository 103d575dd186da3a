"""The order contract case by case, who owns a shard, and what is counted."""

from __future__ import annotations

import collections
import dataclasses
import random
from typing import Any

import pytest
from penstock.bolts import ArchiveBolt, BatchBolt, RollupBolt
from stores import EVENTS, NOW, SECOND, T0, Bench, event, replies

from penstock import By, Count, Rollup, Sum
from penstock.errors import CorruptionError, NotFoundError, UnavailableError
from penstock.kernels import RollupPlan, decode_cell, split_column, split_row
from penstock.model import Granularity
from penstock.model.units import HOUR, MINUTE
from penstock.rollup.control import Control, Progress
from penstock.rollup.shard import Limits
from penstock.runner.wire import TICK

COUNTS = Rollup(
    "counts",
    of=EVENTS,
    entity="k",
    measures={"n": Count(), "amount": Sum("amount")},
    by=[By(keep={"1m": "2d", "1h": "9d"}), By("kind", keep={"1h": "9d"})],
)


def rollups(**settings: Any) -> Bench:
    return Bench(EVENTS, RollupBolt, RollupBolt.definition_of(EVENTS, [COUNTS]), **settings)


def counts(made: Bench) -> dict[tuple[str, int, int, tuple[Any, ...]], list[int]]:
    """All cells, decoded: by table, window's start (minutes after T0), entity and dimensions, the measures of all shards."""
    plan, found = RollupPlan(COUNTS), {}
    for width in COUNTS.widths():
        for row, columns in made.stores.table.scan(COUNTS.table(width)):
            for breakdown, by in enumerate(COUNTS.by):
                try:
                    key, bucket, dimensions = split_row(plan, breakdown, row)
                except Exception:
                    continue
                if len(dimensions) != len(by.dimensions):
                    continue
                for column, value in columns.items():
                    _, offset, shard = split_column(column)
                    start = ((bucket * Granularity(width).span + offset) * width - T0) // MINUTE
                    found[Granularity(width).name, start, key, tuple(dimensions), shard] = decode_cell(plan, value)
    totals: dict[Any, list[int]] = {}
    for (name, start, key, dimensions, _), (n, amount) in found.items():
        total = totals.setdefault((name, start, key, dimensions), [0, 0])
        total[0], total[1] = total[0] + n, total[1] + amount
    return totals


def minutes(made: Bench) -> int:
    """How many records the minute cells count."""
    return sum(n for (name, *_), (n, _) in counts(made).items() if name == "1m")


# The order contract.


def test_a_tuple_is_acked_when_it_is_durable_and_not_before() -> None:
    made = rollups()
    made.produce([event(), event()])
    bolt = made.bolt()
    one = made.give(bolt, 0, 2)
    made.work(bolt)
    assert replies(bolt) == [] and made.control().done.offset == 0  # the interval is not over
    made.due(bolt, until="table.put counts_1m")
    assert replies(bolt) == [] and made.control().flushing == 2
    made.work(bolt)
    assert replies(bolt) == [f"ack {one}"] and minutes(made) == 2
    assert made.flushed(bolt) == [] and made.control().done == Progress(2, event()["ts"] * 1000, accepted=2)


def test_a_duplicate_that_is_durable_is_acked_at_once_and_counted_once() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    one = made.give(bolt, 0, 1)
    assert made.flushed(bolt) == [f"ack {one}"]
    again = made.give(bolt, 0, 1)
    assert replies(bolt) == [f"ack {again}"]
    made.flushed(bolt)
    assert minutes(made) == 1 and made.control().done.accepted == 1


def test_a_duplicate_that_is_not_durable_yet_is_acked_with_the_flush_that_covers_it() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    one = made.give(bolt, 0, 1)
    made.work(bolt)
    again = made.give(bolt, 0, 1)
    assert replies(bolt) == []
    assert sorted(made.flushed(bolt)) == sorted([f"ack {one}", f"ack {again}"])
    assert minutes(made) == 1


def test_a_tuple_beyond_what_is_expected_is_failed() -> None:
    made = rollups()
    for _ in range(3):
        made.produce([event()])
    bolt = made.bolt()
    one = made.give(bolt, 0, 1)
    made.work(bolt)
    late = made.give(bolt, 2, 3)
    assert replies(bolt) == [f"fail {late}"]
    bolt.component.driver.made.clear()
    made.work(bolt)
    assert bolt.component.driver.made == ["table.get control"]  # it looks whether it still owns the shard
    two, three = made.give(bolt, 1, 2), made.give(bolt, 2, 3)
    assert made.flushed(bolt) == [f"ack {name}" for name in (one, two, three)]
    assert minutes(made) == 3


def test_a_gap_finds_out_that_another_owner_has_the_shard() -> None:
    made = rollups()
    for _ in range(3):
        made.produce([event()])
    old, new = made.bolt(), made.bolt()
    one = made.give(old, 0, 1)
    made.work(old)
    made.give(new, 0, 1)
    made.flushed(new)
    gap = made.give(old, 2, 3)
    made.work(old)
    assert replies(old) == [f"fail {gap}", f"fail {one}"]
    assert made.control().done.offset == 1 and minutes(made) == 1


@pytest.mark.parametrize("first, second", [((0, 3), (2, 5)), ((0, 4), (0, 5)), ((0, 1), (0, 5)), ((0, 5), (1, 4))])
def test_of_a_tuple_that_overlaps_only_what_is_new_is_taken(first: tuple[int, int], second: tuple[int, int]) -> None:
    made = rollups()
    for n in range(5):
        made.produce([event(k=n)])
    bolt = made.bolt()
    names = [made.give(bolt, *first), made.give(bolt, *second)]
    assert sorted(made.flushed(bolt)) == sorted(f"ack {name}" for name in names)
    assert {key[2]: n for key, (n, _) in counts(made).items() if key[0] == "1m"} == dict.fromkeys(range(5), 1)


def test_of_a_batch_that_begins_before_the_position_only_what_follows_is_taken() -> None:
    made = rollups()
    made.produce([event(k=n) for n in range(6)])
    made.set_control(dataclasses.replace(made.control(), done=Progress(4, accepted=4), flushing=4))
    bolt = made.bolt()
    made.give(bolt, 4, 6)
    made.flushed(bolt)
    assert {key[2]: n for key, (n, _) in counts(made).items() if key[0] == "1m"} == {4: 1, 5: 1}
    assert made.control().done.counted == 6


def test_an_empty_tuple_is_acked_where_the_bolt_is_and_failed_where_it_is_not() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    assert len(made.flushed(bolt)) == 1
    here = made.give(bolt, 1, 1, caught_up=True)
    beyond = made.give(bolt, 2, 2, caught_up=True)
    assert replies(bolt) == [f"ack {here}", f"fail {beyond}"]


def test_an_empty_tuple_is_acked_with_what_is_not_durable_before_it() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    one = made.give(bolt, 0, 1)
    made.work(bolt)
    empty = made.give(bolt, 1, 1, caught_up=True)
    assert replies(bolt) == []
    assert made.flushed(bolt) == [f"ack {one}", f"ack {empty}"]


def test_caught_up_is_noted_when_it_is_durable_and_at_most_once_a_minute() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.flushed(bolt)
    assert made.control().caught_up_at is None
    made.give(bolt, 1, 1, caught_up=True)
    first = made.stores.clock
    made.flushed(bolt)
    assert made.control().caught_up_at == first
    bolt.component.driver.made.clear()
    made.give(bolt, 1, 1, caught_up=True)
    made.flushed(bolt)
    assert bolt.component.driver.made == []
    made.later(60)
    made.give(bolt, 1, 1, caught_up=True)
    again = made.stores.clock
    made.flushed(bolt)
    assert made.control().caught_up_at == again


def test_when_the_position_moves_without_data_the_counts_still_add_up() -> None:
    made = rollups()
    made.produce([event()])
    made.stores.log.skip("events", 0, 3)
    bolt = made.bolt()
    names = [
        made.give(bolt, 0, 1),
        made.give(bolt, 1, 4, data=b"", skipped=[(1, 4)]),
        made.give(bolt, 4, 10, data=b"", lost=[(4, 7), (7, 10)]),
    ]
    assert made.flushed(bolt) == [f"ack {name}" for name in names]
    done = made.control().done
    assert (done.offset, done.accepted, done.skipped, done.lost) == (10, 1, 3, ((4, 10),))


def test_offsets_that_are_nowhere_stop_the_bolt() -> None:
    made = rollups()
    made.produce([event()])
    bolt = made.bolt()
    made.work(bolt)
    made.give(bolt, 0, 1)
    made.work(bolt)
    with pytest.raises(CorruptionError, match="2 of the offsets 1 to 3") as caught:
        made.give(bolt, 1, 3, data=b"")
    assert "compacted" in str(caught.value)


def test_a_missing_control_cell_names_what_makes_one() -> None:
    made = rollups(prepare=False)
    made.stores.table.create("control")
    made.produce([event()])
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.work(bolt)
    with pytest.raises(NotFoundError, match="has no control cell.*\n.*penstock run"):
        bolt.send(dict(TICK))


# Ownership.


def test_a_claim_changes_the_owner_and_nothing_else() -> None:
    made = rollups()
    made.produce([event()])
    before = made.control()
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.work(bolt)
    assert dataclasses.replace(made.control(), owner="") == before and made.control().owner


def test_the_first_flush_of_a_new_owner_ends_where_the_one_before_meant_to() -> None:
    made = rollups(limits=Limits(flush_offsets=100, flush_bytes=1 << 20))
    for n in range(8):
        made.produce([event(k=n % 2)])
    old = made.bolt()
    made.give(old, 0, 5)
    made.due(old, until="table.put counts_1h")  # the minute cells are written, the hour's breakdown is not
    assert made.control().flushing == 5 and minutes(made) == 5
    new = made.bolt()
    made.give(new, 0, 8)
    made.flushed(new)
    assert made.control().done.offset == 8 and minutes(made) == 8
    assert {key[2:]: n for key, (n, _) in counts(made).items() if key[0] == "1h"} == {(0, ("a",)): 4, (1, ("a",)): 4}


def test_an_owner_that_lost_its_shard_writes_no_cell_more_and_fails_its_tuples() -> None:
    made = rollups()
    made.produce([event()])
    made.produce([event()])
    old, new = made.bolt(), made.bolt()
    one = made.give(old, 0, 1)
    made.work(old)
    made.give(new, 0, 2)
    made.work(new)
    assert made.flushed(old)[0] == f"fail {one}"
    assert minutes(made) == 0
    made.flushed(new)
    assert minutes(made) == 2


def test_a_lost_shard_is_claimed_again_when_a_tuple_comes_after_a_pause() -> None:
    made = rollups()
    made.produce([event()])
    old, new = made.bolt(), made.bolt()
    made.give(old, 0, 1)
    made.work(old)
    made.give(new, 0, 1)
    made.work(new)
    made.due(old)
    owner = made.control().owner
    made.give(old, 0, 1)
    made.work(old)
    assert made.control().owner == owner
    made.later(10)
    made.work(old)
    assert made.control().owner != owner


@pytest.mark.parametrize("interval", [2, 30])
def test_two_owners_that_both_live_get_on(interval: int) -> None:
    made = rollups(flush=interval * SECOND)
    for _ in range(10):
        made.produce([event()])
    tasks = [(made.spout(), made.bolt()), (made.spout(), made.bolt())]
    for step in range(300 * interval):
        made.later(0.05)
        for spout, bolt in tasks if step > 3 else tasks[:1]:
            for id_, values in made.next(spout):
                bolt.send({"id": id_, "comp": "live", "stream": "default", "task": 1, "tuple": values})
            made.work(bolt)
            for command, id_ in (reply.split(" ", 1) for reply in replies(bolt)):
                spout.send({"command": command, "id": id_})
    assert made.control().done.offset == 10


def test_a_flush_is_cut_off_at_the_cap_however_long_its_interval() -> None:
    made = rollups(limits=Limits(flush_offsets=4, flush_bytes=1 << 20), flush=3600 * SECOND)
    made.produce([event(k=n) for n in range(10)])
    bolt = made.bolt()
    made.give(bolt, 0, 10)
    made.work(bolt)
    assert minutes(made) == 8
    assert made.control().flushing == 8 and made.control().done.offset == 4  # the second commit is folded into the next


def test_a_compare_and_set_whose_answer_was_lost_is_decided_by_reading_back() -> None:
    made = rollups()
    made.produce([event()])
    bolt, swap, lost = made.bolt(), made.stores.table.compare_and_set, [True, True]

    def unanswered(*arguments: Any) -> bool:
        if arguments[1].startswith(b"shard/") and lost:
            if lost.pop():
                swap(*arguments)  # took effect
            raise UnavailableError("no answer")
        return swap(*arguments)

    made.stores.table.compare_and_set = unanswered  # type: ignore[method-assign]
    one = made.give(bolt, 0, 1)
    assert made.flushed(bolt) == [f"ack {one}"]
    assert minutes(made) == 1 and made.control().done.offset == 1 and not lost


def test_a_timestamp_is_later_than_the_last_whatever_the_clock_says() -> None:
    made, later = rollups(), (NOW + 3600 * SECOND) // 1000
    for _ in range(2):
        made.produce([event()])
    made.set_control(dataclasses.replace(made.control(), timestamp=later))
    bolt = made.bolt()
    made.give(bolt, 0, 1)
    made.flushed(bolt)
    assert made.control().timestamp == later + 1
    made.give(bolt, 1, 2)
    made.flushed(bolt)
    assert made.control().timestamp == later + 2 and minutes(made) == 2


# What is counted.


@pytest.mark.parametrize("seed", range(6))
def test_cells_and_counts_are_those_of_a_plain_loop(seed: int) -> None:
    """The oracle judges and counts one event after the other, in plain Python."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    made, at = rollups(limits=Limits(flush_offsets=rng.choice((7, 1000)), flush_bytes=1 << 20)), 0.0
    made.stores.clock = T0 + 5 * HOUR
    watermark, expected = -(2**62), collections.Counter[str]()
    cells: dict[Any, list[int]] = {}
    bolt, end = made.bolt(), 0
    for _ in range(20):
        values: list[Any] = []
        for _ in range(rng.randint(1, 8)):
            at += rng.random() * 3
            one: Any = event(
                max(0.0, at - (rng.random() * 25 if rng.random() < 0.3 else 0)),
                rng.randint(0, 2),
                kind=rng.choice("ab"),
                amount=rng.randint(-5, 5),
            )
            kind = rng.random()
            if kind < 0.1:
                one = rng.choice(
                    [
                        b"{",
                        b"",
                        b"[]",
                        {**one, "k": "x"},
                        {"k": 1},
                        {**one, "kind": "zz"},
                        {**one, "ts": (made.stores.clock + 2 * HOUR) // 1000},
                    ]
                )
            values.append(one)
            if kind < 0.1:
                expected["rejected"] += 1
            elif one["ts"] * 1000 < watermark - 600 * SECOND:
                expected["late"] += 1
            else:
                expected["accepted"] += 1
                minute = one["ts"] * 1000 // MINUTE - T0 // MINUTE
                for cell in (("1m", minute, one["k"], ()), ("1h", minute // 60 * 60, one["k"], (one["kind"],))):
                    total = cells.setdefault(cell, [0, 0])
                    total[0], total[1] = total[0] + 1, total[1] + one["amount"]
            if kind >= 0.1:
                watermark = max(watermark, one["ts"] * 1000)
        made.produce(values)
        made.give(bolt, end, end + len(values))
        end += len(values)
        if rng.random() < 0.3:
            made.flushed(bolt)
        if rng.random() < 0.15:
            bolt = made.bolt()  # the one before is no more
            end = made.control().done.offset
            if end < made.stores.log.end("events", 0):
                made.give(bolt, end, made.stores.log.end("events", 0))
                end = made.stores.log.end("events", 0)
    made.flushed(bolt)
    done = made.control().done
    assert (done.accepted, done.rejected, done.late, done.offset, done.watermark) == (
        expected["accepted"],
        expected["rejected"],
        expected["late"],
        end,
        watermark,
    )
    assert expected["late"] and expected["rejected"]
    closed = (watermark - 600 * SECOND) // HOUR * HOUR
    for (name, start, key, _), (n, amount) in list(
        cells.items()
    ):  # the total's hours are folded from the minutes when nothing can change them
        if name == "1m" and (T0 + start * MINUTE) // HOUR * HOUR < closed:
            total = cells.setdefault(("1h", start // 60 * 60, key, ()), [0, 0])
            total[0], total[1] = total[0] + n, total[1] + amount
    assert counts(made) == cells
    assert closed <= T0 or any(key[0] == "1h" and key[3] == () for key in cells)


def test_limits_are_constants_that_the_spout_is_told() -> None:
    """A flush of half the pending limit must always be possible: else the spout waits for the bolt and the bolt for the spout."""
    for bolt in (RollupBolt, ArchiveBolt, BatchBolt):
        assert bolt.limits.pending >= 2 and bolt.limits.flush_offsets > 0


@pytest.mark.parametrize("damaged", [b"null", b"3"])
def test_a_control_cell_that_is_no_object_is_corrupt(damaged: bytes) -> None:
    with pytest.raises(CorruptionError, match="control cell"):
        Control.decode(damaged)


def test_a_control_cell_is_canonical() -> None:
    control = Control("me", 3, Progress(9, 5, 1, 2, 3, 4, ((3, 4), (7, 9))), 12, 99, 7, None, ())
    assert Control.decode(control.encode()) == control
    assert Control.decode(control.encode()).encode() == control.encode()
    for damaged in (b"", b"{}", control.encode()[:-1], control.encode().replace(b"owner", b"woner")):
        with pytest.raises(CorruptionError, match="control cell"):
            Control.decode(damaged)
