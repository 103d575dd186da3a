"""The warehouse: SQL over detail and roll-ups, loaded an hour at a time, each hour in one transaction.

`Warehouse` is the seam; `penstock.warehouse.duckdb` is the embedded side, `penstock.warehouse.redshift` the real one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, ContextManager, Literal, Protocol, Sequence

from penstock.archive import Entry
from penstock.model.units import HOUR


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a dataset's table. kind: that of `penstock.model` fields (int, string, bool, enum, timestamp, decimal), or float."""

    name: str
    kind: str
    nullable: bool
    scale: int = 0  # of a decimal
    max_bytes: int = 0  # of a string or enum
    precision: int = 18  # of a decimal: how many digits


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A table of the warehouse: what an archived dataset is loaded into."""

    name: str
    columns: tuple[Column, ...]
    time: str  # the column of the event time: the sort key
    key: str | None  # the column rows are distributed by


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files of one hour of a dataset, as one load takes them: all of them, or none.

    span: how much event time the load replaces, from `hour` on, in microseconds: an hour of detail; a day or more of a roll-up.
    """

    dataset: str
    hour: int
    entries: tuple[Entry, ...]
    span: int = HOUR

    @property
    def rows(self) -> int:
        """How many rows the load must bring."""
        return sum(entry.rows for entry in self.entries)

    @property
    def hash(self) -> str:
        """The same for the same files, however often it is made."""
        return hashlib.sha256(json.dumps([e.to_json() for e in self.entries], sort_keys=True).encode()).hexdigest()

    @property
    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """Per shard, the offset ranges that its files were made from; touching ones joined."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        for entry in sorted(self.entries, key=lambda e: (e.shard, e.first)):
            known = ranges.setdefault(entry.shard, [])
            if known and entry.first <= known[-1][1]:
                known[-1] = (known[-1][0], max(known[-1][1], entry.next))
            else:
                known.append((entry.first, entry.next))
        return ranges


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """What the ledger says of a loaded hour. loaded_at: microseconds since 1970."""

    dataset: str
    hour: int
    manifest_hash: str
    rows: int
    ranges: dict[str, list[tuple[int, int]]]
    loaded_at: int


class Warehouse(Protocol):
    """A store that answers SQL. Calls raise UnavailableError when it does not answer, LoadError when an hour cannot be loaded."""

    def prepare(self, dataset: Dataset) -> None:
        """Create the dataset's table, or add the columns that it lacks as nullable ones; refuse a change that would lose data (ConfigurationError)."""

    def load(self, manifest: Manifest, paths: Sequence[str], now: int) -> Literal["loaded", "unchanged"]:
        """Load an hour's files in one transaction, in place of what was loaded for the hour before. See DESIGN, "Warehouse loads".

        paths: where each entry's file lies, in the order of the manifest's entries.
        """

    def ledger(self, dataset: str) -> list[LedgerRow]:
        """The hours loaded, in order."""

    def query(self, sql: str) -> Any:
        """The rows of one statement as a pyarrow.Table. Raises QueryError with the engine's message for a statement that cannot run."""

    def session(self) -> ContextManager[None]:
        """Calls made within share one connection, which saves most of the time of many small loads. Others wait meanwhile, where the store admits one at a time."""

    def close(self) -> None:
        """Let go of files and connections."""
