"""The archive: what its datasets hold, its files, and who indexes them."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

from penstock.bolts import ArchiveBolt
from stores import EVENTS, T0, Bench, event

from penstock.model.units import HOUR


def archive(**settings: Any) -> Bench:
    return Bench(EVENTS, ArchiveBolt, ArchiveBolt.definition_of(EVENTS), **settings)


def naive(micros: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)


def test_every_record_is_archived_once_in_its_dataset() -> None:
    made = archive()
    made.stores.clock = T0 + 3 * HOUR
    values: list[Any] = [
        event(0, 1, note="é"),
        event(61, 2, kind="b", amount=7),
        b"{\xff",
        event(5, 3),
        event(59, 0),
        {"ts": event()["ts"], "k": "x"},
        event(600, 4),
        b"",
    ]
    made.produce(values, codec="lz4")
    bolt = made.bolt()
    one = made.give(bolt, 0, len(values))
    assert made.flushed(bolt) == [f"ack {one}"]
    log_time = naive(T0 + 3 * HOUR)

    def row(offset: int) -> dict[str, Any]:
        value = values[offset]
        return {
            "ts": naive(value["ts"] * 1000),
            "k": value["k"],
            "kind": value.get("kind", "a"),
            "note": value.get("note"),
            "amount": value.get("amount", 0),
            "parity": {0: "none", 1: "odd"}.get(value["k"] and value["k"] % 2 or (2 if value["k"] else 0), "even"),
            "partition_id": 0,
            "log_offset": offset,
            "log_time": log_time,
        }

    assert made.archived("events") == [row(0), row(4), row(1)]  # by hour; 61 minutes is the next
    assert made.archived("events_late") == [row(3)]
    rejects = made.archived("events_rejects")
    assert [(one["log_offset"], one["field"], one["log_time"]) for one in rejects] == [
        (2, None, log_time),
        (5, "k", log_time),
        (6, None, log_time),
        (7, None, log_time),
    ]
    assert [base64.b64decode(one["value"]) for one in rejects][::3] == [b"{\xff", b""]
    assert "future" in rejects[2]["reason"] and "'k'" in rejects[1]["reason"]
    done = made.control().done
    assert (done.accepted, done.late, done.rejected) == (3, 1, 4)


def test_files_are_named_by_hour_generation_partition_offsets_and_owner() -> None:
    made = archive(partitions=3)
    made.produce([event()], 2)
    bolt = made.bolt()
    made.give(bolt, 0, 1, partition=2)
    made.flushed(bolt)
    [entry] = made.stores.archive.entries("events", T0)
    hour = dt.datetime.fromtimestamp(T0 / 1e6, dt.timezone.utc).strftime("%Y-%m-%dT%H")
    assert (
        entry.path
        == f"events/hour={hour}/{made.definition.generation}-events-{made.stores.log.incarnation('events')}-2-0-1-{made.control(2).owner}.parquet"
    )
    assert (entry.first, entry.next, entry.rows) == (0, 1, 1)


def test_a_commit_lists_the_files_until_they_are_indexed_and_a_new_owner_indexes_them() -> None:
    made = archive()
    made.produce([event(), event(70)])
    old = made.bolt()
    made.give(old, 0, 2)
    made.due(old, until="archive.add")
    assert len(made.control().files) == 2 and made.archived("events") == []
    new = made.bolt()
    made.give(new, 2, 2, caught_up=True)
    made.work(new)
    assert [one["log_offset"] for one in made.archived("events")] == [0, 1]
    made.flushed(new)
    assert made.control().files == ()


def test_two_owners_that_write_the_same_records_are_read_once() -> None:
    made = archive()
    made.produce([event()])
    old, new = made.bolt(), made.bolt()
    made.give(old, 0, 1)
    made.later(1.01)
    made.work(old, until="table.compare_and_set")  # claims
    old.component.driver.step()
    made.work(old, until="table.compare_and_set")  # has written its file and is about to commit
    made.give(new, 0, 1)
    made.flushed(new)
    made.work(old)
    assert [one["log_offset"] for one in made.archived("events")] == [0]
    assert made.control().done.accepted == 1
