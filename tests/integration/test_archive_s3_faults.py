"""S3 at its worst, over real HTTP: what ArchiveBolt writes, and what merging and pruning make of it, is what it would be on a good day."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from faulty_s3 import FAULTS, faulty

from penstock import ArchiveBolt, Int, KafkaSpout, Schema, Timestamp, Topology
from penstock.archive import Archive
from penstock.archive.merge import merge_hour
from penstock.archive.retention import Rules, prune
from penstock.archive.s3 import S3Archive
from penstock.cli.archive import Ledger, writers_of
from penstock.deployment import Deployment
from penstock.errors import PenstockError
from penstock.log.producer import Producer
from penstock.model.units import DAY, HOUR
from penstock.runner.local import LocalRunner, prepare

START = 1_431_820_800_000_000  # 2015-05-17T00:00Z
clicks = Schema("clicks", time="ts", lateness="1d", fields={"ts": Timestamp("us"), "k": Int()})


class Archived(Topology):
    detail = KafkaSpout.spec(clicks)
    archive = ArchiveBolt.spec(detail, flush="1s")


def produced(deployment: Deployment, count: int, seed: int) -> list[tuple[int, int]]:
    """Events of six hours, put into the log."""
    chance = random.Random(seed)
    events = [(START + n * 6 * HOUR // count, chance.randrange(1000)) for n in range(count)]
    with Producer(deployment.log, "clicks") as producer:
        for ts, k in events:
            producer.send(json.dumps({"ts": ts, "k": k}).encode())
    return events


def rows_of(archive: Archive) -> Counter[tuple[int, int]]:
    """What a reader finds, and that no hour has rows of another."""
    found: Counter[tuple[int, int]] = Counter()
    for hour in archive.hours("clicks"):
        for entry in archive.entries("clicks", hour):
            table = pq.read_table(io.BytesIO(archive.read(entry.path)))
            assert table.num_rows == entry.rows
            rows = list(zip(table["ts"].cast("int64").to_pylist(), table["k"].to_pylist()))
            assert all(ts // HOUR * HOUR == hour for ts, _ in rows)
            found.update(rows)
    return found


def persistently(call: Any, proxy: Any) -> Any:
    """A call that is made until it is answered, as a scheduler makes it."""
    for _ in range(200):
        try:
            return call()
        except PenstockError as problem:
            assert problem.retriable, problem
    raise AssertionError(f"never answered: {proxy.faults}")


@pytest.mark.parametrize("seed", range(2))
def test_every_event_is_archived_once_however_s3_fails(tmp_path: Path, s3: dict[str, Any], seed: int) -> None:
    with (
        faulty(s3, share=0.25, seed=seed) as (proxy, through),
        Deployment("d", {"local": str(tmp_path), "s3": {**through, "attempts": 1}}) as deployment,
    ):
        deployment.log.create("clicks", 3)
        events: list[tuple[int, int]] = []
        for run in range(4):
            events += produced(deployment, 900, run)
            proxy.down = 10 if run == 1 else 0  # an outage
            LocalRunner(Archived, deployment, prepare(Archived, deployment)).run(until_caught_up=True)
        good = S3Archive(s3)
        assert rows_of(good) == Counter(events)

        # Merging, through the same faults
        before = {hour: len(good.entries("clicks", hour)) for hour in good.hours("clicks")}
        for hour in before:
            persistently(lambda hour=hour: merge_hour(deployment.archive, "clicks", hour), proxy)
        assert rows_of(good) == Counter(events)
        assert sum(len(good.entries("clicks", hour)) for hour in before) <= 3 * len(before) <= sum(before.values())

        # And pruning
        def pruned() -> None:
            rules = Rules(now=deployment.now() + 2 * DAY)
            list(prune(deployment.archive, "clicks", rules, writers_of(deployment), Ledger("clicks", [])))

        persistently(pruned, proxy)
        named = {entry.path for hour in good.hours("clicks") for entry in good.index("clicks", hour)}
        listed = {entry for entry in writers_of(deployment).listed if entry.startswith("clicks/")}
        assert rows_of(good) == Counter(events)
        assert named | listed >= {file.path for file in good.files("clicks")} >= named, "no orphan is left"
        assert proxy.faults["down"] == 10 and len(set(FAULTS) & set(proxy.faults)) >= 3, proxy.faults
        good.close()


@pytest.mark.parametrize("seed", range(2))
def test_the_archive_s_own_retries_hide_single_faults(s3: dict[str, Any], seed: int) -> None:
    with faulty(s3, share=0.1, seed=seed) as (proxy, through):
        archive = S3Archive({**through, "attempts": 8})
        files = {f"ads/{n}": random.Random(n).randbytes(n * 1000) for n in range(40)}
        for path, data in files.items():
            archive.write(path, data)
        assert {path: persistently(lambda path=path: archive.read(path), proxy) for path in files} == files
        assert sum(proxy.faults[fault] for fault in FAULTS) > 4
        archive.close()
