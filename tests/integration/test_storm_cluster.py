"""A topology on a real Storm cluster through its whole life, by the command line: submitted, looked at, held, replaced, killed.

Its stores are the embedded ones, on the same machine as the cluster, so that Storm alone is what is tested here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from cells import dump_cells

from penstock.deployment import Deployment
from penstock.rollup.registry import Registry
from penstock.storm.nimbus import NimbusClient, NotRunningError

pytestmark = pytest.mark.servers
SECONDS = 180  # in which a cluster on a busy machine does anything

TOPOLOGY = '''
from penstock import *

class Sums(BatchBolt):
    """A bolt of one's own: a file a flush, named by what it covers, so that one that is repeated writes the same again."""
    columns = ("k",)

    def start(self, context):
        self.sums = getattr(self, "sums", {{}})
        self.sums[context.partition] = 0

    def process(self, batch, context):
        self.sums[context.partition] += sum(batch.column("k").to_pylist())

    def flush(self, context):
        path = self.deployment.directory / "sums" / f"{{context.partition}}-{{context.first_offset}}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(self.sums[context.partition]))
        self.sums[context.partition] = 0

events = Schema("events", time="ts", fields={{"ts": Timestamp("ms"), "k": Int(), "kind": String(default="?")}})

class {name}(Topology):
    live = KafkaSpout.spec(events)
    rollups = RollupBolt.spec(live, [
        Rollup("per_key", of=events, entity="k", measures={{"n": Count(), "total": Sum("k")}}, by=[By({by}keep={{"1h": "900d"}})])
    ], flush="500ms")
    seen = KafkaSpout.spec(events)
    own = Sums.spec(seen, flush="500ms")
'''


class World:
    """A project in a folder, its deployment on the cluster, and the command line."""

    def __init__(self, folder: Path, nimbus: str) -> None:
        self.folder, self.nimbus = folder, nimbus
        self.name = f"test{uuid.uuid4().hex[:8]}"
        (folder / "topologies").mkdir()
        self.write(parallelism=1)
        self.declare()
        self.sent = 0

    def write(self, **storm: Any) -> None:
        """The deployment, with other settings of its [storm] table."""
        rows = {"nimbus": self.nimbus, "workers": 1, **storm}
        text = "".join(f"{key} = {toml(value)}\n" for key, value in rows.items())
        (self.folder / "penstock.toml").write_text(f'[cluster]\nlocal = "data"\npartitions = 4\n[cluster.storm]\n{text}')

    def declare(self, by: str = "") -> None:
        """The topology, with another breakdown."""
        name = self.name.capitalize()
        (self.folder / "topologies" / f"{self.name}.py").write_text(TOPOLOGY.format(name=name, by=f'"{by}", ' if by else ""))

    def run(self, *words: str, code: int = 0) -> str:
        """A command; what it prints. Its progress is shown when it ends otherwise than it should."""
        ended = subprocess.run(
            [sys.executable, "-m", "penstock", *words, "--on", "cluster"], cwd=self.folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert ended.returncode == code, f"{words}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    def submit(self, *words: str, code: int = 0) -> str:
        return self.run("submit", f"topologies/{self.name}.py", *words, code=code)

    def deployment(self) -> Deployment:
        return Deployment.named("cluster", self.folder / "penstock.toml")

    def produce(self, count: int) -> None:
        """Events k = 0, 1, 2 ..., by partition in turn."""
        lines = [
            json.dumps({"ts": 1_700_000_000_000 + number, "k": number % 100, "kind": "ab"[number % 2]})
            for number in range(self.sent, self.sent + count)
        ]
        self.sent += count
        (self.folder / "events.jsonl").write_text("\n".join(lines) + "\n")
        self.run("produce", f"topologies/{self.name}.py", "events.jsonl")

    def committed(self, bolt: str, generation: str | None = None) -> int:
        """How many offsets a bolt has made durable, over all partitions."""
        with self.deployment() as deployment:
            registry = Registry(deployment.table)
            wanted = generation or registry.published(f"{self.name}.{bolt}")
            return sum(control.done.accepted for _, control in registry.shards(f"{self.name}.{bolt}", wanted))


def toml(value: Any) -> str:
    """A value as TOML has it."""
    return "{" + ", ".join(f"{key} = {one}" for key, one in value.items()) + "}" if isinstance(value, dict) else json.dumps(value)


def wait_for(what: Callable[[], Any], why: str) -> None:
    """Until it is true."""
    until = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < until, why
        time.sleep(0.5)


@pytest.fixture
def world(stack: dict[str, Any], tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, stack["storm"]["nimbus"])
    yield made
    with NimbusClient(made.nimbus) as client:
        with contextlib.suppress(NotRunningError):
            client.kill(made.name, 0)
        wait_for(lambda: client.find(made.name) is None, "it does not end")


def assert_exact(world: World) -> None:
    """Every cell is that of an embedded run over a copy of the log; and the bolt of one's own has seen each event once."""
    embedded = world.folder / "embedded"
    shutil.rmtree(embedded, ignore_errors=True)
    shutil.copytree(world.folder / "data" / "log", embedded / "log")
    subprocess.run(
        [sys.executable, "-m", "penstock", "run", f"topologies/{world.name}.py", "--until-caught-up", "--on", f"local:{embedded}"],
        cwd=world.folder,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    with world.deployment() as ours, Deployment.named(f"local:{embedded}") as theirs:
        assert dump_cells(theirs) and dump_cells(ours) == dump_cells(theirs)
    assert sum(int(path.read_text()) for path in (world.folder / "data" / "sums").iterdir()) == sum(n % 100 for n in range(world.sent))


def test_the_whole_life_of_a_topology(world: World) -> None:
    world.produce(20_000)
    assert "runs" in world.submit("--dry-run")

    world.submit()
    wait_for(lambda: world.committed("rollups") == world.committed("own") == world.sent, "it does not catch up")
    assert_exact(world)
    assert "--replace" in world.submit(code=2)

    listed = json.loads(world.run("storm", "list", "--json"))
    [mine] = [one for one in listed["topologies"] if one["name"] == world.name]
    assert mine["status"] == "ACTIVE" and listed["version"].startswith("2.")
    stats = json.loads(world.run("storm", "stats", world.name, "--json"))
    assert {one["component"] for one in stats["executors"]} >= {"live", "rollups", "seen", "own"}
    assert stats["failures"] == []
    assert "rollups" in world.run("storm", "stats", world.name)
    assert "Prepared bolt rollups" in world.run("storm", "logs", world.name, "--component", "rollups", "--lines", "1000")
    assert "it runs live, own, rollups, seen" in world.run("storm", "logs", world.name, "--component", "nope", code=2)

    world.run("storm", "deactivate", world.name)
    assert world.name in world.run("storm", "list") and "INACTIVE" in world.run("storm", "list")
    time.sleep(12)  # workers look every ten seconds whether they are active
    before = world.committed("rollups")
    world.produce(10_000)
    time.sleep(3)
    assert world.committed("rollups") == before
    world.run("storm", "activate", world.name)
    wait_for(lambda: world.committed("rollups") == world.sent, "it does not go on")

    # Another parallelism, and events while it is replaced.
    world.write(workers=2, parallelism={"live": 2, "rollups": 3})
    world.produce(10_000)
    world.submit("--replace")
    world.produce(10_000)
    wait_for(lambda: world.committed("rollups") == world.committed("own") == world.sent, "it does not catch up after it was replaced")
    assert_exact(world)

    assert "interrupted" in world.run("storm", "kill", world.name, code=130)  # nobody answers the question
    assert "is gone" in world.run("storm", "kill", world.name, "--wait", "0", "--yes")
    assert "no topology" in world.run("storm", "stats", world.name, code=2)


def test_a_generation_that_is_served_goes_on_counting_beside_a_new_one(world: World) -> None:
    world.produce(10_000)
    world.submit()
    wait_for(lambda: world.committed("rollups") == world.sent, "it does not catch up")
    with world.deployment() as deployment:
        old = Registry(deployment.table).published(f"{world.name}.rollups")

    world.declare(by="kind")
    assert "--from" in world.submit("--replace", code=2)
    with NimbusClient(world.nimbus) as client:
        assert client.running(world.name).status == "ACTIVE"  # what is refused is not killed either
    world.submit("--replace", "--from", "earliest")
    world.produce(10_000)
    with world.deployment() as deployment:
        [new] = set(Registry(deployment.table).generations(f"{world.name}.rollups")) - {old}
    wait_for(lambda: world.committed("rollups", old) == world.committed("rollups", new) == world.sent, "both do not count")
    stats = json.loads(world.run("storm", "stats", world.name, "--json"))
    assert {f"rollups-{old[:6]}", f"live-{old[:6]}"} <= {one["component"] for one in stats["executors"]}


def test_a_component_that_cannot_start_is_told_of(world: World) -> None:
    path = world.folder / "topologies" / f"{world.name}.py"
    path.write_text(
        path.read_text().replace(
            "def start(self, context):", 'def open(self):\n        raise RuntimeError("no oven")\n\n    def start(self, context):'
        )
    )
    world.produce(100)
    said = world.submit("--timeout", "60", code=1)
    assert "is not up after 60 s" in said and "no oven" in said
    assert "no oven" in world.run("storm", "stats", world.name, "--errors")


def test_what_the_cluster_has_no_room_for_is_refused(world: World) -> None:
    world.write(workers=500)
    assert "wants 500 workers" in world.submit(code=2)
    with NimbusClient(world.nimbus) as client:
        assert client.find(world.name) is None
