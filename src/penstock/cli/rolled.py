"""Roll-ups as tasks of the exporter: the days of each roll-up of a topology that the warehouse lacks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from penstock.cli.published import progress_of, published
from penstock.kernels import RollupPlan
from penstock.model import Rollup
from penstock.query.sql.reading import Reading
from penstock.query.sql.rolled import RollupTable as LiveTable
from penstock.rollup.registry import BoltDefinition, Registry
from penstock.warehouse.export import HourPlan
from penstock.warehouse.rollups import RollupTable, due_days, export_day, first_window, tables_of
from penstock.warehouse.schedule import Options, Task

if TYPE_CHECKING:
    from penstock.deployment import Deployment
    from penstock.topology import Topology


class RolledDays:
    """The days of a topology's roll-ups that are due. An instance remembers from when on a roll-up has cells, which takes reading all of it."""

    def __init__(self, topology: type[Topology], deployment: Deployment, options: Options) -> None:
        self.topology, self.deployment, self.options = topology, deployment, options
        self._first: dict[tuple[str, str], int] = {}

    def tasks(self) -> Iterator[Task]:
        """What there is to load now, by table and day."""
        registry = Registry(self.deployment.table)
        bolts = [one.bolt for one in self.topology.definitions.values() if one.kind == "rollup"]
        for definition in published(registry, [bolt for bolt in bolts if bolt in registry.bolts()]):
            progress = progress_of(definition, self.deployment)  # before the cells
            for rollup in map(Rollup.from_json, definition.rollups):
                plan = RollupPlan(rollup)
                for table in tables_of(rollup):
                    yield from self._days(definition, plan, table, progress)

    def _days(self, definition: BoltDefinition, plan: RollupPlan, table: RollupTable, progress: list[Any]) -> Iterator[Task]:
        ledger = self.deployment.warehouse.ledger(table.name)
        rows = functools.partial(self._rows, definition, plan, table)
        first = 0
        if not ledger:
            key = definition.generation, table.name
            found = self._first[key] if key in self._first else first_window(table, rows(None, None))
            if found is None:
                return
            first = self._first[key] = found
        now = self.deployment.now()
        loaded = {row.hour for row in ledger}
        days = due_days(table, progress, ledger, now, grace=self.options.grace, reload_interval=self.options.reload_interval, first=first)
        for day, final in days:
            if self.options.wanted(table.name, day):
                why = "complete" if final else "complete for now: partitions are caught up and silent"
                state = HourPlan(table.name, day, 0, 0, 0, "changed" if day in loaded else "new", why)
                load = functools.partial(
                    export_day, self.deployment.archive, self.deployment.warehouse, table, day, final, rows, self.deployment.now()
                )
                yield Task(state, table.dataset, self.deployment.archive, None, load)

    def _rows(
        self, definition: BoltDefinition, plan: RollupPlan, table: RollupTable, start: int | None, end: int | None
    ) -> Iterable[pa.RecordBatch]:
        """The rows of a roll-up whose windows start in [start, end); the times alone of all of them without."""
        live = LiveTable(self.deployment.table, plan, definition, table.breakdown, table.width, Reading(most=sys.maxsize))
        if start is None or end is None:
            return live.scan([table.time], None)
        at, kind = ds.field(table.time), pa.timestamp("us")
        return live.scan(live.schema.names, (at >= pa.scalar(start, kind)) & (at < pa.scalar(end, kind)))
