"""A seeded, single-threaded world that runs the real spouts, bolts, flush, fold and archive commit over stores in memory and a clock of its own.

A schedule is one random interleaving of small atomic steps, with faults at any of them: of the cluster (`cluster`), of the log (`feed`), of calls to
stores (`outside`). Then the faults stop, everything must be done in a bounded number of steps, and tables and archive must hold what a batch
computation over the log gives (`checks`, `oracle`). See DESIGN.md.
"""

from __future__ import annotations

import collections
import itertools
import random

from penstock.archive.memory import MemoryArchive
from penstock.bolts.archive import ArchiveBolt
from penstock.bolts.rollup import RollupBolt
from penstock.model.units import SECOND
from penstock.rollup.control import Control, ShardId
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.runner.simulation.checks import Difference, check_swap, verify
from penstock.runner.simulation.cluster import Cluster, Pair, Parcel
from penstock.runner.simulation.feed import Feed
from penstock.runner.simulation.oracle import LATENESS, rollup, schema
from penstock.runner.simulation.outside import Outside, SimulatedTable

STEP = 50_000  # microseconds that a step takes
BOUND = 40_000  # steps within which all must be done once the faults stop


class World:
    """One schedule.

    seed: repeats it exactly. random_faults: or one fault only, at call number `at`; see `FAULTS`. faults: those that took effect, counted.
    """

    def __init__(self, seed: str, *, random_faults: bool = True, at: int = -1, fault: str = "", count: int = 0) -> None:
        self.seed, self.rng, self.fresh = seed, random.Random(seed), itertools.count(1).__next__
        self.random_faults, self.at, self.fault = random_faults, at, fault
        self.faults: collections.Counter[str] = collections.Counter()
        self.parcels: dict[str, Parcel] = {}
        self.clock, self.calm, self.steps = 1_700_000_000 * SECOND, not random_faults, 0
        self.begun: dict[ShardId, set[int]] = collections.defaultdict(set)  # offsets whose flush has begun
        self.archive, self.table = MemoryArchive(), SimulatedTable(lambda *swap: check_swap(self, *swap))
        self.outside = Outside(self, self.table, at, fault)
        self.feed = Feed(self, count)
        self.clusters = []
        for name, bolt, makes in (
            ("rollups", RollupBolt, RollupBolt.definition_of(schema, [rollup])),
            ("archive", ArchiveBolt, ArchiveBolt.definition_of(schema)),
        ):
            definition = BoltDefinition(f"simulated.{name}", **makes)
            self.submit(definition)
            self.clusters.append(Cluster(self, definition, bolt))

    @property
    def calls(self) -> int:
        """How many outside calls were made."""
        return self.outside.calls

    def note(self, fault: str, took_effect: bool = True) -> None:
        """Count a fault."""
        self.faults[fault] += took_effect

    def submit(self, definition: BoltDefinition) -> None:
        """What comes before the first tuple."""
        if self.feed.incarnation:
            Registry(self.table).prepare(definition, self.feed.log, schema.name)

    def step(self) -> None:
        """One atomic step of somebody."""
        self.steps += 1
        self.clock += STEP
        self.outside.step()
        cluster, pick = self.rng.choice(self.clusters), self.rng.random()
        cluster.upkeep()
        if pick < 0.10:
            self.feed.produce()
        elif pick < 0.25:
            cluster.spout_step()
        elif pick < 0.45:
            cluster.deliver()
        elif pick < 0.46 and self.outside.net:
            self.outside.late()
        elif pick < 0.47:
            cluster.tick()
        else:
            cluster.bolt_step()

    def fault_step(self) -> None:
        """Something breaks, now and then."""
        pick = self.rng.random()
        if pick < 0.026:
            self.rng.choice(self.clusters).fault()
        elif pick < 0.034:
            self.feed.accident()
        elif pick < 0.043:
            self.clock += self.rng.randint(1, 60) * SECOND
            self.note("time passed")
        elif pick < 0.045:
            self.outside.outage()

    def run(self) -> World:
        """The schedule, to its end. Raises Difference."""
        try:
            for _ in range(self.rng.randint(100, self.rng.choice((500, 2500))) if self.random_faults else 0):
                self.fault_step()
                self.step()
            if self.random_faults and self.rng.random() < 0.3:
                self.haunt()
            self.calm = True
            self.feed.settle()
            for again in range(self.rng.randint(1, 2)):
                for cluster in self.clusters:
                    cluster.settle()
                    if again:  # a total crash loses nothing
                        cluster.crash()
                self.finish()
            self.outside.settle()
            verify(self)
        except Exception as problem:
            what = problem if isinstance(problem, Difference) else repr(problem)
            raise Difference(
                f"seed {self.seed!r}{f', {self.fault} call {self.at}' if self.fault else ''}: {what}\n  faults: {dict(self.faults)}"
            ) from problem
        return self

    def haunt(self) -> None:
        """Workers are replaced and then get tuples again, and no restart comes after that to put right what they leave behind."""
        for prepare in (Cluster.replace_some, Cluster.route_to_replaced):
            for cluster in self.clusters:
                prepare(cluster)
            for _ in range(self.rng.randint(50, 250)):
                self.step()

    def finish(self) -> None:
        """Go on until everything is done. Raises Difference if that takes too long."""
        for _ in range(BOUND):
            if self.steps % 20 == 0 and self.finished():
                return
            self.step()
        raise Difference(f"stalled: {[(shard, control) for _, shard, control in self.controls()]}")

    def controls(self) -> list[tuple[Pair, ShardId, Control]]:
        """The control cells as they are."""
        return [
            (cluster.pair, shard, control)
            for cluster in self.clusters
            for shard, control in Registry(self.table).shards(cluster.pair.definition.bolt, cluster.pair.definition.generation)
        ]

    def finished(self) -> bool:
        """Whether everything of the current topic is committed, folded and indexed; of a partition that was cut off, also that it was reported."""
        done = {
            (pair.definition.bolt, shard.partition)
            for pair, shard, control in self.controls()
            if shard.incarnation == self.feed.incarnation and self.done(pair, shard, control)
        }
        return len(done) == len(self.clusters) * len(self.feed.current())

    def finishes(self, shard: ShardId) -> bool:
        """Whether a shard gets to the end of its partition: not if the topic was deleted before, or the end was cut off."""
        return shard.incarnation == self.feed.incarnation and not self.feed.of(shard).cut

    def done(self, pair: Pair, shard: ShardId, control: Control) -> bool:
        """Whether nothing is left to do for a shard."""
        partition = self.feed.of(shard)
        end = self.feed.end(shard.partition, partition)
        if partition.cut and control.done.offset > end:
            return shard.partition in pair.parked
        if partition.cut and control.flushing > end:
            return True  # a flush that was begun waits for records that are no more
        return (
            control.done.offset == end
            and control.flushing <= control.done.offset
            and not control.files
            and (pair.bolt_cls is not RollupBolt or control.folded >= control.done.watermark - LATENESS)
        )
