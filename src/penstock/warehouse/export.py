"""Which hours of the archive are due for the warehouse and why, and loading them, over the seams alone.

An hour is due when nothing more is to be expected of it: every partition has archived past its end plus a grace, or is caught up and silent. What
comes later all the same makes the hour due again. So exporting at a wrong moment costs a second load and never a wrong row: the ledger and the
manifest decide what is loaded, this module only when.

The order matters: the progress of the partitions is read BEFORE the index. An archive indexes a file before its control cell moves on, so an index
read after the cell has all that the cell promises; the other way round an hour could look complete whose last file was not yet listed. Hence
`plan_hours` takes progress as values and the archive as a store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from penstock.archive import Archive, Entry
from penstock.archive.merge import TARGET_BYTES, merge_hour
from penstock.errors import CorruptionError, NotFoundError, PenstockError
from penstock.model.units import HOUR, MINUTE, duration_text, hour_text, iso
from penstock.warehouse import Dataset, LedgerRow, Manifest, Warehouse

GRACE = 2 * MINUTE
RELOAD_INTERVAL = 15 * MINUTE
_WORTH_MERGING = 8  # small files of one shard: opening fewer costs less than writing their rows once more


@dataclasses.dataclass(frozen=True)
class PartitionProgress:
    """How far one partition of a topic is archived.

    watermark: the newest event time archived, in microseconds; None where there is none. committed: the offset up to which it is archived. end: the
    log's end, read no earlier than `committed` was. caught_up_at: when its spout last said that it had nothing more to read, in microseconds; None if
    it has not. claimed: whether it has a control cell; a partition that nobody has started yet has none.
    """

    partition: int
    watermark: int | None
    committed: int
    end: int
    caught_up_at: int | None
    claimed: bool = True

    def past(self, moment: int, now: int) -> bool:
        """Whether no more is expected of event times before `moment`."""
        return self.behind(moment, now) is None

    def behind(self, moment: int, now: int) -> str | None:
        """Why more is expected of event times before `moment`, for people; None if none is."""
        if self.watermark is not None and self.watermark >= moment:
            return None
        if not self.claimed:
            return f"partition {self.partition} was never started"
        if self.committed < self.end:
            upto = f"archived up to {iso(self.watermark)}" if self.watermark is not None else "not archived yet"
            return f"partition {self.partition} is {upto}, and {self.end - self.committed:,} offsets behind the log"
        if self.caught_up_at is None:
            return f"partition {self.partition} has no more, and its spout has not said so yet"
        return None if now >= moment else f"partition {self.partition} is caught up, and the hour and its grace end at {iso(moment)}"


@dataclasses.dataclass(frozen=True)
class HourPlan:
    """An hour of a dataset: what the archive has for it, what is to be done, and why.

    state: "new" and "changed" are due, for the first time or again. "waiting": more is expected of it. "held": it changed, too soon after it was
    loaded. "loaded": nothing is to be done. "foreign": it was loaded from another generation, and stays as it is.
    """

    dataset: str
    hour: int
    files: int
    rows: int
    bytes: int
    state: Literal["new", "changed", "waiting", "held", "loaded", "foreign"]
    why: str

    @property
    def due(self) -> bool:
        """Whether it is to be loaded now."""
        return self.state in ("new", "changed")


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What became of an hour. bytes: of its files. error: why it failed; the warehouse holds what it held before."""

    dataset: str
    hour: int
    rows: int
    files: int
    outcome: Literal["loaded", "unchanged", "failed"]
    error: PenstockError | None = None
    bytes: int = dataclasses.field(default=0, compare=False)


def manifest_of(archive: Archive, dataset: str, hour: int) -> Manifest:
    """The files that make an hour, as the index has them now."""
    return Manifest(dataset, hour, tuple(archive.entries(dataset, hour)))


def plan_hours(
    archive: Archive,
    dataset: str,
    progress: Sequence[PartitionProgress],
    ledger: Sequence[LedgerRow],
    now: int,
    *,
    grace: int = GRACE,
    reload_interval: int = RELOAD_INTERVAL,
    wanted: Callable[[int], bool] = lambda hour: True,
) -> list[HourPlan]:
    """Each archived hour of a dataset with what is to be done with it, in order.

    progress: of EVERY partition of the topic, claimed or not, read before this call. ledger: the dataset's, from the warehouse. An hour that was
    loaded is due again when it has records that it was not loaded from, and `reload_interval` microseconds after it was loaded. With no progress
    nothing is due. wanted: which hours to look at; looking at one reads its index.
    """
    loaded = {row.hour: row for row in ledger}
    plans = []
    for hour in filter(wanted, archive.hours(dataset)):
        broken, manifest = None, Manifest(dataset, hour, ())
        try:
            manifest = manifest_of(archive, dataset, hour)
        except CorruptionError as problem:
            broken = problem.message  # exporting the hour meets the error again, and reports it for this hour alone
        row, size = loaded.get(hour), sum(entry.bytes for entry in manifest.entries)
        state, why = _state(hour, manifest, row, progress, now, grace, reload_interval, broken)
        if manifest.entries or broken:
            plans.append(HourPlan(dataset, hour, len(manifest.entries), manifest.rows, size, state, why))
    return plans


def _state(
    hour: int,
    manifest: Manifest,
    row: LedgerRow | None,
    progress: Sequence[PartitionProgress],
    now: int,
    grace: int,
    reload_interval: int,
    broken: str | None,
) -> tuple[Literal["new", "changed", "waiting", "held", "loaded", "foreign"], str]:
    """What is to be done with an hour, and why."""
    if row is not None and broken is None:
        # By offsets and not by the manifest's hash: files that were merged hold the same records.
        if manifest.hash == row.manifest_hash or manifest.ranges == row.ranges:
            return "loaded", "loaded, and nothing came since"
        if _generations(manifest.ranges) != _generations(row.ranges):
            # Whether this generation's files hold all of it is not to be seen from them.
            return "foreign", "loaded from another generation, and stays as it is"
    behind = next(filter(None, (partition.behind(hour + HOUR + grace, now) for partition in progress)), None)
    if not progress or behind:
        return "waiting", behind or "nothing is known of the topic's partitions"
    if row is not None and now - row.loaded_at < reload_interval:
        return "held", f"changed, and loaded at {iso(row.loaded_at)}: again after {duration_text(reload_interval)}"
    if broken:
        return ("new" if row is None else "changed"), broken
    return ("new", "complete") if row is None else ("changed", "late files came since it was loaded")


def _generations(shards: Iterable[str]) -> set[str]:
    """The generations that shards are of: what their names begin with."""
    return {shard.partition("-")[0] for shard in shards}


def merge_worthy(archive: Archive, dataset: str, hour: int, loaded: LedgerRow | None, *, target_bytes: int = TARGET_BYTES) -> int:
    """Merge an hour's small files where there are many. How many files came of it.

    loaded: the hour's row of the ledger; the files that it was loaded from are left as they are.
    """
    entries = archive.entries(dataset, hour)
    named = {entry.path for entry in entries if loaded is not None and _held(entry, loaded)}
    small: dict[str, int] = {}
    for entry in entries:
        if entry.path not in named and entry.bytes < target_bytes:
            small[entry.shard] = small.get(entry.shard, 0) + 1
    if max(small.values(), default=0) < _WORTH_MERGING:
        return 0
    return len(merge_hour(archive, dataset, hour, target_bytes=target_bytes, named=named))


def _held(entry: Entry, loaded: LedgerRow) -> bool:
    """Whether the hour was loaded from this file, or from what it holds."""
    return any(first <= entry.first and entry.next <= end for first, end in loaded.ranges.get(entry.shard, ()))


def export_hour(archive: Archive, warehouse: Warehouse, dataset: Dataset, hour: int, now: int) -> ExportResult:
    """Load one hour of a dataset, due or not. Raises NotFoundError for an hour of which nothing is archived, and what `Warehouse.load` raises."""
    manifest = manifest_of(archive, dataset.name, hour)
    if not manifest.entries:
        raise NotFoundError(f"nothing of {dataset.name} {hour_text(hour)} is archived", hint="`penstock status` lists the hours that are")
    warehouse.prepare(dataset)
    outcome = warehouse.load(manifest, [archive.location(entry.path) for entry in manifest.entries], now)
    size = sum(entry.bytes for entry in manifest.entries)
    return ExportResult(dataset.name, hour, manifest.rows, len(manifest.entries), outcome, bytes=size)
