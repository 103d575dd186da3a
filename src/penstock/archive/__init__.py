"""The archive: immutable detail files, and an index of them by dataset and hour.

`Archive` is the seam; `penstock.archive.directory` keeps folders; S3 comes beside it. A file counts only once an index entry names it:
what was written and never indexed is an orphan that no reader sees.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of the archive: which offsets of which shard it holds, for one event hour of one dataset.

    hour: of event time, microseconds since 1970, whole hours. shard: "<generation>-<topic>-<incarnation>-<partition>". first, next: the
    offsets that the file was made from: all records of [first, next) that belong to the hour and the dataset are in it.
    """

    dataset: str
    hour: int
    path: str
    shard: str
    first: int
    next: int
    rows: int
    bytes: int
    sha256: str

    def covers(self, other: Entry) -> bool:
        """Whether this file holds all that `other` does: a merge of it and its neighbours."""
        same = (self.dataset, self.hour, self.shard) == (other.dataset, other.hour, other.shard)
        return self != other and same and self.first <= other.first and other.next <= self.next

    def to_json(self) -> dict[str, Any]:
        """The entry as pure data."""
        return dataclasses.asdict(self)


class Archive(Protocol):
    """A store of files. Calls raise UnavailableError when the store does not answer."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole. Durable when this returns; the same path is only ever written with the same bytes."""

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises NotFoundError, naming the path."""

    def location(self, path: str) -> str:
        """Where DuckDB and other readers find the file: a local path or a URL."""

    def add(self, entries: list[Entry]) -> None:
        """Put entries into the index; one that is there already is left as it is. Durable when this returns."""

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """The index of an hour, without entries that another one covers, ordered by shard and first offset."""

    def hours(self, dataset: str) -> list[int]:
        """The hours that have an entry, in order."""

    def datasets(self) -> list[str]:
        """The datasets that have an entry, sorted."""

    def close(self) -> None:
        """Let go of connections."""
