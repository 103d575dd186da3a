"""Which hours of the archive are due for the warehouse, and loading them, over the seams alone.

An hour is due when nothing more is to be expected of it: every partition has archived past its end plus a grace, or is caught up and silent. What
comes later all the same makes a new manifest, and the hour is loaded again. So exporting at a wrong moment costs a second load and never a wrong
row: the ledger and the manifest decide what is loaded, this module only when.

The order matters: the progress of the partitions is read BEFORE the index. An archive indexes a file before its control cell moves on, so an index
read after the cell has all that the cell promises; the other way round an hour could look complete whose last file was not yet listed. Hence
`due_hours` takes progress as values and the archive as a store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from penstock.archive import Archive
from penstock.errors import CorruptionError, NotFoundError, PenstockError
from penstock.model.units import HOUR, MINUTE, hour_text
from penstock.warehouse import Dataset, LedgerRow, Manifest, Warehouse

GRACE = 2 * MINUTE
RELOAD_INTERVAL = 15 * MINUTE


@dataclasses.dataclass(frozen=True)
class PartitionProgress:
    """How far one partition of a topic is archived.

    watermark: the newest event time archived, in microseconds; None where there is none (or nobody has claimed the partition). committed: the offset
    up to which it is archived. end: the log's end, read no earlier than `committed` was. caught_up_at: when its spout last said that it had nothing
    more to read, in microseconds; None if it has not.
    """

    partition: int
    watermark: int | None
    committed: int
    end: int
    caught_up_at: int | None

    def past(self, moment: int, now: int) -> bool:
        """Whether no more is expected of event times before `moment`."""
        if self.watermark is not None and self.watermark >= moment:
            return True
        return self.committed >= self.end and self.caught_up_at is not None and now >= moment


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What became of an hour. error: why it failed; the warehouse holds what it held before."""

    dataset: str
    hour: int
    rows: int
    files: int
    outcome: Literal["loaded", "unchanged", "failed"]
    error: PenstockError | None = None


def manifest_of(archive: Archive, dataset: str, hour: int) -> Manifest:
    """The files that make an hour, as the index has them now."""
    return Manifest(dataset, hour, tuple(archive.entries(dataset, hour)))


def due_hours(
    archive: Archive,
    dataset: str,
    progress: Sequence[PartitionProgress],
    ledger: Sequence[LedgerRow],
    now: int,
    *,
    grace: int = GRACE,
    reload_interval: int = RELOAD_INTERVAL,
) -> list[int]:
    """The hours of a dataset to load now, in order.

    progress: of EVERY partition of the topic, claimed or not, read before this call. ledger: the dataset's, from the warehouse. An hour that was
    loaded is due again when its files have changed, and `reload_interval` microseconds after it was loaded. With no progress nothing is due.
    """
    if not progress:
        return []
    loaded = {row.hour: row for row in ledger}
    due = []
    for hour in archive.hours(dataset):
        if not all(partition.past(hour + HOUR + grace, now) for partition in progress):
            continue
        row = loaded.get(hour)
        if row is None or (now - row.loaded_at >= reload_interval and _changed(archive, row)):
            due.append(hour)
    return due


def _changed(archive: Archive, loaded: LedgerRow) -> bool:
    """Whether the hour has other files than it was loaded from. One that was loaded from another generation stays as it is: whether this one
    holds all of it is not to be seen from the files."""
    try:
        manifest = manifest_of(archive, loaded.dataset, loaded.hour)
        return loaded.manifest_hash != manifest.hash and _generations(manifest.ranges) == _generations(loaded.ranges)
    except CorruptionError:
        return True  # exporting the hour meets the error again, and reports it for this hour alone


def _generations(shards: Iterable[str]) -> set[str]:
    """The generations that shards are of: what their names begin with."""
    return {shard.partition("-")[0] for shard in shards}


def export_hour(archive: Archive, warehouse: Warehouse, dataset: Dataset, hour: int, now: int) -> ExportResult:
    """Load one hour of a dataset, due or not. Raises NotFoundError for an hour of which nothing is archived, and what `Warehouse.load` raises."""
    manifest = manifest_of(archive, dataset.name, hour)
    if not manifest.entries:
        raise NotFoundError(f"nothing of {dataset.name} {hour_text(hour)} is archived", hint="`penstock status` lists the hours that are")
    warehouse.prepare(dataset)
    outcome = warehouse.load(manifest, [archive.location(entry.path) for entry in manifest.entries], now)
    return ExportResult(dataset.name, hour, manifest.rows, len(manifest.entries), outcome)


def export_due(
    archive: Archive,
    warehouse: Warehouse,
    dataset: Dataset,
    progress: Sequence[PartitionProgress],
    now: int,
    *,
    grace: int = GRACE,
    reload_interval: int = RELOAD_INTERVAL,
) -> Iterator[ExportResult]:
    """Load all hours that are due, in order, and yield what became of each. See `due_hours` for `progress`.

    An hour that fails is reported and the next ones go on; after a store that does not answer they do not, for it is not the hour's fault. Errors
    before the first hour are raised.
    """
    with warehouse.session():
        warehouse.prepare(dataset)
        for hour in due_hours(
            archive, dataset.name, progress, warehouse.ledger(dataset.name), now, grace=grace, reload_interval=reload_interval
        ):
            try:
                yield export_hour(archive, warehouse, dataset, hour, now)
            except PenstockError as problem:
                yield ExportResult(dataset.name, hour, 0, 0, "failed", problem)
                if problem.retriable:
                    return
