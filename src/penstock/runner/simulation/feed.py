"""The simulated world's log: what producers append, and what Kafka does to a topic meanwhile."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from penstock.kernels.encode import encode_list
from penstock.log.memory import MemoryLog
from penstock.model.units import SECOND
from penstock.rollup.control import ShardId
from penstock.runner.simulation.oracle import Item, items, schema

if TYPE_CHECKING:
    from penstock.runner.simulation.world import World

MOST_PARTITIONS = 3


@dataclasses.dataclass
class Partition:
    """What is, or will be, in a partition. cut: whether its end has moved back; nothing is appended any more."""

    items: tuple[Item, ...]
    cut: bool = False


class Feed:
    """The topic, and every one of its incarnations.

    accidents: which of "retention", "more partitions", "created anew", "truncation" may happen in this schedule. incarnation: the current one; "" while
    there is no topic.
    """

    def __init__(self, world: World, count: int) -> None:
        self.world, self.rng, self.log = world, world.rng, MemoryLog()
        self.partitions: dict[tuple[str, int], Partition] = {}
        chances = {"retention": 0.25, "more partitions": 0.2, "created anew": 0.2, "truncation": 0.2}
        self.accidents = {name for name, chance in chances.items() if world.random_faults and self.rng.random() < chance}
        self.incarnation = ""
        self.count = count
        self.create(self.rng.choice((1, 1, 2)) if world.random_faults else 1)

    @property
    def lossy(self) -> bool:
        """Whether what is acked may never have been read."""
        return "retention" in self.accidents

    def create(self, partitions: int) -> None:
        """Create the topic, for the first time or anew."""
        self.log.create(schema.name, partitions)
        self.incarnation = self.log.incarnation(schema.name)
        for number in range(partitions):
            self.fill(number)

    def fill(self, number: int) -> None:
        """Decide what a new partition will hold."""
        self.partitions[self.incarnation, number] = Partition(items(self.rng, self.count or self.rng.randint(15, 40)))

    def of(self, shard: ShardId) -> Partition:
        """The partition of a shard."""
        return self.partitions[shard.incarnation, shard.partition]

    def current(self) -> list[tuple[int, Partition]]:
        """The partitions that the topic has now."""
        return [(number, partition) for (incarnation, number), partition in self.partitions.items() if incarnation == self.incarnation]

    def end(self, number: int, partition: Partition) -> int:
        """The offset that a reader of a partition of the current topic has to get to."""
        return self.log.end(schema.name, number) if partition.cut else len(partition.items)

    def produce(self, count: int = 1) -> None:
        """Producers append batches, or transactions end."""
        for number, partition in self.rng.choices(self.current(), k=count) if self.incarnation else ():
            at, log = self.log.end(schema.name, number), partition.items
            if partition.cut or at == len(log):
                continue
            some = list(itertools.takewhile(lambda item: item.what != "skip", log[at : at + self.rng.choice((1, 2, 4))]))
            if some:
                values, times = [item.value() for item in some], [item.time + SECOND for item in some]
                self.log.append(schema.name, number, [encode_list(values, times, codec=self.rng.choice(("none", "lz4")))])
            else:
                length = len(list(itertools.takewhile(lambda item: item.what == "skip", log[at:])))
                self.log.skip(schema.name, number, self.rng.randint(1, length))

    def accident(self) -> None:
        """One of those that may happen in this schedule, if any may."""
        name = self.rng.choice(sorted(self.accidents)) if self.accidents else ""
        if not self.incarnation:
            self.refill()
        elif name == "retention":
            self.retain()
        elif name == "truncation" and self.rng.random() < 0.5:
            self.truncate()
        elif name == "more partitions" and len(self.current()) < MOST_PARTITIONS and self.rng.random() < 0.3:
            self.log.grow(schema.name, len(self.current()) + 1)
            self.fill(len(self.current()))
            self.produce(self.rng.randint(0, 4))
            self.world.note("partition added")
        elif name == "created anew" and self.rng.random() < 0.4:
            self.log.delete(schema.name)
            self.incarnation = ""
            self.world.note("topic deleted")
            if self.rng.random() < 0.5:
                self.refill()

    def refill(self) -> None:
        """The topic is created anew at once, and somebody plays into it what it shall hold."""
        self.create(self.rng.choice((1, 2)))
        self.produce(self.rng.randint(0, 12))
        self.world.note("topic created anew")

    def retain(self) -> None:
        """Retention takes a little, or all up to somewhere in what a reader has on its way."""
        number, _ = self.rng.choice(self.current())
        before, end = self.log.start(schema.name, number), self.log.end(schema.name, number)
        upto = before + self.rng.randint(1, 6)
        if self.rng.random() < 0.2:
            upto = self.rng.randint(before, end)
        self.world.note("retention took records", self.log.truncate_before(schema.name, number, upto) > before)

    def truncate(self) -> None:
        """The end of a partition moves back, and its producers give up."""
        number, partition = self.rng.choice(self.current())
        start, end = self.log.start(schema.name, number), self.log.end(schema.name, number)
        if not partition.cut and end > start:
            self.log.truncate_after(schema.name, number, self.rng.randrange(start, end))
            partition.cut = True
            self.world.note("log truncated")

    def settle(self) -> None:
        """No more accidents: there is a topic."""
        if not self.incarnation:
            self.create(1)
