"""Which tables a statement can name, and where each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.kernels import RollupPlan
from penstock.model import Rollup, Schema
from penstock.model.units import duration_text
from penstock.query.sql.archived import ArchivedTable
from penstock.query.sql.distant import DistantTable
from penstock.query.sql.pushdown import Scan
from penstock.query.sql.reading import Reading
from penstock.query.sql.rolled import RollupTable, tables_of
from penstock.rollup.registry import Registry
from penstock.warehouse.datasets import datasets_of

if TYPE_CHECKING:
    from penstock.deployment import Deployment


@dataclasses.dataclass(frozen=True)
class Listed:
    """A table that is read when it is scanned. what: of it, for people."""

    schema: str
    name: str
    what: str
    columns: pa.Schema
    scan: Scan

    @property
    def full(self) -> str:
        """How a statement names it."""
        return f"{self.schema}.{self.name}"


def listed(deployment: Deployment, reading: Reading, *, distant: bool) -> list[Listed]:
    """The tables of roll-ups and of the archive, and with `distant` those of the warehouse."""
    made: dict[str, Listed] = {}
    for one in _all(deployment, reading, distant):
        name = one.name
        while f"{one.schema}.{name}" in made:  # roll-up a by b beside roll-up a_b
            name += "_"
        made[f"{one.schema}.{name}"] = dataclasses.replace(one, name=name)
    return list(made.values())


def _all(deployment: Deployment, reading: Reading, distant: bool) -> Iterator[Listed]:
    registry = Registry(deployment.table)
    for name in registry.names("rollup"):
        definition = registry.provider("rollup", name)
        rollup: Rollup = definition.rollup(name)
        plan = RollupPlan(rollup)
        for table_name, breakdown, width in tables_of(rollup):
            of = RollupTable(deployment.table, plan, definition, breakdown, width, reading)
            dimensions = " and ".join(rollup.by[breakdown].dimensions)
            what = f"{rollup.entity}{f' by {dimensions}' if dimensions else ''}, {duration_text(width)} windows, live"
            yield Listed("rollup", table_name, what, of.schema, of.scan)
    for name in registry.names("dataset"):
        definition = registry.provider("dataset", name)
        for dataset, kind in zip(datasets_of(Schema.from_json(definition.schema)), ("events", "late events", "rejects")):
            archived = ArchivedTable(deployment.archive, dataset, definition.generation)
            yield Listed("archive", dataset.name, f"{kind} as archived, loaded or not", archived.schema, archived.scan)
            if distant:
                fetched = DistantTable(deployment.warehouse, dataset, reading)
                yield Listed("warehouse", dataset.name, f"{kind} as loaded", fetched.schema, fetched.scan)
