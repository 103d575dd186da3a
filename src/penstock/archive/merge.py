"""Merging an hour's small files, so that a load opens few of them.

A merge writes one more file and one more entry, which covers those of the files that it was made from; readers then leave them out (see
`penstock.archive.memory.visible`). Nothing is changed or removed, so a crash at any step leaves the archive as it was, but for a file that no
entry names. `penstock.archive.retention` removes what was merged, and such files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import posixpath
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.errors import ConfigurationError, CorruptionError

MIB = 1 << 20
TARGET_BYTES = 256 * MIB  # Redshift wants 1 MB to 1 GB a file, and several for its slices: few files of a shard, not one
_GROUP_ROWS, _GROUP_BYTES = 1 << 20, 64 * MIB  # of a row group, which is in memory as a whole


def paths_within(entries: Iterable[Entry], ranges: Mapping[str, Sequence[tuple[int, int]]]) -> frozenset[str]:
    """The paths of those entries whose offsets lie within a shard's ranges: the files that were loaded, by what the ledger says of an hour."""
    return frozenset(
        entry.path for entry in entries if any(first <= entry.first and entry.next <= end for first, end in ranges.get(entry.shard, ()))
    )


def merge_hour(
    archive: Archive, dataset: str, hour: int, *, target_bytes: int = TARGET_BYTES, named: AbstractSet[str] = frozenset()
) -> list[Entry]:
    """Merge runs of neighbouring files of an hour, each run into a Parquet file of at most about `target_bytes` bytes. The new entries.

    Neighbours are files of one shard whose offset ranges touch. Their rows keep their order. Files of `target_bytes` or more are left alone, and so
    is every path in `named`: those that a manifest names (see `paths_within`), for a manifest of merged files would be another one and its hour be
    loaded again. To be called before an hour is loaded, and again whenever files have come for it since.

    A run passes through a temporary folder of this machine, not through memory: there is room needed for about twice `target_bytes`, and memory for
    a row group of a file and one of the merged file. Raises CorruptionError for a file that is not the one that its entry describes, and whatever
    the store raises; the runs before it are merged by then.
    """
    merged = []
    for run in _runs(archive.entries(dataset, hour), target_bytes, named):
        merged += _merge(archive, run)
    return merged


def _runs(entries: list[Entry], target_bytes: int, named: AbstractSet[str]) -> Iterator[list[Entry]]:
    """Runs of small files to merge: of one shard, touching, no more than `target_bytes` together. `entries` as the archive orders them."""
    run: list[Entry] = []
    size = 0
    for entry in entries:
        fits = run and entry.shard == run[-1].shard and entry.first == run[-1].next and size + entry.bytes <= target_bytes
        mergeable = entry.path not in named and entry.bytes < target_bytes
        if not (fits and mergeable):
            if len(run) > 1:
                yield run
            run, size = [], 0
        if mergeable:
            run.append(entry)
            size += entry.bytes
    if len(run) > 1:
        yield run


def _merge(archive: Archive, run: list[Entry]) -> list[Entry]:
    """Merge a run, in parts where its columns change: a shard goes on through a change that adds one."""
    merged: list[Entry] = []
    with _scratch() as folder, contextlib.ExitStack() as stack:
        part: _Part | None = None
        for entry in run:
            fetched = folder / "file"
            with _checked(archive, entry, fetched) as source:
                if part is None or not part.schema.equals(source.schema_arrow):
                    merged += part.finish(archive) if part else []
                    part = stack.enter_context(_Part(folder / f"merged-{entry.first}", source.schema_arrow))
                part.append(entry, source)
            fetched.unlink()
        assert part is not None
        return merged + part.finish(archive)


class _Part:
    """Files of the same columns on their way into one."""

    def __init__(self, place: Path, schema: pa.Schema) -> None:
        self.schema, self._place = schema, place
        self._entries: list[Entry] = []
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        # The types of the columns are Parquet's alone, as in the files that a bolt writes.
        self._writer = pq.ParquetWriter(place, schema, compression="zstd", store_schema=False)

    def append(self, entry: Entry, source: pq.ParquetFile) -> None:
        """Take the rows of one more file."""
        self._entries.append(entry)
        for batch in source.iter_batches():
            self._batches.append(batch)
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
                self._write()

    def _write(self) -> None:
        """A row group: small files end up in few large ones."""
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=_GROUP_ROWS)
            self._batches, self._rows, self._bytes = [], 0, 0

    def finish(self, archive: Archive) -> list[Entry]:
        """Put the merged file into the archive, then its entry: in this order, so that an entry never names a file that is not there.

        A file that has no neighbour of the same columns stays as it is.
        """
        if len(self._entries) < 2:
            return []
        self._write()
        self._writer.close()
        first, last = self._entries[0], self._entries[-1]
        digest = _digest(self._place)
        # With its hash the name is another one for other bytes, such as another version of pyarrow writes.
        path = posixpath.join(posixpath.dirname(first.path), f"{first.shard[:120]}-{first.first}-{last.next}-merged-{digest[:16]}.parquet")
        entry = dataclasses.replace(
            first, path=path, next=last.next, rows=sum(e.rows for e in self._entries), bytes=self._place.stat().st_size, sha256=digest
        )
        archive.upload(path, self._place)
        archive.add([entry])
        return [entry]

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._writer.close()
        self._place.unlink(missing_ok=True)


@contextlib.contextmanager
def _checked(archive: Archive, entry: Entry, place: Path) -> Iterator[Any]:
    """An archived file as a pyarrow ParquetFile, fetched to a place of this machine, and what its entry says."""
    archive.download(entry.path, place)
    if _digest(place) != entry.sha256:
        raise CorruptionError(
            f"{entry.path} is not the file that was archived: its SHA-256 differs", hint="restore it, or rebuild the hour from the log"
        )
    try:
        with pq.ParquetFile(place, pre_buffer=False) as source:
            if source.metadata.num_rows != entry.rows:
                raise CorruptionError(f"{entry.path} holds {source.metadata.num_rows} rows, not the {entry.rows} of its index entry")
            yield source
    except (pa.ArrowException, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:  # of the operating system's; pyarrow's own have no number
            raise
        raise CorruptionError(f"{entry.path} is not a sound Parquet file ({problem})") from problem


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder. Raises ConfigurationError where there is no room for it."""
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-merge-") as folder:
            yield Path(folder)
    except ConnectionError:  # an archive's, which says what is wrong with it
        raise
    except OSError as problem:
        raise ConfigurationError(
            f"files cannot be merged in {tempfile.gettempdir()}: {problem.strerror or problem}", hint="TMPDIR names a folder with more room"
        ) from problem


def _digest(place: Path) -> str:
    with open(place, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _by_blocks(file)


def _by_blocks(file: Any) -> str:
    """`hashlib.file_digest`, which Python 3.10 has not."""
    found = hashlib.sha256()
    while block := file.read(MIB):
        found.update(block)
    return found.hexdigest()
