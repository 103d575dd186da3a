"""`export-redshift`: hours of the archive into the Redshift stand-in, against what redshift-connector offers, and against COPY alone.

It starts what it needs and ends it again: PostgreSQL, the relay before it, and moto for S3. Each side is a process of its own that takes the same files, in turn:

- `export`: what `penstock export` does: index, ledger, every file read and checked, lock, manifest, COPY, counts, ledger, commit.
- `copy`: the same files by one COPY an hour into a table, each with a manifest that was written beforehand; no stage, no check, no ledger.
- `write-dataframe`: `Cursor.write_dataframe` of the same rows, one DataFrame an hour, already in memory.
- `insert`: INSERT of 500 rows a statement with bound parameters, the rows already in memory.

The last two get a part of the rows: it is the rate that is compared. The hours are few and large, since PostgreSQL, without a sort key's zone maps, reads the whole
table to count the rows of one.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.archive import Archive, Entry
from penstock.archive.s3 import S3Archive
from penstock.model.units import HOUR, hour_text, instant
from penstock.topologies.advertiser_analytics import ads
from penstock.warehouse import Dataset
from penstock.warehouse.datasets import arrow_schema, dataset_of
from penstock.warehouse.export import export_hour, manifest_of
from penstock.warehouse.redshift import RedshiftWarehouse, Settings
from penstock.warehouse.redshift.connection import Connection
from penstock.warehouse.redshift.ddl import copy, create_table
from penstock.warehouse.redshift.files import checked

from bench.child import cpu_seconds, peak_rss_mb
from bench.measure import ROOT, Bench, BenchError, Sample, cpu_ratio, median, ratio, spread
from bench.own_servers import own_servers
from bench.suite import Result, numbers, short

NAME = "export-redshift"
NAMES = (NAME,)
ROWS, HOURS, FILES = 3_000_000, 12, 4  # FILES: of an hour
BAR, OF_COPY = 20, 0.7
PART = {"write-dataframe": 256, "insert": 32}  # of the rows, these sides get one in so many
SIDES = ("export", "copy", "write-dataframe", "insert")
START = instant("2026-03-02")
_INSERTED = 500  # rows of a statement


def run(bench: Bench, *, events: int | None = None, rounds: int = 3) -> Result:
    """Measure. Raises BenchError if a side fails, or has loaded other rows than another one."""
    rows = events or ROWS
    bench.say(f"{NAME}: {rows:,} rows of {HOURS} hours, {rounds} rounds")
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    with own_servers(NAME, bench.directory / "stack", ("postgres", "s3", "redshift")) as (settings, environment):
        s3, redshift = settings["s3"], settings["redshift"]
        _archive(S3Archive(s3), dataset_of(ads), rows)
        for _ in range(rounds):
            found = {}
            for side in SIDES:
                told = {"side": side, "s3": s3, "redshift": redshift, "rows": rows}
                sample, found[side] = _sample(told, environment)
                bench.say(f"  {side}: {sample.events_per_second:,.0f} rows/s, {sample.cpu_seconds_per_million:.2f} CPU s per million")
                samples[side].append(sample)
            if found["export"] != found["copy"]:
                raise BenchError(f"{NAME}: export and copy have loaded other rows: {found['export']} and {found['copy']}")
    return _result(samples, rows, rounds)


def _result(samples: dict[str, list[Sample]], rows: int, rounds: int) -> Result:
    ours, theirs = samples["export"], samples["write-dataframe"]
    return {
        "name": NAME,
        **numbers(median(ours)),
        "baseline": "redshift-connector, write_dataframe",
        "ratio": short(ratio(ours, theirs)),
        "cpu_ratio": short(cpu_ratio(ours, theirs)),
        "bar": BAR,
        **{f"baseline_{key}": value for key, value in numbers(median(theirs)).items()},
        "events": rows,
        "loaded_in_part": median(theirs).events,
        "rounds": rounds,
        "spread": round(max(spread(ours), spread(samples["copy"])), 2),
        "peak_rss_mb": median(ours).peak_rss_mb,
        "of_copy": short(ratio(ours, samples["copy"])),
        "of_copy_bar": OF_COPY,
        "of_insert": short(ratio(ours, samples["insert"])),
        "insert_events_per_second": round(median(samples["insert"]).events_per_second),
    }


def _sample(told: dict[str, Any], environment: dict[str, str]) -> tuple[Sample, Any]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "bench.export_redshift", json.dumps(told)],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchError(f"{NAME}: {told['side']} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Sample(found["rows"], found["seconds"], found["cpu_seconds"], found["peak_rss_mb"], {}), found["loaded"]


def _archive(archive: Archive, dataset: Dataset, rows: int) -> None:
    """Fill the archive: the same rows each time, of a day in which each hour has as many."""
    draw, schema = np.random.default_rng(1), arrow_schema(dataset)
    each = max(1, rows // HOURS // FILES)
    for hour in range(START, START + HOURS * HOUR, HOUR):
        entries = []
        for number in range(FILES):
            table = _rows(draw, schema, hour, number, each)
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd", store_schema=False)
            data = sink.getvalue()
            path = f"{dataset.name}/hour={hour_text(hour)}/bench-{number}.parquet"
            archive.write(path, data)
            first = (hour - START) // HOUR * each
            digest = hashlib.sha256(data).hexdigest()
            entries.append(Entry(dataset.name, hour, path, f"g-ads-i-{number}", first, first + each, each, len(data), digest))
        archive.add(entries)


def _rows(draw: np.random.Generator, schema: pa.Schema, hour: int, partition: int, count: int) -> pa.Table:
    """Rows that are as ad events are: few advertisers and countries, many users, ids that compress badly."""
    words = {
        "type": ["impression", "click", "save", "conversion"],
        "country": ["US", "DE", "FR", "JP", "BR"],
        "device": ["phone", "tablet", "web"],
    }
    columns: dict[str, pa.Array] = {}
    for field in schema:
        if pa.types.is_timestamp(field.type):
            columns[field.name] = pa.array(hour + draw.integers(0, HOUR, count)).cast(field.type)
        elif pa.types.is_decimal(field.type):
            columns[field.name] = pa.array(draw.integers(0, 5_000, count)).cast(pa.decimal128(28, field.type.scale)).cast(field.type)
        elif pa.types.is_int64(field.type):
            most = {"advertiser": 1_000, "user": 1_000_000, "campaign": 5_000, "partition_id": 1}.get(field.name, 1 << 40)
            columns[field.name] = pa.array(draw.integers(0, most, count) + (partition if most == 1 else 0))
        elif field.name in words:
            columns[field.name] = pa.array(np.array(words[field.name])[draw.integers(0, len(words[field.name]), count)]).cast(field.type)
        else:
            columns[field.name] = pa.array([f"{n:016x}" for n in draw.integers(0, 1 << 62, count).tolist()])
    return pa.table(columns, schema=schema)


@dataclasses.dataclass
class _Side:
    """One side in its process: what it needs is made with it, and is not timed."""

    archive: Archive
    settings: Settings
    dataset: Dataset
    part: int

    def __post_init__(self) -> None:
        self.connection = Connection(self.settings)
        self.connection.execute(f'DROP TABLE IF EXISTS "{self.dataset.name}"')
        self.rows = 0
        self.hours = self.archive.hours("ads")

    def target(self) -> None:
        """An empty table."""
        self.connection.execute(create_table(self.dataset))
        self.connection.commit()

    def tables(self) -> list[pa.Table]:
        """The rows of an hour each, as many of them as the side gets."""
        found = []
        for hour in self.hours:
            files = [pq.read_table(io.BytesIO(self.archive.read(entry.path))) for entry in self.archive.entries("ads", hour)]
            table = pa.concat_tables(files)
            found.append(table.slice(0, max(1, table.num_rows // self.part)))
        self.rows = sum(table.num_rows for table in found)
        return found


class Export(_Side):
    """Ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("penstock_ledger", "penstock_datasets"):
            self.connection.execute(f'DROP TABLE IF EXISTS "{name}"')
        self.connection.commit()
        self.store = RedshiftWarehouse(self.settings, self.archive)

    def run(self) -> None:
        """Load every hour."""
        with self.store.session():
            for hour in self.hours:
                self.rows += export_hour(self.archive, self.store, self.dataset, hour, 1).rows


class Copy(_Side):
    """COPY alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target()
        self.urls = []
        for hour in self.hours:
            manifest = manifest_of(self.archive, "ads", hour)
            urls = [self.archive.location(entry.path) for entry in manifest.entries]
            (group,) = checked(self.archive, dataset_of(ads), manifest, urls, "footer", "bench")
            path = f"bench/{hour_text(hour)}.json"
            self.archive.write(path, group.to_json())
            self.urls.append(self.archive.location(path))
            self.rows += manifest.rows

    def run(self) -> None:
        """COPY every hour, each a transaction."""
        for url in self.urls:
            self.connection.execute(copy(self.dataset.name, url, self.settings.iam_role))
            self.connection.commit()


class Frame(_Side):
    """redshift-connector's own way to load a DataFrame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target()
        self.frames = [table.to_pandas().astype(object).where(lambda frame: frame.notna(), None) for table in self.tables()]

    def run(self) -> None:
        """A transaction an hour."""
        for frame in self.frames:
            cursor = self.connection._driver.cursor()
            cursor.write_dataframe(frame, self.dataset.name)
            self.connection.commit()


class Insert(_Side):
    """Many rows a statement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target()
        self.lists = [[list(row.values()) for row in table.to_pylist()] for table in self.tables()]

    def run(self) -> None:
        """A transaction an hour."""
        width = len(self.dataset.columns)
        row = f"({', '.join(['%s'] * width)})"
        for rows in self.lists:
            for at in range(0, len(rows), _INSERTED):
                part = rows[at : at + _INSERTED]
                self.connection.execute(
                    f'INSERT INTO "{self.dataset.name}" VALUES {", ".join([row] * len(part))}', [value for one in part for value in one]
                )
            self.connection.commit()


def main(text: str) -> None:
    """Measure one side, and print what came of it."""
    told = json.loads(text)
    kind = dict(zip(SIDES, (Export, Copy, Frame, Insert)))[told["side"]]
    name = {"export": "ads", "copy": "copied", "write-dataframe": "framed", "insert": "inserted"}[told["side"]]
    dataset = dataclasses.replace(dataset_of(ads), name=name)
    side = kind(S3Archive(told["s3"]), Settings.of(told["redshift"]), dataset, PART.get(told["side"], 1))
    gc.collect()
    cpu, began = cpu_seconds(), time.perf_counter()
    side.run()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    totals = side.connection.rows(f'SELECT count(*), sum("advertiser"), sum("cost"), min("ts"), max("event_id") FROM "{name}"')[0]
    if int(totals[0]) != side.rows:
        raise SystemExit(f"{totals[0]} rows are in the table, of {side.rows}")
    measured = {"seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak_rss_mb(), "rows": side.rows}
    print(json.dumps({**measured, "loaded": list(map(str, totals))}))


if __name__ == "__main__":
    main(sys.argv[1])
