"""The bolt that rolls records up into cells."""

from __future__ import annotations

from typing import Any, ClassVar, Sequence

from penstock.bolts.base import BatchBolt, ComponentSpec, ShellBoltSpec
from penstock.errors import DeclarationError
from penstock.kernels import RollupPlan
from penstock.model import Rollup, Schema, fingerprint
from penstock.rollup.control import ShardId
from penstock.rollup.rollup_shard import RollupShard
from penstock.rollup.shard import Shard


class RollupBolt(BatchBolt):
    """Counts every accepted record exactly once into the cells of its roll-ups."""

    kind: ClassVar[str] = "rollup"

    @classmethod
    def spec(
        cls,
        source: ComponentSpec,
        rollups: Sequence[Rollup] = (),
        *,
        flush: str | int | None = None,
        name: str | None = None,  # type: ignore[override]
        par: int | None = None,
        config: dict[str, Any] | None = None,
    ) -> ShellBoltSpec:
        """The bolt as a component of a topology. rollups: of the schema that the source reads; flush: how old an answer may be."""
        spec = super().spec(source, flush=flush, name=name, par=par, config=config)
        rollups = [rollups] if isinstance(rollups, Rollup) else list(rollups)
        if not rollups:
            raise DeclarationError(f"{cls.__name__} has no roll-ups", hint="RollupBolt.spec(live, [by_advertiser])")
        for rollup in rollups:
            if rollup.schema.to_json() != spec.schema.to_json():
                raise DeclarationError(
                    f"{cls.__name__}: roll-up {rollup.name!r} is of schema {rollup.schema.name!r}, its spout reads {spec.schema.name!r}",
                    hint="give it a spout of its own",
                )
        if len({rollup.name for rollup in rollups}) != len(rollups):
            raise DeclarationError(
                f"{cls.__name__}: two roll-ups have the same name", hint="the name is that of their tables: give each its own"
            )
        spec.makes = cls.definition_of(spec.schema, rollups)
        return spec

    @classmethod
    def definition_of(cls, schema: Schema, rollups: Sequence[Rollup] = ()) -> dict[str, Any]:
        """All that the cells depend on, as pure data."""
        return {
            "kind": cls.kind,
            "generation": fingerprint({"kind": cls.kind, "rollups": [rollup.fingerprint for rollup in rollups]}),
            "schema": schema.to_json(),
            "rollups": tuple(rollup.to_json() for rollup in rollups),
        }

    def open(self) -> None:
        """Make the plans of the roll-ups."""
        self.plans = [RollupPlan(rollup) for rollup in self.rollups]

    @property
    def rollups(self) -> list[Rollup]:
        """The roll-ups that this bolt computes."""
        return [Rollup.from_json(data) for data in self.settings["rollups"]]

    def wanted(self) -> set[str] | None:
        """The columns that some roll-up reads."""
        return set().union(*(rollup.reads() for rollup in self.rollups))

    def new_shard(self, identity: ShardId) -> Shard:
        """The owner of a shard of this bolt."""
        return RollupShard(identity, self, self.plans)
