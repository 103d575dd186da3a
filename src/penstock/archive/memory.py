"""The archive in memory, for the simulator and for tests. And what every archive shares: which paths it takes, which entries count."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from penstock.archive import Entry
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

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        with self._lock:
            try:
                return self._files[path]
            except KeyError:
                raise NotFoundError(f"the archive has no file {path}") from None

    def location(self, path: str) -> str:
        """See `Archive.location`. The file is copied to a temporary directory, which goes with `close`; where there is no such file, its place."""
        with self._lock:
            if self._spilled is None:
                self._spilled = tempfile.TemporaryDirectory(prefix="penstock-archive-")
            place = Path(self._spilled.name, check_path(path))
            if path in self._files:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._files[path])
            return str(place)

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

    def hours(self, dataset: str) -> list[int]:
        """See `Archive.hours`."""
        with self._lock:
            return sorted({entry.hour for entry in self._index.values() if entry.dataset == dataset})

    def datasets(self) -> list[str]:
        """See `Archive.datasets`."""
        with self._lock:
            return sorted({entry.dataset for entry in self._index.values()})

    def close(self) -> None:
        """See `Archive.close`. The files stay: the object is the store."""
        with self._lock:
            if self._spilled is not None:
                self._spilled.cleanup()
                self._spilled = None
