"""Kafka, Storm and HBase for real: every cell equals what the log comes to and what the embedded run makes of it, undisturbed and through kills.

PENSTOCK_CLUSTER_EVENTS, PENSTOCK_CLUSTER_KILL_EVENTS: how many; 2,000,000 is the full test of either. PENSTOCK_CLUSTER_SEED: of the events and of the faults.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import duckdb
import pytest
from ad_oracle import check_cells
from cells import dump_cells
from cluster import Cluster, children, send, workers
from exports import check_loaded

from penstock.errors import UnavailableError
from penstock.runner.local import LocalRunner, prepare
from penstock.topologies.advertiser_analytics import AdvertiserAnalytics

EVENTS = int(os.environ.get("PENSTOCK_CLUSTER_EVENTS", "2000000"))
KILLED_EVENTS = int(os.environ.get("PENSTOCK_CLUSTER_KILL_EVENTS", "300000"))
WAREHOUSE_EVENTS = int(os.environ.get("PENSTOCK_CLUSTER_WAREHOUSE_EVENTS", "200000"))
SEED = int(os.environ.get("PENSTOCK_CLUSTER_SEED", "1"))
NAME = "advertiser_analytics"
pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(stack: dict[str, Any], tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(stack, tmp_path)
    yield found
    found.penstock("storm", "kill", NAME, "--yes", "--wait", "0", code=None)


def check_all(cluster: Cluster) -> None:
    """Cells equal to the log's and to an embedded run's; every accepted record archived once."""
    with cluster.deployment() as deployment:
        print(check_cells(deployment, SEED))
        theirs = dump_cells(deployment)
        with cluster.embedded() as embedded:
            LocalRunner(AdvertiserAnalytics, embedded, prepare(AdvertiserAnalytics, embedded)).run(until_caught_up=True)
            assert theirs == dump_cells(embedded)
        archive, counts = deployment.archive, {}
        for dataset in ("ads", "ads_late", "ads_rejects"):
            paths = [archive.location(entry.path) for hour in archive.hours(dataset) for entry in archive.entries(dataset, hour)]
            counts[dataset] = duckdb.sql(
                f"SELECT count(*), count(DISTINCT (partition_id, log_offset)) FROM read_parquet({paths}, union_by_name = true)"
            ).fetchall()[0]
        for dataset, (rows, different) in counts.items():
            assert rows == different, dataset
        assert sum(rows for rows, _ in counts.values()) == sum(
            deployment.log.end(cluster.topic, partition) - deployment.log.start(cluster.topic, partition) for partition in range(4)
        )


@pytest.mark.parametrize("way", ["penstock", "sparse"])
def test_every_cell_equals_the_logs_and_the_embedded_runs(cluster: Cluster, way: str) -> None:
    cluster.produce(EVENTS, SEED)
    began = time.monotonic()
    if way == "penstock":
        cluster.penstock("submit", NAME)
    else:
        cluster.sparse_submit(NAME)
    print(f"submitted in {time.monotonic() - began:.0f} s")
    print(f"caught up after {cluster.wait_until('caught up', cluster.caught_up):.0f} s more")
    cluster.kill(NAME)
    check_all(cluster)


class Feed(threading.Thread):
    """Produces events for as long as faults happen; an outage of Kafka holds it up."""

    def __init__(self, cluster: Cluster, events: int) -> None:
        super().__init__(name="feed", daemon=True)
        self.cluster, self.events, self.enough = cluster, events, threading.Event()
        self.sent, self.problem = 0, None  # type: int, BaseException | None

    def run(self) -> None:
        try:
            while self.sent < self.events or not self.enough.is_set():
                count = 20_000 if self.sent < self.events else 2_000
                try:
                    self.cluster.produce(count, SEED + self.sent)
                except UnavailableError:
                    continue  # what of it is in the log counts; the oracle reads the log
                self.sent += count
                self.enough.wait(1)
        except BaseException as problem:
            self.problem = problem


def test_kills_on_a_cluster_change_nothing(cluster: Cluster) -> None:
    print(f"seed {SEED}, {KILLED_EVENTS} events")
    rng = random.Random(SEED)
    cluster.produce(20_000, SEED + 1_000_000)
    cluster.penstock("submit", NAME)
    feed = Feed(cluster, KILLED_EVENTS)
    feed.start()

    def going_on(what: str, patience: float = 240) -> None:
        """Wait until both bolts commit again."""
        before = cluster.shards()
        sums = {bolt: sum(shard["committed"] for shard in before if shard["bolt"].endswith(bolt)) for bolt in ("rollups", "archive")}

        def moved() -> bool:
            shards = cluster.shards()
            return bool(shards) and all(
                sum(shard["committed"] for shard in shards if shard["bolt"].endswith(bolt)) > committed for bolt, committed in sums.items()
            )

        print(f"{what}: commits go on after {cluster.wait_until(f'after {what}: commits', moved, patience):.0f} s", flush=True)
        assert feed.problem is None, feed.problem
        time.sleep(rng.random() * 3)

    def server(name: str) -> None:
        send([cluster.stack.processes()[name]], signal.SIGKILL)
        time.sleep(rng.random() * 5)
        cluster.stack.start(name)

    going_on("the start")
    for _ in range(2):
        send([rng.choice(children(rng.choice(workers(NAME))))], signal.SIGKILL)
        going_on("kill -9 of a component")
    send([rng.choice(workers(NAME))], signal.SIGKILL)
    going_on("kill -9 of a worker")
    server("supervisor")
    going_on("kill -9 of the supervisor")
    for name in ("hbase-thrift", "kafka", "hbase"):
        server(name)
        going_on(f"kill -9 of {name}")
    victim = rng.choice(workers(NAME))
    stopped = [victim, *children(victim)]
    send(stopped, signal.SIGSTOP)
    cluster.wait_until("another worker in the place of one that was stopped", lambda: len(set(workers(NAME)) - {victim}) == 2, 240)
    going_on("SIGSTOP of a worker")
    send(stopped, signal.SIGCONT)
    going_on("SIGCONT of what was left of it")
    cluster.configure(parallelism=4)
    cluster.penstock("submit", NAME, "--replace")
    going_on("a redeploy with another parallelism")
    feed.enough.set()
    feed.join(600)
    assert not feed.is_alive() and feed.problem is None, feed.problem
    cluster.wait_until("caught up", cluster.caught_up)
    cluster.kill(NAME)
    check_all(cluster)


def test_what_storm_archived_on_s3_is_in_redshift_once(cluster: Cluster, s3: dict[str, Any], redshift: dict[str, Any]) -> None:
    """Kafka to S3 through ArchiveBolt on Storm, hour by hour into the warehouse by `penstock export --follow` while it runs."""
    for name in ("access_key", "secret_key"):  # a worker does not inherit this process's environment
        (cluster.folder / name).write_text("testing\n")
        s3[name] = {"file": str(cluster.folder / name)}
    cluster.settings.update(s3=s3, redshift=redshift)
    cluster.configure()
    cluster.produce(WAREHOUSE_EVENTS, SEED)
    cluster.penstock("submit", NAME)
    export = ("-m", "penstock", "export", NAME, "--on", "cluster", "--grace", "0s", "--reload", "0s")
    said = cluster.folder / "export.err"
    with said.open("w") as errors:
        follower = subprocess.Popen(
            [sys.executable, *export, "--follow"], env=cluster.environment(), cwd=cluster.folder, stdout=errors, stderr=errors
        )
        try:
            cluster.wait_until("caught up", cluster.caught_up)

            def all_loaded() -> bool:
                assert follower.poll() is None, said.read_text()
                done = cluster.penstock("status", "--json", code=None)
                datasets = json.loads(done.stdout)["datasets"] if done.returncode == 0 else []
                return bool(datasets) and all(
                    one["hours_archived"] == one["hours_loaded"] > 0 and not one["hours_due"] + one["hours_changed"] for one in datasets
                )

            cluster.wait_until("all hours loaded", all_loaded)
        finally:
            follower.send_signal(signal.SIGINT)
            follower.wait(60)
    cluster.kill(NAME)
    with cluster.deployment() as deployment:
        counts = check_loaded(deployment)
        print(counts)
        assert counts["ads"] > 0
    again = [
        json.loads(line)
        for line in cluster.penstock(*export[2:4], "--due", "--grace", "0s", "--reload", "0s", "--json").stdout.splitlines()
    ]
    assert [one for one in again if one.get("outcome") == "loaded"] == []


def test_a_new_project_runs_on_workers_that_have_nothing_but_python(cluster: Cluster) -> None:
    """`penstock new`, with its own bolt and derived column, as its user would submit it; its environment travels in the jar."""
    bare, project = cluster.folder / "bare", cluster.folder / "shop"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    cluster.settings["topics"]["shop"] = f"shop-{cluster.mark}"
    cluster.configure(python=f"packed:{bare / 'bin' / 'python3'}")
    cluster.penstock("new", "shop", on=False)
    cluster.penstock("produce", "topologies/shop.py", "sample.jsonl", cwd=project)
    events = [json.loads(line) for line in (project / "sample.jsonl").open()]
    try:
        cluster.penstock("submit", "topologies/shop.py", cwd=project)

        def caught_up() -> bool:
            shards = cluster.shards()
            return len(shards) == 12 and all(shard["lag"] == 0 for shard in shards)

        cluster.wait_until("caught up", caught_up, 240)
    finally:
        cluster.penstock("storm", "kill", "shop", "--yes", "--wait", "0", code=None)
    span = ("--from", "2026-03-02", "--to", "2026-03-03", "--format", "json")
    for page, visits in collections.Counter(event["page"] for event in events).items():
        [row] = json.loads(cluster.penstock("query", "shop_visits", "--entity", page, *span).stdout)["rows"]
        assert row["visits"] == visits, page
    [row] = json.loads(cluster.penstock("query", "shop_sections", "--entity", "shop", *span).stdout)["rows"]
    assert row["visits"] == sum(event["page"].startswith("/shop") for event in events)
    failed: collections.Counter[str] = collections.Counter()
    for file in (cluster.folder / "local" / "alerts").glob("*.json"):
        failed.update(json.loads(file.read_text())["failed"])
    assert failed == collections.Counter(event["page"] for event in events if event["status"] >= 500)
