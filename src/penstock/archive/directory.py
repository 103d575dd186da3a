"""The archive in a directory.

Layout: files lie where `write` was told; the index is one small JSON file an entry, `_index/<dataset>/hour=2015-05-17T10/<shard>-<first>-<next>.json`.
Every file, of data or of the index, is written beside its place under a hidden name, synced, renamed, and its directory synced: a reader finds it
whole or not at all, and what was acknowledged survives a power cut.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from penstock.archive import Entry
from penstock.archive.memory import check_entry, check_path, visible
from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, UnavailableError
from penstock.model.units import hour_text, instant

_SHARD = 160  # characters of a shard that a file name takes (file systems allow 255 bytes in all); a longer one is cut and told apart by its hash


class DirectoryArchive:
    """An `Archive` in a directory of a local disk, shared by threads and processes. The directory is created with the first write."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()
        self._made: set[Path] = set()  # directories known to be there and durable
        self._entry = functools.lru_cache(maxsize=65536)(_read_entry)  # an entry's file never changes

    def write(self, path: str, data: bytes) -> None:
        """See `Archive.write`."""
        self._write_all([(self._place(path), data)])

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        with self._errors():
            try:
                return self._place(path).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                raise NotFoundError(f"the archive at {self.directory} has no file {path}") from None

    def location(self, path: str) -> str:
        """See `Archive.location`: an absolute path."""
        return str(self._place(path))

    def add(self, entries: list[Entry]) -> None:
        """See `Archive.add`. Of many entries any may be there after a crash, each of them whole."""
        files = {self._entry_place(check_entry(entry)): entry for entry in reversed(entries)}  # the first of two for the same place
        with self._errors():
            missing = {place: entry for place, entry in files.items() if not place.exists()}
        self._write_all([(place, json.dumps(entry.to_json(), sort_keys=True).encode()) for place, entry in sorted(missing.items())])
        # Another process may have renamed an entry into place and not have synced the directory yet.
        for parent in sorted({place.parent for place in files.keys() - missing.keys()} - {place.parent for place in missing}):
            with self._errors():
                _sync(parent)

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.entries`, and `visible`. Raises CorruptionError for an entry that does not parse."""
        with self._errors():
            places = _listed(self._hour_place(dataset, hour))
            return visible(self._entry(str(place)) for place in places)

    def hours(self, dataset: str) -> list[int]:
        """See `Archive.hours`."""
        with self._errors():
            places = _subdirectories(self.directory / "_index" / check_path(dataset))
            return sorted(instant(place.name[5:]) for place in places if place.name.startswith("hour=") and _listed(place))

    def datasets(self) -> list[str]:
        """See `Archive.datasets`."""
        with self._errors():
            return sorted(
                place.name for place in _subdirectories(self.directory / "_index") if any(_listed(hour) for hour in _subdirectories(place))
            )

    def close(self) -> None:
        """See `Archive.close`. Nothing is held between calls but entries read before."""
        self._entry.cache_clear()

    def _place(self, path: str) -> Path:
        return self.directory / check_path(path)

    def _hour_place(self, dataset: str, hour: int) -> Path:
        return self.directory / "_index" / check_path(dataset) / f"hour={hour_text(hour)}"

    def _entry_place(self, entry: Entry) -> Path:
        shard = check_path(entry.shard)
        if len(shard) > _SHARD:
            shard = f"{shard[: _SHARD - 33]}-{hashlib.sha256(shard.encode()).hexdigest()[:32]}"
        return self._hour_place(entry.dataset, entry.hour) / f"{shard}-{entry.first}-{entry.next}.json"

    def _write_all(self, files: list[tuple[Path, bytes]]) -> None:
        """Write files whole and make them durable, syncing each directory once."""
        hidden: dict[Path, Path] = {}
        with self._errors():
            try:
                for place, data in files:
                    self._make(place.parent)
                    hidden[place] = place.parent / f".{uuid.uuid4().hex}.tmp"
                    with open(hidden[place], "xb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                for place, temporary in hidden.items():
                    os.rename(temporary, place)
                for parent in sorted({place.parent for place in hidden}):
                    _sync(parent)
            except BaseException:
                for temporary in hidden.values():
                    with contextlib.suppress(OSError):
                        temporary.unlink()
                raise

    def _make(self, directory: Path) -> None:
        """Create a directory with those above it, and make their names durable."""
        if directory in self._made:
            return
        if directory != self.directory:
            self._make(directory.parent)
            directory.mkdir(exist_ok=True)
            _sync(directory.parent)  # also where it is there: whoever made it may not have synced yet
        else:
            directory.mkdir(parents=True, exist_ok=True)
            _sync(directory.parent)
        self._made.add(directory)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (PermissionError, NotADirectoryError, FileExistsError) as problem:
            raise ConfigurationError(
                f"the archive at {self.directory} cannot be used ({problem})", hint="name a directory that can be written to"
            ) from problem
        except OSError as problem:
            raise UnavailableError(f"the archive at {self.directory} did not answer ({problem})") from problem


def _read_entry(place: str) -> Entry:
    """The entry in a file of the index."""
    try:
        return check_entry(Entry(**json.loads(Path(place).read_bytes())))
    except (ValueError, TypeError) as problem:
        raise CorruptionError(
            f"the index entry {place} does not parse ({problem})", hint="restore it, or rebuild the hour from the log"
        ) from problem


def _listed(directory: Path) -> list[Path]:
    """The entries' files in an hour of the index, sorted. None where there is no such hour."""
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return []


def _subdirectories(directory: Path) -> list[Path]:
    try:
        return [Path(found.path) for found in os.scandir(directory) if found.is_dir()]
    except FileNotFoundError:
        return []


def _sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
