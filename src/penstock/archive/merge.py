"""Merging an hour's small files, so that a load opens few of them.

A merge writes one more file and one more entry, which covers those of the files that it was made from; readers then leave them out (see
`penstock.archive.memory.visible`). Nothing is changed or removed, so a crash at any step leaves the archive as it was, but for a file that no
entry names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import posixpath
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.errors import CorruptionError

_ROW_GROUP = 1 << 20  # rows: small files end up in few large row groups


def merge_hour(archive: Archive, dataset: str, hour: int, *, target_bytes: int, named: AbstractSet[str] = frozenset()) -> list[Entry]:
    """Merge runs of neighbouring files of an hour, each run into a Parquet file of about `target_bytes` bytes. The new entries.

    Neighbours are files of one shard whose offset ranges touch. Their rows keep their order. Files of `target_bytes` or more are left alone, and so
    is every path in `named`: those that a manifest names, for a manifest of merged files would be another one and its hour be loaded again.
    Raises CorruptionError for a file that is not the one that its entry describes; the runs before it are merged by then.
    """
    merged = []
    for run in _runs(archive.entries(dataset, hour), target_bytes, named):
        for part in _same_columns(archive, run):
            if len(part) > 1:
                merged.append(_merge(archive, part))
    return merged


def _runs(entries: list[Entry], target_bytes: int, named: AbstractSet[str]) -> Iterator[list[Entry]]:
    """Runs of small files to merge: of one shard, touching, no more than `target_bytes` together. `entries` as the archive orders them."""
    run: list[Entry] = []
    for entry in entries:
        fits = (
            run and entry.shard == run[-1].shard and entry.first == run[-1].next and sum(e.bytes for e in run) + entry.bytes <= target_bytes
        )
        mergeable = entry.path not in named and entry.bytes < target_bytes
        if not (fits and mergeable):
            if len(run) > 1:
                yield run
            run = []
        if mergeable:
            run.append(entry)
    if len(run) > 1:
        yield run


def _same_columns(archive: Archive, run: list[Entry]) -> Iterator[list[tuple[Entry, pa.Table]]]:
    """A run with its rows, cut where the columns change: a shard goes on through a change that adds one."""
    part: list[tuple[Entry, pa.Table]] = []
    for entry in run:
        table = _rows(archive, entry)
        if part and not part[-1][1].schema.equals(table.schema):
            yield part
            part = []
        part.append((entry, table))
    yield part


def _rows(archive: Archive, entry: Entry) -> pa.Table:
    data = archive.read(entry.path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CorruptionError(
            f"{entry.path} is not the file that was archived: its SHA-256 differs", hint="restore it, or rebuild the hour from the log"
        )
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except pa.ArrowException as problem:
        raise CorruptionError(f"{entry.path} is not a Parquet file ({problem})") from problem
    if table.num_rows != entry.rows:
        raise CorruptionError(f"{entry.path} holds {table.num_rows} rows, not the {entry.rows} of its index entry")
    return table


def _merge(archive: Archive, part: list[tuple[Entry, pa.Table]]) -> Entry:
    """Write the merged file, then its entry: in this order, so that an entry never names a file that is not there."""
    first, last = part[0][0], part[-1][0]
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables([table for _, table in part]), buffer, compression="zstd", row_group_size=_ROW_GROUP)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    # With its hash the name is another one for other bytes, such as another version of pyarrow writes.
    path = posixpath.join(posixpath.dirname(first.path), f"{first.shard[:120]}-{first.first}-{last.next}-merged-{digest[:16]}.parquet")
    entry = dataclasses.replace(first, path=path, next=last.next, rows=sum(e.rows for e, _ in part), bytes=len(data), sha256=digest)
    archive.write(path, data)
    archive.add([entry])
    return entry
