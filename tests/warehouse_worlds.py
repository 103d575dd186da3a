"""The warehouses that the contract is asked of, each with the archive that it loads from, and files in it."""

from __future__ import annotations

import dataclasses
import decimal
import hashlib
import io
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.archive.directory import DirectoryArchive
from penstock.archive.s3 import S3Archive
from penstock.errors import UnavailableError
from penstock.model import Decimal, Enum, Int, Schema, String, Timestamp
from penstock.model.units import HOUR, instant
from penstock.warehouse import Manifest
from penstock.warehouse.datasets import arrow_schema, dataset_of
from penstock.warehouse.duckdb import STEPS as DUCKDB_STEPS
from penstock.warehouse.duckdb import DuckDbWarehouse
from penstock.warehouse.redshift import STEPS as REDSHIFT_STEPS
from penstock.warehouse.redshift import RedshiftWarehouse

H = instant("2015-05-17T10")
SCHEMA = Schema(
    "ads",
    time="ts",
    key="advertiser",
    fields={
        "ts": Timestamp("ms"),
        "advertiser": Int(),
        "hour": String(nullable=True),
        "type": Enum("click", "save"),
        "cost": Decimal(6, nullable=True),
    },
)
ADS = dataset_of(SCHEMA)
# A folder whose name has all that DuckDB's patterns and SQL's strings could trip over.
FOLDER = "it's [a] *dir?/hour=2015-05-17T10"


@dataclasses.dataclass
class World:
    """A warehouse and its archive, which another process can open too. place: a folder, or the tables s3 and redshift of a deployment."""

    kind: str
    place: Any

    def archive(self) -> Archive:
        """The archive."""
        return DirectoryArchive(Path(self.place) / "archive") if self.kind == "duckdb" else S3Archive(self.place[0])

    def open(self) -> Any:
        """The warehouse: another object each time, the same store."""
        if self.kind == "duckdb":
            return DuckDbWarehouse(Path(self.place) / "store" / "w.duckdb")
        return RedshiftWarehouse(self.place[1], self.archive(), pause=0.001)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of a load."""
        return DUCKDB_STEPS if self.kind == "duckdb" else REDSHIFT_STEPS

    def fault(self, text: str) -> Exception:
        """What the store's own side raises when it fails."""
        return duckdb.Error(text) if self.kind == "duckdb" else UnavailableError(text)

    def left_over(self) -> list[str]:
        """What loads have left behind: files that are no data's, and tables that are no dataset's."""
        files = [file.path for file in self.archive().files("_manifests")]
        every = "SELECT table_name FROM information_schema.tables" if self.kind == "duckdb" else "SELECT relname FROM pg_class"
        column = "table_name" if self.kind == "duckdb" else "relname"  # temporary tables of all sessions are there
        tables = self.open().query(f"{every} WHERE {column} LIKE 'penstock_stage%'").column(0).to_pylist()
        return files + tables


def rows_of(first: int, end: int, *, hour: int = H) -> pa.Table:
    """A row an offset, of the dataset's columns."""
    count = end - first
    offsets = pa.array(range(first, end), pa.int64())
    columns: dict[str, pa.Array] = {
        "ts": pa.array([hour + (n * 1000) % HOUR for n in range(count)], pa.timestamp("us")),
        "advertiser": offsets,
        "hour": pa.array([f"h'{n}" if n % 3 else None for n in range(count)]),
        "type": pa.array(["click" if n % 2 else "save" for n in range(count)])
        .dictionary_encode()
        .cast(pa.dictionary(pa.int16(), pa.string())),
        "cost": pa.array([decimal.Decimal(n) / 8 for n in range(count)], pa.decimal128(18, 6)),
        "partition_id": pa.array([0] * count, pa.int64()),
        "log_offset": offsets,
        "log_time": pa.array([hour] * count, pa.timestamp("us")),
    }
    return pa.table([columns[name] for name in arrow_schema(ADS).names], schema=arrow_schema(ADS))


class Files:
    """Parquet files in an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def file(self, first: int, end: int, table: pa.Table | None = None, *, shard: str = "g-ads-i-0", hour: int = H) -> tuple[Entry, str]:
        """A file and its entry. `table` in place of the usual rows."""
        table = rows_of(first, end, hour=hour) if table is None else table
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        return self.store(f"{shard}-{first}-{end}-{hour}-{table.num_rows}", sink.getvalue(), shard, first, end, table.num_rows, hour)

    def store(self, name: str, data: bytes, shard: str, first: int, end: int, rows: int, hour: int = H) -> tuple[Entry, str]:
        """A file of these bytes, and the entry for it."""
        path = f"{FOLDER}/{name}.parquet"
        self.archive.write(path, data)
        entry = Entry("ads", hour, path, shard, first, end, rows, len(data), hashlib.sha256(data).hexdigest())
        return entry, self.archive.location(path)

    def damage(self, file: tuple[Entry, str], data: bytes) -> None:
        """Put other bytes in a file's place."""
        self.archive.write(file[0].path, data)

    def manifest(self, *files: tuple[Entry, str]) -> tuple[Manifest, list[str]]:
        """The manifest of some files, and their paths."""
        return Manifest("ads", files[0][0].hour, tuple(entry for entry, _ in files)), [path for _, path in files]


def offsets(warehouse: Any) -> list[int]:
    """The offsets of all rows, sorted: each record's identity."""
    return warehouse.query("SELECT log_offset FROM ads ORDER BY log_offset").column(0).to_pylist()  # type: ignore[no-any-return]
