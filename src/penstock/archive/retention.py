"""Retention: what of an archive is no longer needed, and removing it.

Three kinds of files go: those of hours that are old enough, those that a merge has covered, and those that no entry ever named or will name. Entries
leave the index first, files go after: a reader that lists an hour finds it whole or not at all, and a removal that stops in between leaves files that
no entry names, which the next one removes.

Whether a file without an entry will get one is known from the control cells of the bolts that write files. A bolt's flush writes its files, then
moves its control cell on, which lists them, then indexes them. So a file of an owner that the cell no longer has, or of offsets behind what the cell
has committed, gets an entry only if the cell lists it. For this to hold, the control cells are read BEFORE the files are listed, and the files before
the index. Beside that, no file younger than `settled` is touched: somebody may be reading by an older list.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Literal, Protocol

from penstock.archive import Archive, Entry, StoredFile
from penstock.archive.memory import visible
from penstock.errors import UsageError
from penstock.model.units import DAY, HOUR, hour_text, instant

SETTLED = DAY
Reason = Literal["old", "merged", "orphan"]
_NAME = re.compile(r"(?P<shard>.+)-(?P<first>\d+)-(?P<next>\d+)-(?:(?P<owner>[0-9a-f]{32})|merged-[0-9a-f]{16})\.parquet")


@dataclasses.dataclass(frozen=True)
class Writers:
    """What the control cells of the bolts that write files say. Read it before `prune`.

    owners: by shard, the owner and the offset up to which it has committed. listed: the paths that they list.
    """

    owners: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    listed: AbstractSet[str] = frozenset()

    def done_with(self, path: str) -> bool | None:
        """Whether nobody will index this file any more, unless it is indexed by now. None for a file of which the control cells know nothing."""
        name = _NAME.fullmatch(posixpath.basename(path))
        if path in self.listed:
            return False
        if name is None or (name["owner"] is not None and name["shard"] not in self.owners):
            return None
        if name["owner"] is None:
            return True  # a merge's: it indexes its file as soon as that is written, or never
        owner, committed = self.owners[name["shard"]]
        return owner != name["owner"] or int(name["next"]) <= committed


class Loaded(Protocol):
    """What the warehouse knows of a dataset's hours."""

    def whole(self, hour: int, shown: list[Entry]) -> bool:
        """Whether all that an hour's entries hold has been loaded. shown: those that a reader takes."""

    def names(self, hour: int, shown: list[Entry], covered: Entry) -> bool:
        """Whether the manifest that was loaded last may name a file that is covered by now."""


@dataclasses.dataclass(frozen=True)
class Removed:
    """What was removed of an hour, for one reason; or would be. hour: None for files that lie in no hour's folder."""

    dataset: str
    hour: int | None
    reason: Reason
    files: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """Files that stay although they are old, or no entry names them. why: "in use" is what a control cell lists, or what is not settled yet."""

    dataset: str
    hour: int | None
    why: Literal["not loaded", "in use", "unknown"]
    files: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Rules:
    """What goes. See `prune`."""

    now: int
    before: int | None = None
    unloaded: bool = False
    settled: int = SETTLED
    dry_run: bool = False


def prune(archive: Archive, dataset: str, rules: Rules, writers: Writers, loaded: Loaded) -> Iterator[Removed | Kept]:
    """Remove what is no longer needed of a dataset, hour by hour, and yield what went and what had to stay.

    rules: hours that end by `before` are old (None: none is); they go when all of them is loaded, with `unloaded` all the same. A file is left alone
    until `settled` microseconds have passed since it was written. `dry_run` only says what would go. writers: read before this is called.
    """
    seen = set()
    for folder, files in itertools.groupby(archive.files(dataset), key=lambda file: posixpath.dirname(file.path)):
        hour = _hour_of(folder, dataset)
        seen.add(hour)
        yield from _Hour(archive, dataset, hour, list(files), rules, writers, loaded).prune()
    for hour in archive.hours(dataset):
        if hour not in seen:  # entries whose files are gone
            yield from _Hour(archive, dataset, hour, [], rules, writers, loaded).prune()


class _Hour:
    """The files of one folder, and what the index says of them. hour: None for a folder that is not an hour's."""

    def __init__(
        self, archive: Archive, dataset: str, hour: int | None, files: list[StoredFile], rules: Rules, writers: Writers, loaded: Loaded
    ) -> None:
        self.archive, self.dataset, self.hour = archive, dataset, hour
        self.rules, self.writers, self.loaded = rules, writers, loaded
        self.files = {file.path: file for file in files}
        self.index = archive.index(dataset, hour) if hour is not None else []  # after the files were listed

    def prune(self) -> Iterator[Removed | Kept]:
        named = {entry.path for entry in self.index}
        if self.index and self.hour is not None:
            yield from self._old_or_merged(self.hour, visible(self.index))
        yield from self._orphans([file for path, file in self.files.items() if path not in named])

    def _old_or_merged(self, hour: int, shown: list[Entry]) -> Iterator[Removed | Kept]:
        if self.rules.before is None or hour + HOUR > self.rules.before:
            covered = self._covered(hour, shown)
            if covered:
                yield self._take(covered, "merged")
        elif not self.rules.unloaded and not self.loaded.whole(hour, shown):
            yield Kept(self.dataset, hour, "not loaded", *self._size(entry.path for entry in self.index))
        elif all(self._at_rest(entry.path, gone=True) for entry in self.index):
            yield self._take(self.index, "old")
        else:
            yield Kept(self.dataset, hour, "in use", *self._size(entry.path for entry in self.index))

    def _covered(self, hour: int, shown: list[Entry]) -> list[Entry]:
        """The entries that others cover, whose files are there and have been for a while."""
        taken = {(entry.shard, entry.first, entry.next) for entry in shown}
        found = []
        for entry in self.index:
            if (entry.shard, entry.first, entry.next) in taken:
                continue
            covering = [one for one in shown if one.shard == entry.shard and one.first < entry.next and entry.first < one.next]
            whole = all(self._at_rest(one.path) and self.files[one.path].bytes == one.bytes for one in covering)
            if whole and self._at_rest(entry.path, gone=True) and not self.loaded.names(hour, shown, entry):
                found.append(entry)
        return found

    def _orphans(self, files: list[StoredFile]) -> Iterator[Removed | Kept]:
        files = [file for file in files if self._at_rest(file.path)]
        gone = [file.path for file in files if self.hour is not None and self.writers.done_with(file.path)]
        unknown = [file.path for file in files if self.hour is None or self.writers.done_with(file.path) is None]
        if gone:
            if not self.rules.dry_run:
                self.archive.remove(gone)
            yield Removed(self.dataset, self.hour, "orphan", *self._size(gone))
        if unknown:
            yield Kept(self.dataset, self.hour, "unknown", *self._size(unknown))

    def _at_rest(self, path: str, *, gone: bool = False) -> bool:
        """Whether nobody writes, indexes or has just listed a file. gone: what is said of one that is not there."""
        file = self.files.get(path)
        return path not in self.writers.listed and (gone if file is None else file.modified + self.rules.settled <= self.rules.now)

    def _take(self, entries: list[Entry], reason: Reason) -> Removed:
        """Take entries out of the index, then their files away."""
        staying = {entry.path for entry in self.index} - {entry.path for entry in entries}
        paths = [entry.path for entry in entries if entry.path not in staying]
        if not self.rules.dry_run:
            self.archive.drop(entries)
            self.archive.remove(paths)
        return Removed(self.dataset, self.hour, reason, *self._size(paths))

    def _size(self, paths: Iterable[str]) -> tuple[int, int]:
        """How many files of these there are, and their bytes."""
        found = [self.files[path].bytes for path in paths if path in self.files]
        return len(found), sum(found)


def _hour_of(folder: str, dataset: str) -> int | None:
    """The hour whose files lie in a folder."""
    name = folder.removeprefix(f"{dataset}/hour=")
    try:
        hour = instant(name)
    except UsageError:
        return None
    return hour if folder == f"{dataset}/hour={hour_text(hour)}" else None
