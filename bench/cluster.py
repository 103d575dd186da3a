"""A topology on the stack's Storm, as both sides of a benchmark are run: submitted with `penstock submit`, in tables and topics of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import happybase

from penstock.configuration import CONFIG_FILE
from penstock.deployment import Deployment
from penstock.stack.state import toml
from penstock.storm.nimbus import NimbusClient
from penstock.storm.submit import wait_until_gone

from bench.measure import ROOT, BenchError

NAME = "bench"  # of the deployment
POLL = 0.1  # seconds between two looks whether it is done
STANDSTILL = 180.0  # seconds in which nothing becomes durable


class Cluster:
    """A deployment for one run on the servers of another. topic: what the schema `ads` is read from. folder: for its penstock.toml and embedded stores."""

    def __init__(self, settings: dict[str, Any], folder: Path, topic: str) -> None:
        self.prefix = f"bench_{os.getpid()}_{os.urandom(4).hex()}_"
        # The heap is derived: that of the stack is for any topology.
        storm = {key: value for key, value in settings["storm"].items() if key != "worker_heap"}
        self.settings = {
            "local": str(folder),
            "topics": {"ads": topic},
            "kafka": settings["kafka"],
            "hbase": {**settings["hbase"], "prefix": self.prefix},
            "storm": {**storm, "workers": 2, "parallelism": 2},
        }
        self.folder, self.nimbus = folder, settings["storm"]["nimbus"]
        (folder / CONFIG_FILE).write_text(toml(NAME, self.settings))
        self.deployment = Deployment(NAME, self.settings)

    @contextlib.contextmanager
    def running(self, topology: str) -> Iterator[Running]:
        """Submit a topology ("module:Class", or a file) and wait until all of it is up; kill it in the end. Raises BenchError."""
        name = f"{self.prefix}topology"
        command = [sys.executable, "-m", "penstock", "submit", topology, "--on", NAME, "--name", name]
        environment = {**os.environ, "PENSTOCK_CONFIG": str(self.folder / CONFIG_FILE), "NO_COLOR": "1"}
        with NimbusClient(self.nimbus) as client:
            try:
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise BenchError(f"penstock submit ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
                yield Running(client, name)
            finally:
                if client.find(name):
                    client.kill(name, 0)
                    wait_until_gone(client, name)

    def connection(self) -> happybase.Connection:
        """A connection to the HBase, as the baseline's bolts have one."""
        return happybase.Connection(self.settings["hbase"]["host"], self.settings["hbase"]["port"])

    def clear(self) -> None:
        """Remove its tables."""
        self.deployment.close()
        connection = self.connection()
        for table in connection.tables():
            if table.startswith(self.prefix.encode()):
                connection.delete_table(table, disable=True)
        connection.close()


class Running:
    """A topology that is up."""

    def __init__(self, client: NimbusClient, name: str) -> None:
        self.client, self.name = client, name

    def wait(self, up: Callable[[], bool]) -> None:
        """Until it is up. Raises BenchError."""
        until = time.monotonic() + STANDSTILL
        while not up():
            if time.monotonic() > until:
                raise BenchError(f"{self.name} is not up after {STANDSTILL:.0f} s: {self._said()}")
            time.sleep(POLL)

    def pause(self) -> None:
        """Let its spouts be silent."""
        self.client.deactivate(self.name)

    def go(self) -> None:
        """Let its spouts emit."""
        self.client.activate(self.name)

    def until(self, durable: Callable[[], int], events: int) -> None:
        """Wait until so many events are durable. Raises BenchError if nothing happens for long, with what the components said."""
        seen, moved_at = durable(), time.monotonic()
        while seen < events:
            time.sleep(POLL)
            now = durable()
            if now > seen:
                seen, moved_at = now, time.monotonic()
            elif time.monotonic() > moved_at + STANDSTILL:
                raise BenchError(f"{self.name} stands still at {seen:,} of {events:,} events: {self._said()}")

    def _said(self) -> str:
        failures = self.client.details(self.name).failures[:3]
        return "; ".join(f"{one.component}: {one.text[-500:]}" for one in failures) or "its components reported no error"


@contextlib.contextmanager
def cluster(settings: dict[str, Any], folder: Path, topic: str) -> Iterator[Cluster]:
    """A deployment for one run, whose tables are removed in the end."""
    made = Cluster(settings, folder, topic)
    try:
        yield made
    finally:
        made.clear()


def busy_seconds() -> float:
    """Processor time of the whole machine since it was started: all servers, the topology and this process."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, _ = map(int, fields)
    return (user + nice + system + irq + softirq) / float(os.sysconf("SC_CLK_TCK"))


__all__ = ["Cluster", "Running", "busy_seconds", "cluster"]
