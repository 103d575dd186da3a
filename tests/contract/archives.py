"""What tests of archives share: every implementation, empty, and files to put into it."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.archive import Archive, Entry
from penstock.archive.directory import DirectoryArchive
from penstock.archive.memory import MemoryArchive
from penstock.archive.s3 import S3Archive
from penstock.model.units import instant

H = instant("2015-05-17T10")
SHARD = "0123456789abcdef-ads-00112233445566778899aabbccddeeff-0"
STORES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "directory": lambda request: DirectoryArchive(request.getfixturevalue("tmp_path") / "archive"),
    "memory": lambda request: MemoryArchive(),
    "s3": lambda request: S3Archive(request.getfixturevalue("s3")),
    "s3-below-a-prefix": lambda request: S3Archive({**request.getfixturevalue("s3"), "prefix": "/below/a=prefix/"}),
}


@contextlib.contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An empty archive of the kind that the fixture's parameter names."""
    store = STORES[request.param](request)
    yield store
    store.close()


def entry(
    first: int,
    end: int,
    *,
    dataset: str = "ads",
    hour: int = H,
    shard: str = SHARD,
    path: str = "",
    rows: int = 1,
    size: int = 10,
    sha256: str = "",
) -> Entry:
    """An entry; of a file that is not there unless a test writes it."""
    return Entry(dataset, hour, path or f"{dataset}/{shard[-20:]}-{first}-{end}", shard, first, end, rows, size, sha256)


def archived(archive: Archive, first: int, end: int, values: list[int], *, names: tuple[str, ...] = ("n",), shard: str = SHARD) -> Entry:
    """A Parquet file of some values, written and indexed."""
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values, pa.int64()) for name in names}), sink, compression="zstd")
    data = sink.getvalue()
    made = entry(first, end, shard=shard, rows=len(values), size=len(data), sha256=hashlib.sha256(data).hexdigest())
    archive.write(made.path, data)
    archive.add([made])
    return made
