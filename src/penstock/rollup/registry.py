"""What runs and what is served: bolts' definitions, their generations, which one is published, and their shards.

Rows of the control table beside the control cells: `generation/<bolt>/<generation>` holds the definition as pure data,
`published/<bolt>` the generation that readers are served, `provider/<rollup|dataset>/<name>` the bolt that makes it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any, Callable

from penstock.errors import ConfigurationError, NotFoundError, UsageError
from penstock.log import Log
from penstock.model import Rollup
from penstock.model.units import instant
from penstock.rollup.control import CONTROL_COLUMN, CONTROL_TABLE, Control, ShardId
from penstock.rollup.fold import INDEX_SUFFIX, index_table
from penstock.table import Table, prefix_end


@dataclasses.dataclass(frozen=True)
class BoltDefinition:
    """A bolt as pure data: all that its bytes depend on, and what it makes."""

    bolt: str  # "<topology>.<component>"
    kind: str  # "rollup", "archive", or the import path of a bolt of the user's own
    generation: str
    schema: dict[str, Any]
    rollups: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The definition as pure data."""
        return {**dataclasses.asdict(self), "rollups": list(self.rollups)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BoltDefinition:
        """The definition of its pure-data form."""
        return cls(data["bolt"], data["kind"], data["generation"], data["schema"], tuple(data["rollups"]))

    @functools.cached_property
    def digest(self) -> str:
        """Changes with the definition."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def makes(self) -> list[str]:
        """What readers ask for by name: "rollup/by_advertiser", "dataset/ads"."""
        if self.kind == "archive":
            return [f"dataset/{self.schema['name']}"]
        return [f"rollup/{rollup['name']}" for rollup in self.rollups]

    def rollup(self, name: str) -> Rollup:
        """One of its roll-ups."""
        return next(Rollup.from_json(data) for data in self.rollups if data["name"] == name)


class Registry:
    """Reads and writes what is registered in a table store."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def prepare(self, definition: BoltDefinition, log: Log, topic: str, start: str | None = None) -> list[ShardId]:
        """Make all that a bolt needs before its first tuple: tables, registration, and the control cell of every partition. Idempotent.

        start: where a generation begins: "earliest", "latest" or a time; needed for one that differs from what is served. Raises UsageError.
        """
        self.table.create(CONTROL_TABLE)
        known = self.generations(definition.bolt)
        if definition.generation not in known:
            if known and start is None:
                raise UsageError(
                    f"{definition.bolt} has changed: generation {definition.generation} is new, and {self.published(definition.bolt)} is served",
                    hint="say where the new one begins: --from earliest, latest or a time; then `penstock publish` when it has caught up",
                )
        self._claim_names(definition)
        for name, ttl in self._tables(definition, known).items():
            self.table.create(name, ttl=ttl, hashed=not name.endswith(INDEX_SUFFIX))
        incarnation = log.incarnation(topic)
        shards = [ShardId(definition.bolt, definition.generation, topic, incarnation, p) for p in range(log.partitions(topic))]
        # Only the first partitions begin where the user says.
        first_time = definition.generation not in known

        def begin(shard: ShardId) -> int:
            return resolve_start(log, topic, shard.partition, start or "earliest") if first_time else 0

        for shard in shards:
            self._begin(shard, begin)
        self._register(definition)
        self._set_once(f"published/{definition.bolt}", {"generation": definition.generation})
        return shards

    def adopt(self, shard: ShardId) -> None:
        """Make the control cell of a partition, or a topic, that appeared after its bolt was started: it begins at offset 0, and what retention took
        before anybody looked counts as lost.

        Raises NotFoundError for a generation that was never started.
        """
        if self._get(f"generation/{shard.bolt}/{shard.generation}") is None:
            raise NotFoundError(
                f"shard {shard.row.decode()} has no control cell, and its bolt was never started",
                hint="start the topology with `penstock run` or `penstock submit`",
            )
        self._begin(shard, lambda _: 0)

    def _begin(self, shard: ShardId, start: Callable[[ShardId], int]) -> None:
        if self.table.get(CONTROL_TABLE, [(shard.row, CONTROL_COLUMN)])[0] is None:
            self.table.compare_and_set(CONTROL_TABLE, shard.row, CONTROL_COLUMN, None, Control.initial(start(shard)).encode())

    def _tables(self, definition: BoltDefinition, known: list[str]) -> dict[str, int]:
        """The tables of a definition's roll-ups, and how long their cells must live: as long as the generation needs that keeps them longest."""
        wanted: dict[str, int] = {}
        others = [self.definition(definition.bolt, generation) for generation in known if generation != definition.generation]
        for one in (definition, *others):
            for rollup in map(Rollup.from_json, one.rollups):
                ttls = dict(rollup.tables())
                for name, ttl in {**ttls, index_table(rollup): max(ttls.values())}.items():
                    if one is definition or name in wanted:
                        wanted[name] = max(ttl, wanted.get(name, 0))
        return wanted

    def _register(self, definition: BoltDefinition) -> None:
        """Record a definition. What changes without a new generation (how long cells are kept, ratios) is what readers go by from now on."""
        row, data = (
            f"generation/{definition.bolt}/{definition.generation}".encode(),
            json.dumps(definition.to_json(), sort_keys=True).encode(),
        )
        found = self.table.get(CONTROL_TABLE, [(row, CONTROL_COLUMN)])[0]
        if found != data:
            self.table.compare_and_set(CONTROL_TABLE, row, CONTROL_COLUMN, found, data)

    def _claim_names(self, definition: BoltDefinition) -> None:
        mine = {"bolt": definition.bolt}
        for claim in (self._get, lambda row: self._set_once(row, mine)):  # a bolt that is refused takes no name
            for name in definition.makes:
                found = claim(f"provider/{name}") or mine
                if found != mine:
                    raise ConfigurationError(
                        f"{name.replace('/', ' ')} is made by {found['bolt']} already",
                        hint=f"give the one of {definition.bolt} another name, or use another deployment",
                    )

    def _set_once(self, row: str, value: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True).encode()
        self.table.compare_and_set(CONTROL_TABLE, row.encode(), CONTROL_COLUMN, None, data)
        return self._get(row) or value

    def _get(self, row: str) -> dict[str, Any] | None:
        found = self.table.get(CONTROL_TABLE, [(row.encode(), CONTROL_COLUMN)])[0]
        return None if found is None else json.loads(found)

    def _names(self, prefix: str) -> list[str]:
        if CONTROL_TABLE not in self.table.tables():
            return []
        return [row.decode()[len(prefix) :] for row, _ in self.table.scan(CONTROL_TABLE, prefix.encode(), prefix_end(prefix.encode()))]

    def generations(self, bolt: str) -> list[str]:
        """The generations of a bolt that were ever started."""
        return self._names(f"generation/{bolt}/")

    def bolts(self) -> list[str]:
        """All bolts that were ever started."""
        return self._names("published/")

    def published(self, bolt: str) -> str:
        """The generation of a bolt that readers are served. Raises NotFoundError."""
        found = self._get(f"published/{bolt}")
        if found is None:
            raise NotFoundError(f"bolt {bolt} was never started here", hint=f"there are {', '.join(self.bolts()) or 'none'}")
        return str(found["generation"])

    def publish(self, bolt: str, generation: str) -> None:
        """Serve another generation from now on. Raises NotFoundError for one that was never started."""
        if generation not in self.generations(bolt):
            raise NotFoundError(f"{bolt} has no generation {generation}", hint=f"it has {', '.join(self.generations(bolt)) or 'none'}")
        row = f"published/{bolt}".encode()
        old = self.table.get(CONTROL_TABLE, [(row, CONTROL_COLUMN)])[0]
        if not self.table.compare_and_set(CONTROL_TABLE, row, CONTROL_COLUMN, old, json.dumps({"generation": generation}).encode()):
            raise UsageError(
                f"another generation of {bolt} was published at the same moment",
                hint="look with `penstock status`, and publish again if that was not meant",
            )

    def definition(self, bolt: str, generation: str) -> BoltDefinition:
        """The definition of a generation. Raises NotFoundError."""
        found = self._get(f"generation/{bolt}/{generation}")
        if found is None:
            raise NotFoundError(f"{bolt} has no generation {generation}", hint=f"it has {', '.join(self.generations(bolt)) or 'none'}")
        return BoltDefinition.from_json(found)

    def names(self, what: str) -> list[str]:
        """All roll-ups ("rollup") or datasets ("dataset") that some published generation makes."""
        made = {one for bolt in self.bolts() for one in self.definition(bolt, self.published(bolt)).makes}
        return [name for name in self._names(f"provider/{what}/") if f"{what}/{name}" in made]

    def provider(self, what: str, name: str) -> BoltDefinition:
        """The published definition of the bolt that makes a roll-up or a dataset. Raises NotFoundError."""
        found = self._get(f"provider/{what}/{name}") if CONTROL_TABLE in self.table.tables() else None
        if found is None:
            raise NotFoundError(
                f"there is no {'roll-up' if what == 'rollup' else what} {name!r} here",
                hint=f"there are {', '.join(self.names(what)) or 'none yet: run a topology first'}",
            )
        definition = self.definition(found["bolt"], self.published(found["bolt"]))
        if f"{what}/{name}" not in definition.makes:
            raise NotFoundError(
                f"{what} {name!r} is not made by the generation of {definition.bolt} that is served, {definition.generation}",
                hint="another one makes it: `penstock publish` serves that once it has caught up",
            )
        return definition

    def shards(self, bolt: str, generation: str) -> list[tuple[ShardId, Control]]:
        """A generation's shards with their control cells, as they are now."""
        prefix = f"shard/{bolt}/{generation}/".encode()
        return [
            (ShardId.of_row(row), Control.decode(cells[CONTROL_COLUMN]))
            for row, cells in self.table.scan(CONTROL_TABLE, prefix, prefix_end(prefix))
        ]


def resolve_start(log: Log, topic: str, partition: int, start: str) -> int:
    """The offset that "earliest", "latest" or a time stands for. Raises UsageError for anything else."""
    if start == "earliest":
        return log.start(topic, partition)
    if start == "latest":
        return log.end(topic, partition)
    return log.offset_at(topic, partition, instant(start, "--from"))


__all__ = ["BoltDefinition", "Registry", "resolve_start"]
