"""Metrics: what Prometheus is told is what happened."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.configuration import mistake

RUN = """
import json, sys, urllib.request
from penstock import *
from penstock.deployment import Deployment
from penstock.log.producer import Producer
from penstock.runner.local import LocalRunner, prepare
folder, port, values = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
events = Schema("events", time="ts", lateness="1h", fields={"ts": Timestamp("s"), "k": Int()})
class Counts(Topology):
    live = KafkaSpout.spec(events)
    rollups = RollupBolt.spec(live, [Rollup("r", of=events, entity="k", measures={"n": Count()}, by=[By(keep={"1m": "9d"})])], flush="10ms")
with Deployment("metered", {"local": folder, "metrics": {"port": port}}) as deployment:
    deployment.log.create("events", 1)
    with Producer(deployment.log, "events") as producer:
        for value in values:
            producer.send(json.dumps(value).encode(), timestamp=1_700_000_000_000_000)
    import penstock.spouts.kafka as spout
    spout.REPORT_EVERY = 0
    LocalRunner(Counts, deployment, prepare(Counts, deployment)).run(until_caught_up=True)
    print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_prometheus_is_told_what_happened(tmp_path: Path, port: int) -> None:
    at = 1_700_000_000
    values: list[object] = [
        {"ts": at, "k": 1},
        {"ts": at - 60, "k": 2},
        {"ts": at, "k": "x"},
        {"ts": at - 7200, "k": 1},
        {"k": 1},
        3,
        {"ts": at, "k": 9.5},
    ]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), str(port), json.dumps(values)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    found = {
        (sample.name, *(sample.labels.get(name, "") for name in ("outcome", "reason"))): sample.value
        for family in text_string_to_metric_families(ended.stdout)
        for sample in family.samples
        if sample.labels.get("bolt") == "counts.rollups" and "le" not in sample.labels
    }
    assert {outcome: value for (name, outcome, _), value in found.items() if name == "penstock_events_total"} == {
        "accepted": 2,
        "late": 1,
        "rejected": 4,
    }
    assert {reason: value for (name, _, reason), value in found.items() if name == "penstock_rejects_total"} == {
        "wrong_type": 2,
        "missing": 1,
        "malformed": 1,
    }
    assert found["penstock_cells_total", "", ""] == 2
    assert found["penstock_watermark_seconds", "", ""] == at
    assert found["penstock_lag_offsets", "", ""] == 0
    assert found["penstock_flush_seconds_count", "", ""] >= 1 and found["penstock_claims_total", "", ""] == 1


def test_a_deployment_names_the_port() -> None:
    assert mistake({"local": "x", "metrics": {}}) is not None and mistake({"local": "x", "metrics": {"port": 9400}}) is None
