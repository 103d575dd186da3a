"""The archive: immutable detail files, and an index of them by dataset and hour.

`Archive` is the seam; `penstock.archive.directory` keeps folders, `penstock.archive.s3` a bucket. A file counts only once an index entry names it:
what was written and never indexed is an orphan that no reader sees.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
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


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file that lies in the archive, indexed or not. modified: when it was written, microseconds since 1970; 0 where that is not kept."""

    path: str
    bytes: int
    modified: int


class Archive(Protocol):
    """A store of files. Calls raise UnavailableError when the store does not answer."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole. Durable when this returns; the same path is only ever written with the same bytes."""

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises NotFoundError, naming the path."""

    def upload(self, path: str, file: str | os.PathLike[str]) -> None:
        """`write`, from a local file, which may be larger than memory."""

    def download(self, path: str, file: str | os.PathLike[str]) -> None:
        """`read`, into a local file, which is written over."""

    def location(self, path: str) -> str:
        """Where other programs find the file: a local path, or a URL such as the s3://bucket/key that a COPY's manifest names."""

    def filesystem(self) -> Any:
        """A pyarrow FileSystem in which the archive's paths are paths: `pq.ParquetFile(archive.filesystem().open_input_file(entry.path))`.

        For reading, in parts and by several threads. It raises pyarrow's errors (OSError, FileNotFoundError). Ask for it anew now and then: it holds the
        credentials of the moment.
        """

    def add(self, entries: list[Entry]) -> None:
        """Put entries into the index; one that is there already is left as it is. Durable when this returns."""

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """The index of an hour, without entries that another one covers, ordered by shard and first offset."""

    def index(self, dataset: str, hour: int) -> list[Entry]:
        """All that the index holds of an hour, entries that another one covers too, in no particular order."""

    def hours(self, dataset: str) -> list[int]:
        """The hours that have an entry, in order."""

    def datasets(self) -> list[str]:
        """The datasets that have an entry, sorted."""

    def files(self, folder: str) -> Iterator[StoredFile]:
        """The files below a folder, such as a dataset's, whether an entry names them or not; folder by folder."""

    def drop(self, entries: list[Entry]) -> None:
        """Take entries out of the index; one that is not there is as well. Durable when this returns. Their files stay."""

    def remove(self, paths: list[str]) -> None:
        """Remove files; one that is not there is as well. No entry may name them any more."""

    def sweep(self, before: int, *, dry_run: bool = False) -> int:
        """Remove what writes that never ended have left, of those begun before a moment (microseconds since 1970). How many."""

    def close(self) -> None:
        """Let go of connections."""
