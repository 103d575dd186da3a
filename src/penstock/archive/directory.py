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
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from penstock.archive import Entry, StoredFile
from penstock.archive.memory import check_entry, check_path, visible
from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, UnavailableError
from penstock.model.units import hour_text, instant

_BLOCK = 1 << 20
_TRIES = 3  # to write into a directory that another process removes meanwhile, because it was empty
_SHARD = 160  # characters of a shard that a file name takes (file systems allow 255 bytes in all); a longer one is cut and told apart by its hash


class DirectoryArchive:
    """An `Archive` in a directory of a local disk, shared by threads and processes. The directory is created with the first write."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()
        self._made: set[Path] = set()  # directories known to be there and durable
        self._entry = functools.lru_cache(maxsize=65536)(_read_entry)  # an entry's file never changes

    def write(self, path: str, data: bytes) -> None:
        """See `Archive.write`."""
        self._write_all([(self._place(path), lambda out: out.write(data))])

    def upload(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.upload`."""

        def copy(out: BinaryIO) -> None:
            with open(file, "rb") as source:
                shutil.copyfileobj(source, out, _BLOCK)

        self._write_all([(self._place(path), copy)])

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        with self._errors():
            try:
                return self._place(path).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                raise NotFoundError(f"the archive at {self.directory} has no file {path}") from None

    def download(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.download`."""
        with self._errors():
            try:
                shutil.copyfile(self._place(path), file)
            except (FileNotFoundError, IsADirectoryError):
                raise NotFoundError(f"the archive at {self.directory} has no file {path}") from None

    def location(self, path: str) -> str:
        """See `Archive.location`: an absolute path."""
        return str(self._place(path))

    def filesystem(self) -> Any:
        """See `Archive.filesystem`."""
        from pyarrow import fs

        return fs.SubTreeFileSystem(str(self.directory), fs.LocalFileSystem())

    def add(self, entries: list[Entry]) -> None:
        """See `Archive.add`. Of many entries any may be there after a crash, each of them whole."""
        files = {self._entry_place(check_entry(entry)): entry for entry in reversed(entries)}  # the first of two for the same place
        with self._errors():
            missing = {place: entry for place, entry in files.items() if not place.exists()}
        texts = ((place, json.dumps(entry.to_json(), sort_keys=True).encode()) for place, entry in sorted(missing.items()))
        self._write_all([(place, functools.partial(_put, text)) for place, text in texts])
        # Another process may have renamed an entry into place and not have synced the directory yet.
        for parent in sorted({place.parent for place in files.keys() - missing.keys()} - {place.parent for place in missing}):
            with self._errors():
                _sync(parent)

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.entries`, and `visible`. Raises CorruptionError for an entry that does not parse."""
        return visible(self.index(dataset, hour))

    def index(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.index`. Raises CorruptionError for an entry that does not parse."""
        with self._errors():
            found = []
            for place in _listed(self._hour_place(dataset, hour)):
                with contextlib.suppress(FileNotFoundError):  # dropped since it was listed
                    found.append(self._entry(str(place)))
            return found

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

    def files(self, folder: str) -> Iterator[StoredFile]:
        """See `Archive.files`, in order."""
        with self._errors():
            yield from self._walk(self._place(folder))

    def _walk(self, directory: Path) -> Iterator[StoredFile]:
        try:
            found = sorted(os.scandir(directory), key=lambda one: one.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for one in found:
            if one.name.startswith("."):
                continue
            if one.is_dir():
                yield from self._walk(Path(one.path))
            else:
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    stat = one.stat()
                    yield StoredFile(str(Path(one.path).relative_to(self.directory)), stat.st_size, stat.st_mtime_ns // 1000)

    def drop(self, entries: list[Entry]) -> None:
        """See `Archive.drop`."""
        self._unlink([self._entry_place(check_entry(entry)) for entry in entries])
        self._entry.cache_clear()  # an entry at the same place may be another one from now on

    def remove(self, paths: list[str]) -> None:
        """See `Archive.remove`. Directories that it leaves empty go too."""
        self._unlink([self._place(path) for path in paths])

    def _unlink(self, places: list[Path]) -> None:
        with self._errors():
            for place in places:
                place.unlink(missing_ok=True)
            for parent in sorted({place.parent for place in places}):
                with contextlib.suppress(FileNotFoundError):
                    _sync(parent)
                with contextlib.suppress(OSError):  # not empty, or gone
                    parent.rmdir()

    def sweep(self, before: int, *, dry_run: bool = False) -> int:
        """See `Archive.sweep`: hidden files."""
        swept = 0
        with self._errors():
            for folder, _, names in os.walk(self.directory):
                for place in (Path(folder, name) for name in names if name.startswith(".") and name.endswith(".tmp")):
                    with contextlib.suppress(FileNotFoundError):
                        if place.stat().st_mtime_ns // 1000 < before:
                            swept += 1
                            if not dry_run:
                                place.unlink()
        return swept

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

    def _write_all(self, files: list[tuple[Path, Callable[[BinaryIO], Any]]]) -> None:
        """Write files whole, each by its function, and make them durable, syncing each directory once."""
        with self._errors():
            for tries in range(_TRIES):
                try:
                    return self._try_to_write(files)
                except FileNotFoundError:  # a directory that was there has been removed, being empty
                    self._made.clear()
                    if tries == _TRIES - 1:
                        raise

    def _try_to_write(self, files: list[tuple[Path, Callable[[BinaryIO], Any]]]) -> None:
        hidden: dict[Path, Path] = {}
        try:
            for place, write in files:
                self._make(place.parent)
                hidden[place] = place.parent / f".{uuid.uuid4().hex}.tmp"
                with open(hidden[place], "xb") as file:
                    write(file)
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


def _put(text: bytes, out: BinaryIO) -> None:
    out.write(text)


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
