"""A deployment of the tests' own on the stack's real servers, and what can be done to a Storm cluster that runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator

from penstock.configuration import find_stack
from penstock.deployment import Deployment
from penstock.log.generate import generate_into
from penstock.stack import Stack
from penstock.topologies.advertiser_analytics import ads

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds to catch up


def toml(settings: dict[str, Any], name: str) -> str:
    """A deployment as a table of penstock.toml."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    lines = [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"[{name}.{key}]", *(f"{json.dumps(inner)} = {_inline(content)}" for inner, content in value.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


class Cluster:
    """The deployment `cluster`: a topic, tables and an archive folder of its own on the stack's Kafka, HBase and Storm."""

    def __init__(self, stack: dict[str, Any], folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex[:6]
        found = find_stack()
        assert found is not None
        self.stack = Stack(found.parent)
        self.settings = {
            "local": str(folder / "local"),
            "partitions": 4,
            "topics": {"ads": f"ads-{self.mark}"},
            "kafka": stack["kafka"],
            "hbase": {**stack["hbase"], "prefix": f"t{self.mark}_"},
            "storm": {**stack["storm"], "workers": 2, "parallelism": 2},
        }
        self.configure()

    def configure(self, **storm: Any) -> None:
        """Write the deployment's table, with other settings of Storm."""
        self.settings["storm"] = {**self.settings["storm"], **storm}
        (self.folder / "penstock.toml").write_text(toml(self.settings, "cluster"))

    @property
    def topic(self) -> str:
        """The topic of the ads."""
        return str(self.settings["topics"]["ads"])

    def deployment(self) -> Deployment:
        """Its stores, for this process."""
        return Deployment("cluster", self.settings)

    def embedded(self) -> Deployment:
        """The same log beside stores of one machine."""
        settings = {name: value for name, value in self.settings.items() if name not in ("hbase", "storm")}
        return Deployment("embedded", {**settings, "local": str(self.folder / "embedded")})

    def environment(self) -> dict[str, str]:
        """For commands that say --on cluster."""
        return {**os.environ, "PENSTOCK_CONFIG": str(self.folder / "penstock.toml")}

    def penstock(self, *arguments: str, code: int | None = 0, cwd: Path | None = None, on: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line, with --on cluster."""
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments, *(["--on", "cluster"] if on else [])],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environment(),
            cwd=cwd or self.folder,
        )
        assert "Traceback" not in done.stderr, f"{arguments}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def produce(self, count: int, seed: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Ad events, some of them malformed."""
        with self.deployment() as deployment:
            if self.topic not in deployment.log.topics():
                deployment.log.create(self.topic, 4)
            generate_into(deployment.log, ads, count, seed, topic=self.topic, malformed=0.001, on_progress=on_progress)

    def sparse_submit(self, name: str) -> None:
        """`sparse submit` in the checkout, whose jar lein builds where there is one and `penstock storm jar` does elsewhere."""
        jar = self.folder / "ours.jar"
        how = ["-u"] if shutil.which("lein") else ["-j", str(jar)]
        if how[0] == "-j":
            self.penstock("storm", "jar", str(jar), "--project", str(ROOT), on=False)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sparse")), "submit", "-n", name, "-e", "stack", *how, "-o", "penstock.on=cluster"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**self.environment(), "STREAMPARSE_NIMBUS": self.settings["storm"]["nimbus"], "LEIN_ROOT": "1"},
            cwd=ROOT,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def shards(self) -> list[dict[str, Any]]:
        """What `penstock status` says of every partition; nothing while a server is down."""
        done = self.penstock("status", "--json", code=None)
        return list(json.loads(done.stdout)["shards"]) if done.returncode == 0 else []

    def committed(self) -> int:
        """All offsets that are durable, over bolts and partitions; 0 while nobody can say."""
        return sum(shard["committed"] or 0 for shard in self.shards())

    def wait_until(self, what: str, holds: Callable[[], bool], patience: float = PATIENCE) -> float:
        """Wait for something; how many seconds it took. On the way out it says what Storm says, which is where to look."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > patience:
                stats = self.penstock("storm", "stats", code=None).stdout
                raise AssertionError(f"{what} not within {patience:.0f} s\n{json.dumps(self.shards(), indent=1)}\n{stats}")
            time.sleep(0.5)
        return time.monotonic() - began

    def caught_up(self) -> bool:
        """Whether every bolt has all of the log, durable."""
        shards = self.shards()
        return len(shards) == 8 and all(shard["lag"] == 0 for shard in shards)

    def kill(self, name: str) -> None:
        """End a topology and wait until it is gone."""
        self.penstock("storm", "kill", name, "--yes", "--wait", "1")


def processes(holding: str) -> Iterator[tuple[int, str]]:
    """The processes of this machine whose command line holds a text: pid and command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if holding in line and int(folder.name) != os.getpid():
                yield int(folder.name), line


def workers(topology: str) -> list[int]:
    """The worker JVMs of a topology."""
    return sorted(
        pid for pid, line in processes("org.apache.storm.daemon.worker.Worker") if f" {topology}-" in line and "LogWriter" not in line
    )


def children(parent: int) -> list[int]:
    """The component processes of a worker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = folder.joinpath("stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return sorted(found)


def send(pids: list[int], which: signal.Signals) -> None:
    """A signal to processes; those that are gone need none."""
    for pid in pids:
        try:
            os.kill(pid, which)
        except ProcessLookupError:
            continue
