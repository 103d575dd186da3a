"""When an hour is due, what becomes of it, and the datasets that are exported."""

from __future__ import annotations

import base64
import dataclasses
import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.archive import Entry
from penstock.archive.memory import MemoryArchive
from penstock.errors import CorruptionError, DeclarationError, NotFoundError
from penstock.kernels.reasons import NAMES
from penstock.model import Bool, Decimal, Enum, Int, Schema, String, Timestamp, derived
from penstock.model.units import DAY, HOUR, MINUTE, instant
from penstock.warehouse import Column, Dataset, LedgerRow
from penstock.warehouse.datasets import MAX_VALUE, arrow_schema, dataset_of, datasets_of, reject_value, rejects_dataset_of
from penstock.warehouse.duckdb import DuckDbWarehouse
from penstock.warehouse.export import PartitionProgress, export_hour, manifest_of, plan_hours

H = instant("2015-05-17T10")
NOW = H + 5 * DAY
GRACE = 2 * MINUTE
ADS = Dataset("ads", (Column("ts", "timestamp", False),), "ts", None)


def entry(hour: int, first: int = 0, end: int = 10, dataset: str = "ads") -> Entry:
    return Entry(dataset, hour, f"{dataset}/{hour}-{first}", "g-ads-i-0", first, end, end - first, 100, "0" * 64)


def at(watermark: int | None, *, committed: int = 10, end: int = 20, caught_up_at: int | None = None) -> PartitionProgress:
    return PartitionProgress(0, watermark, committed, end, caught_up_at)


def holding(*entries: Entry) -> MemoryArchive:
    archive = MemoryArchive()
    archive.add(list(entries))
    return archive


def ledger_row(archive: MemoryArchive, hour: int, loaded_at: int) -> LedgerRow:
    manifest = manifest_of(archive, "ads", hour)
    return LedgerRow("ads", hour, manifest.hash, manifest.rows, manifest.ranges, loaded_at)


def due(archive: MemoryArchive, *progress: PartitionProgress, ledger: list[LedgerRow] | None = None, now: int = NOW) -> list[int]:
    plans = plan_hours(archive, "ads", progress, ledger or [], now, grace=GRACE, reload_interval=10 * MINUTE)
    return [plan.hour for plan in plans if plan.due]


def test_an_hour_is_due_once_every_watermark_is_past_its_end_and_the_grace() -> None:
    archive = holding(entry(H), entry(H + HOUR))
    end = H + HOUR + GRACE
    assert due(archive, at(end)) == [H]
    assert due(archive, at(end - 1)) == []
    assert due(archive, at(end), at(end - 1)) == []
    assert due(archive, at(end + HOUR), at(end + HOUR)) == [H, H + HOUR]


def test_a_partition_that_nobody_has_claimed_holds_the_hour_back() -> None:
    assert due(holding(entry(H)), at(H + DAY), at(None, committed=0, end=5)) == []


def test_without_any_progress_nothing_is_due() -> None:
    assert due(holding(entry(H))) == []


def test_a_partition_that_is_caught_up_and_silent_is_past_an_hour_by_the_clock() -> None:
    archive = holding(entry(H))
    end = H + HOUR + GRACE
    silent = at(H + MINUTE, committed=20, caught_up_at=H + 2 * MINUTE)
    assert due(archive, silent, now=end) == [H]
    assert due(archive, silent, now=end - 1) == []
    assert due(archive, at(None, committed=0, end=0, caught_up_at=H), at(H + DAY), now=end) == [H], "an empty partition"
    assert due(archive, at(H + MINUTE, committed=20), now=end) == [], "at the end, and its spout has not said that it saw the end"
    assert due(archive, at(H + MINUTE, committed=19, caught_up_at=H + 2 * MINUTE), now=end) == [], "more has arrived since it was caught up"


def test_a_busy_partition_never_looks_at_the_clock() -> None:
    assert due(holding(entry(H)), at(H + MINUTE, committed=19), now=H + 365 * DAY) == []
    assert due(holding(entry(H)), at(H + HOUR + GRACE, committed=19), now=0) == [H]


def test_every_partition_decides() -> None:
    """All combinations of what a partition can be: due exactly if each by itself would let the hour go."""
    kinds = [
        (at(H + DAY), True),
        (at(H), False),
        (at(None), False),
        (at(H, committed=20, caught_up_at=1), True),
        (at(None, committed=20), False),
    ]
    for chosen in itertools.product(kinds, repeat=3):
        assert due(holding(entry(H)), *(progress for progress, _ in chosen)) == ([H] if all(lets for _, lets in chosen) else [])


def test_a_loaded_hour_is_due_again_only_when_its_files_changed_and_the_interval_is_over() -> None:
    archive = holding(entry(H))
    row = ledger_row(archive, H, loaded_at=NOW - 10 * MINUTE)
    assert due(archive, at(NOW), ledger=[row]) == []
    archive.add([entry(H, 10, 12)])
    assert due(archive, at(NOW), ledger=[row]) == [H]
    assert due(archive, at(NOW), ledger=[dataclasses.replace(row, loaded_at=row.loaded_at + 1)]) == []
    assert due(archive, at(NOW), ledger=[ledger_row(archive, H, loaded_at=0)]) == []


def test_an_hour_that_another_generation_loaded_stays_as_it_is() -> None:
    old, new = (
        holding(entry(H)),
        holding(dataclasses.replace(entry(H), shard="n-ads-i-0"), dataclasses.replace(entry(H + HOUR), shard="n-ads-i-0")),
    )
    assert due(new, at(H + DAY), ledger=[ledger_row(old, H, NOW - DAY)]) == [H + HOUR]


def test_the_index_is_read_when_the_hours_are_asked_for_and_only_then() -> None:
    archive = holding()
    progress = at(NOW)  # read first
    archive.add([entry(H)])  # indexed before the control cell moved
    assert due(archive, progress) == [H]


def test_an_index_that_is_corrupt_for_one_hour_hides_no_other(tmp_path: Path) -> None:
    archive = holding(entry(H, 0, 10), entry(H, 5, 15), entry(H + HOUR))
    loaded = ledger_row(holding(entry(H)), H, loaded_at=0)
    assert due(archive, at(NOW), ledger=[loaded]) == [H, H + HOUR], "its failure is to be seen when it is exported, not to hide the others"
    with pytest.raises(CorruptionError):
        export_hour(archive, DuckDbWarehouse(tmp_path / "w"), ADS, H, NOW)


def test_an_hour_whose_files_were_merged_is_not_due_again() -> None:
    row = ledger_row(holding(entry(H, 0, 10), entry(H, 10, 20)), H, loaded_at=0)
    assert due(holding(entry(H, 0, 20)), at(NOW), ledger=[row]) == []
    assert due(holding(entry(H, 0, 21)), at(NOW), ledger=[row]) == [H]


@pytest.mark.parametrize(
    ("progress", "why"),
    [
        (at(H + DAY), "complete"),
        (at(H + 30 * MINUTE, committed=15), "partition 0 is archived up to 2015-05-17T10:30:00Z, and 5 offsets behind the log"),
        (at(None, committed=0), "partition 0 is not archived yet, and 20 offsets behind the log"),
        (at(H, committed=20), "partition 0 has no more, and its spout has not said so yet"),
        (PartitionProgress(3, None, 0, 0, None, claimed=False), "partition 3 was never started"),
    ],
)
def test_a_plan_says_why(progress: PartitionProgress, why: str) -> None:
    [plan] = plan_hours(holding(entry(H), entry(H, 10, 13)), "ads", [at(H + DAY), progress], [], NOW, grace=GRACE)
    assert (plan.files, plan.rows, plan.bytes, plan.why, plan.due) == (2, 13, 200, why, why == "complete")


def test_a_plan_says_until_when_the_clock_is_waited_for() -> None:
    [plan] = plan_hours(holding(entry(H)), "ads", [at(H, committed=20, caught_up_at=H)], [], H + MINUTE, grace=GRACE)
    assert plan.why == "partition 0 is caught up, and the hour and its grace end at 2015-05-17T11:02:00Z"


def test_an_hour_without_files_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ads 2015-05-17T10"):
        export_hour(holding(), DuckDbWarehouse(tmp_path / "w"), ADS, H, NOW)


@derived(Enum("short", "long", default="short"), of=["n"])
def length(n: pa.Array) -> pa.Array:
    return n


FULL = Schema(
    "pages",
    time="ts",
    key="n",
    derive={"length": length},
    fields={
        "n": Int(),
        "s": String(max_bytes=100),
        "b": Bool(),
        "e": Enum("é", "x"),
        "ts": Timestamp("ms"),
        "d": Decimal(4, nullable=True),
    },
)


def test_a_dataset_has_all_columns_of_its_schema_and_where_the_event_stands_in_the_log() -> None:
    dataset = dataset_of(FULL)
    assert (dataset.name, dataset.time, dataset.key) == ("pages", "ts", "n")
    assert dataset.columns == (
        Column("n", "int", False),
        Column("s", "string", False, max_bytes=100),
        Column("b", "bool", False),
        Column("e", "enum", False, max_bytes=2),
        Column("ts", "timestamp", False),
        Column("d", "decimal", True, scale=4),
        Column("length", "enum", False, max_bytes=5),
        Column("partition_id", "int", False),
        Column("log_offset", "int", False),
        Column("log_time", "timestamp", False),
    )
    assert arrow_schema(dataset).types == [
        pa.int64(),
        pa.string(),
        pa.bool_(),
        pa.dictionary(pa.int16(), pa.string()),
        pa.timestamp("us"),
        pa.decimal128(18, 4),
        pa.dictionary(pa.int16(), pa.string()),
        pa.int64(),
        pa.int64(),
        pa.timestamp("us"),
    ]


def test_late_events_have_the_same_columns_and_rejects_their_own() -> None:
    accepted, late, rejects = datasets_of(FULL)
    assert (late.name, late.columns, late.time) == ("pages_late", accepted.columns, "ts")
    assert (rejects.name, rejects.time) == ("pages_rejects", "log_time")
    assert [c.name for c in rejects.columns] == ["log_time", "partition_id", "log_offset", "reason", "field", "value"]
    assert max(map(len, NAMES.values())) < next(c.max_bytes for c in rejects_dataset_of(FULL).columns if c.name == "reason")


@pytest.mark.parametrize("name", ["partition_id", "log_offset", "log_time"])
def test_no_schema_column_can_be_called_as_one_of_ours(name: str) -> None:
    assert name in arrow_schema(dataset_of(FULL)).names
    with pytest.raises(DeclarationError, match=name):
        Schema("ads", time="ts", fields={"ts": Timestamp(), name: Int()})


@pytest.mark.parametrize("value", [b"", b"{}", bytes(range(256)), "é\x00".encode()])
def test_a_rejected_value_can_be_read_back_byte_for_byte(value: bytes) -> None:
    text = reject_value(value)
    assert text is not None and base64.b64decode(text) == value
    assert reject_value(None) is None


def test_a_rejected_value_that_no_varchar_holds_is_its_beginning() -> None:
    text = reject_value(b"\xff" * 1_000_000)
    assert text is not None and len(text) <= MAX_VALUE
    assert base64.b64decode(text) == b"\xff" * 49_149
