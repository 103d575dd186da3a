"""The archive in memory, for the simulator and for tests. And what every archive shares: which paths it takes, which entries count."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from penstock.archive import Entry, StoredFile
from penstock.errors import ConfigurationError, CorruptionError, InternalError, NotFoundError
from penstock.model.units import HOUR

Key = tuple[str, int, str, int, int]  # dataset, hour, shard, first, next: what an index holds one entry for


def key_of(entry: Entry) -> Key:
    """What an index holds one entry for."""
    return entry.dataset, entry.hour, entry.shard, entry.first, entry.next


def check_path(path: str) -> str:
    """A path that stays inside the archive: relative, "/" between its parts, none of them hidden, "." or "..", none of them `_index`.

    Raises ConfigurationError for any other.
    """
    parts = path.split("/")
    if any(not part or part.startswith(".") or part == "_index" for part in parts) or "\\" in path or not path.isprintable():
        raise ConfigurationError(
            f"{path!r} is not a usable path in an archive",
            hint='write "dataset/hour=2015-05-17T10/name.parquet": relative, no part hidden, none of them _index',
        )
    return path


def check_entry(entry: Entry) -> Entry:
    """An entry that an index can hold. Raises InternalError for one that no flush makes, ConfigurationError for a path that is not usable."""
    check_path(entry.path)
    if entry.hour % HOUR or not 0 <= entry.first < entry.next or entry.rows < 0 or "/" in entry.dataset + entry.shard:
        raise InternalError(f"archive: not an entry of whole hours and offsets: {entry}")
    return entry


def visible(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a reader takes: none that another one covers, none that overlap, ordered by shard and first offset.

    Files that the stream writes do not overlap, and a merge covers whole files. Two merges made at once may overlap in part, though: then the one
    that begins later is left out, and the files that it was made from count again. So each record is read once whatever an index holds, and the
    answer depends on the entries alone, not on their order. Raises CorruptionError for an entry left out whose offsets no other files hold.
    """
    taken: list[Entry] = []
    hidden: list[Entry] = []
    held: dict[str, list[tuple[int, int]]] = {}  # per shard, the ranges taken; touching ones joined
    for entry in sorted(
        entries, key=lambda e: (e.shard, e.first, -e.next, e.path)
    ):  # of those that begin at one offset, the longest is first
        ranges = held.setdefault(entry.shard, [])
        if ranges and entry.first < ranges[-1][1]:
            hidden.append(entry)
            continue
        taken.append(entry)
        if ranges and entry.first == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], entry.next)
        else:
            ranges.append((entry.first, entry.next))
    for entry in hidden:
        if not any(first <= entry.first and entry.next <= end for first, end in held[entry.shard]):
            raise CorruptionError(
                f"archive: {entry.path} overlaps other files in part: it holds offsets {entry.first} to {entry.next} of shard {entry.shard}",
                hint="two writers took the same offsets: find out which file is right, and remove the other one's index entry",
            )
    return taken


class MemoryArchive:
    """An `Archive` that lives as long as the object. Nothing depends on time or chance."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._index: dict[Key, Entry] = {}
        self._lock = threading.Lock()
        self._spilled: tempfile.TemporaryDirectory[str] | None = None

    def write(self, path: str, data: bytes) -> None:
        """See `Archive.write`. Raises InternalError for other bytes than the path holds."""
        with self._lock:
            if self._files.setdefault(check_path(path), data) != data:
                raise InternalError(f"archive: {path} was written before, with other bytes")
            if self._spilled is not None:
                self._spill(path)

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        with self._lock:
            try:
                return self._files[path]
            except KeyError:
                raise NotFoundError(f"the archive has no file {path}") from None

    def upload(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.upload`."""
        self.write(path, Path(file).read_bytes())

    def download(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.download`."""
        Path(file).write_bytes(self.read(path))

    def location(self, path: str) -> str:
        """See `Archive.location`. The files are copied to a temporary directory, which goes with `close`."""
        with self._lock:
            return str(self._place(check_path(path)))

    def filesystem(self) -> Any:
        """See `Archive.filesystem`: that of the copies."""
        from pyarrow import fs

        with self._lock:
            return fs.SubTreeFileSystem(str(self._place("")), fs.LocalFileSystem())

    def add(self, entries: list[Entry]) -> None:
        """See `Archive.add`."""
        checked = [check_entry(entry) for entry in entries]
        with self._lock:
            for entry in checked:
                self._index.setdefault(key_of(entry), entry)

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.entries`, and `visible`."""
        with self._lock:
            return visible(entry for entry in self._index.values() if (entry.dataset, entry.hour) == (dataset, hour))

    def index(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.index`."""
        with self._lock:
            return [entry for entry in self._index.values() if (entry.dataset, entry.hour) == (dataset, hour)]

    def hours(self, dataset: str) -> list[int]:
        """See `Archive.hours`."""
        with self._lock:
            return sorted({entry.hour for entry in self._index.values() if entry.dataset == dataset})

    def datasets(self) -> list[str]:
        """See `Archive.datasets`."""
        with self._lock:
            return sorted({entry.dataset for entry in self._index.values()})

    def files(self, folder: str) -> Iterator[StoredFile]:
        """See `Archive.files`. When a file was written is not kept."""
        check_path(folder)
        with self._lock:
            found = [StoredFile(path, len(data), 0) for path, data in sorted(self._files.items()) if path.startswith(f"{folder}/")]
        return iter(found)

    def drop(self, entries: list[Entry]) -> None:
        """See `Archive.drop`."""
        with self._lock:
            for entry in entries:
                self._index.pop(key_of(entry), None)

    def remove(self, paths: list[str]) -> None:
        """See `Archive.remove`."""
        with self._lock:
            for path in paths:
                self._files.pop(check_path(path), None)
                if self._spilled is not None:
                    Path(self._spilled.name, path).unlink(missing_ok=True)

    def sweep(self, before: int, *, dry_run: bool = False) -> int:
        """See `Archive.sweep`. No write leaves anything."""
        return 0

    def _place(self, path: str) -> Path:
        """Where a file's copy is. Under the lock; the first call copies all files."""
        if self._spilled is None:
            self._spilled = tempfile.TemporaryDirectory(prefix="penstock-archive-")
            for name in self._files:
                self._spill(name)
        return Path(self._spilled.name, path)

    def _spill(self, path: str) -> None:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self._files[path])

    def close(self) -> None:
        """See `Archive.close`. The files stay: the object is the store."""
        with self._lock:
            if self._spilled is not None:
                self._spilled.cleanup()
                self._spilled = None
