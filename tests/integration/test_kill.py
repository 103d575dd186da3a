"""kill -9 at random moments of a run changes nothing: not a cell, not a loaded row.

PENSTOCK_KILLS and PENSTOCK_KILL_EVENTS make it longer: 50 and 1000000 is the full test.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from cells import dump_cells, flushing, progress, warehouse_rows

from penstock.deployment import Deployment
from penstock.log.generate import generate_into
from penstock.rollup.registry import Registry
from penstock.topologies.advertiser_analytics import ads

KILLS = int(os.environ.get("PENSTOCK_KILLS", "8"))
EVENTS = int(os.environ.get("PENSTOCK_KILL_EVENTS", "120000"))
SEED = int(os.environ.get("PENSTOCK_KILL_SEED", "1"))
TOPOLOGY = str(Path(__file__).with_name("impatient.py"))


def penstock(*arguments: str, on: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments, "--on", f"local:{on}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
    return out


def make(folder: Path) -> None:
    with Deployment.named(f"local:{folder}") as deployment:
        deployment.log.create("ads", 4)
        generate_into(deployment.log, ads, EVENTS, SEED)


def started(folder: Path, before: dict[str, str], process: subprocess.Popen[str]) -> None:
    """Wait until the run has claimed a shard: a kill before that kills nothing."""
    deadline = time.monotonic() + 60
    with Deployment.named(f"local:{folder}") as deployment:
        while time.monotonic() < deadline and process.poll() is None:
            if owners(deployment) != before:
                return
            time.sleep(0.002)


def owners(deployment: Deployment) -> dict[str, str]:
    registry = Registry(deployment.table)
    return {shard.row.decode(): c.owner for bolt in registry.bolts() for shard, c in registry.shards(bolt, registry.published(bolt))}


def test_kills_change_nothing(tmp_path: Path) -> None:
    calm, killed, rng = tmp_path / "calm", tmp_path / "killed", random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills, {EVENTS} events")
    make(calm)
    shutil.copytree(calm, killed)  # the same log, its incarnation included
    finish(penstock("run", TOPOLOGY, "--until-caught-up", on=calm))
    kills = in_flush = runs = 0
    while kills < KILLS and runs < 3 * KILLS:
        runs += 1
        with Deployment.named(f"local:{killed}") as deployment:
            before = owners(deployment)
        process = penstock("run", TOPOLOGY, "--until-caught-up", on=killed)
        started(killed, before, process)
        time.sleep(rng.random() * 0.12)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        with Deployment.named(f"local:{killed}") as deployment:
            in_flush += flushing(deployment)
    print(f"{kills} kills, {in_flush} of them with a flush under way")
    assert kills >= KILLS and in_flush >= KILLS * 3 // 10
    finish(penstock("run", TOPOLOGY, "--until-caught-up", on=killed))
    for folder in (calm, killed):
        finish(penstock("export", TOPOLOGY, "--due", "--grace", "0s", on=folder))
    with Deployment.named(f"local:{calm}") as one, Deployment.named(f"local:{killed}") as other:
        assert [counts[0] == counts[1] and counts[2:] for counts in progress(one).values()] == [
            counts[0] == counts[1] and counts[2:] for counts in progress(other).values()
        ]
        assert sum(counts[4] + counts[5] + counts[6] for row, counts in progress(one).items() if ".rollups/" in row) == EVENTS
        assert dump_cells(one) == dump_cells(other)
        for dataset in ("ads", "ads_late"):
            rows = warehouse_rows(one, dataset)
            assert rows == warehouse_rows(other, dataset) and rows
