"""What the export tests share: `penstock` as a user runs it, on each kind of stores, and what the log says the warehouse must hold."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ad_oracle import FIELDS, FITS

from penstock.demo.reconcile import judged, raw_records
from penstock.deployment import Deployment
from penstock.model.units import DAY

TOPOLOGY = str(Path(__file__).with_name("impatient.py"))
WHEN = ("--grace", "0s", "--reload", "0s")  # what lets a test not wait
DATASETS = {"ads": "accepted", "ads_late": "late"}
_COLUMNS = "ts, event_id, advertiser, user, type, campaign, country, device, cost, partition_id, log_offset".split(", ")
_EXPECTED = """
SELECT make_timestamp(event_time) AS ts, event_id, advertiser_id, user_id, type, campaign_id, coalesce(country, '??'), coalesce(device, '??'), cost, part, pos
FROM events WHERE verdict = ?"""

# Runs `penstock` in a process that kills itself when a step of a load begins for the n-th time, as by a power cut.
DIES = """
import os, signal, sys
{imports}
step, left = sys.argv[1], [int(sys.argv[2])]
def dies(self, name):
    if name == step:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
Store.step = dies
from penstock.cli import execute
sys.exit(execute(sys.argv[3:]))
"""
STORES = {
    "embedded": "from penstock.warehouse.duckdb import DuckDbWarehouse as Store",
    "s3-redshift": "from penstock.warehouse.redshift.store import RedshiftWarehouse as Store",
}


@dataclasses.dataclass
class World:
    """A deployment `test` in a folder of its own. kind: of its archive and warehouse."""

    folder: Path
    kind: str

    def deployment(self) -> Deployment:
        """Its stores."""
        return Deployment.named("test", self.folder / "penstock.toml")

    def start(self, *arguments: str, script: str | None = None) -> subprocess.Popen[str]:
        """`penstock` with arguments, in the background; its output goes to files, so that it never waits for a reader."""
        command = [sys.executable, *(["-c", script] if script else ["-m", "penstock"]), *arguments]
        environment = {**os.environ, "PENSTOCK_CONFIG": str(self.folder / "penstock.toml"), "PENSTOCK_ON": "test"}
        number = len(list(self.folder.glob("*.out")))
        with (self.folder / f"{number}.out").open("w") as out, (self.folder / f"{number}.err").open("w") as err:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=out, stderr=err)
        process.files = (self.folder / f"{number}.out", self.folder / f"{number}.err")  # type: ignore[attr-defined]
        return process

    def __call__(self, *arguments: str, code: int | None = 0, stdin: str = "", script: str | None = None) -> str:
        """`penstock` with arguments: its standard output."""
        process = self.start(*arguments, script=script)
        process.communicate(stdin, timeout=240)
        assert code is None or process.returncode == code, f"exit {process.returncode}\n{said(process)}\n{said(process, 1)}"
        self.err = said(process, 1)
        return said(process)

    def json(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """What `penstock export TOPOLOGY ... --json` says."""
        return [json.loads(line) for line in self("export", TOPOLOGY, *arguments, "--json", code=code).splitlines()]

    def status(self) -> dict[str, Any]:
        """What `penstock status --json` says."""
        return json.loads(self("status", TOPOLOGY, "--json"))  # type: ignore[no-any-return]

    def produce(self, events: int, seed: int = 1) -> None:
        """Generated events into the log."""
        self("produce", TOPOLOGY, "--generate", str(events), "--seed", str(seed), "--partitions", "4" if self.kind == "embedded" else "2")

    def fill(self, events: int, seed: int = 1) -> None:
        """Generated events in the log, rolled up and archived."""
        self.produce(events, seed)
        self("run", TOPOLOGY, "--until-caught-up")

    def dying(self, step: str, times: int, *arguments: str) -> int:
        """Run an export that is killed at a step of a load. Its exit code."""
        process = self.start(step, str(times), "export", TOPOLOGY, *arguments, script=DIES.format(imports=STORES[self.kind]))
        process.communicate(timeout=240)
        return process.returncode

    def check(self) -> dict[str, int]:
        """See `check_loaded`."""
        with self.deployment() as deployment:
            return check_loaded(deployment)

    def check_nothing_left(self) -> None:
        """No table of a load that ended, no file beside those that the index names."""
        with self.deployment() as deployment:
            schema = "main" if self.kind == "embedded" else "public"
            tables = deployment.warehouse.query(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'")
            names = set(tables.column(0).to_pylist())
            assert {name for name in names if not name.startswith("penstock_")} == {"ads", "ads_late", "ads_rejects"}
            assert names >= {"penstock_ledger"} and not [name for name in names if "stage" in name]
            assert [file.path for file in deployment.archive.files("_manifests")] == []


def check_loaded(deployment: Deployment) -> dict[str, int]:
    """Compare all rows of the warehouse, as a multiset, with the events in the log as DuckDB reads their JSON. How many there are."""
    found = {}
    with judged(raw_records(deployment, deployment.topic("ads")), FIELDS, FITS, "ts * 1000", DAY) as events:
        for dataset, verdict in DATASETS.items():
            expected = Counter(events.execute(_EXPECTED, [verdict]).fetchall())
            names = ", ".join(f'"{name}"' for name in _COLUMNS)
            ours = Counter(tuple(row.values()) for row in deployment.warehouse.query(f"SELECT {names} FROM {dataset}").to_pylist())
            missing, surplus = expected - ours, ours - expected
            assert not missing and not surplus, (
                f"{dataset}: {len(missing)} missing, {len(surplus)} too many, {list((missing or surplus).items())[:2]}"
            )
            found[dataset] = expected.total()
    return found


def said(process: subprocess.Popen[str], which: int = 0) -> str:
    """What a process has written by now: to standard output, or (1) to standard error."""
    return process.files[which].read_text()  # type: ignore[attr-defined, no-any-return]


def until(what: Callable[[], Any], *processes: subprocess.Popen[str], seconds: float = 240) -> Any:
    """Wait until something holds, and give it back; the processes are to run meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        for process in processes:
            assert process.poll() is None, f"exit {process.returncode}\n{said(process)}\n{said(process, 1)}"
        assert time.monotonic() < deadline, "\n".join(said(process, 1) for process in processes)
        time.sleep(0.3)
    return found


@contextlib.contextmanager
def running(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Processes that are killed at the end if they still run."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and what is to come of it."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130, f"exit {process.returncode}\n{said(process)}\n{said(process, 1)}"
    assert "Traceback" not in said(process, 1)


def toml(name: str, table: dict[str, Any]) -> str:
    """A table of settings."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(inner)}" for key, inner in value.items()) + "}"
        return json.dumps(value)

    return f"[{name}]\n" + "".join(f"{key} = {text(value)}\n" for key, value in table.items())
