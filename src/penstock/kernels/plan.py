"""A roll-up as the aggregation kernels need it: numbered filters, measures in the cell's order, key fields in the row's order."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import DeclarationError
from penstock.kernels import masks
from penstock.kernels.columns import Columns
from penstock.model import Field, Granularity, Rollup, check_filter

MAX_BREAKDOWNS, MAX_DIMENSIONS = 256, 16  # a byte of the row key numbers the breakdowns; sixteen bits of a group's key mark null dimensions


@dataclasses.dataclass(frozen=True)
class MeasurePlan:
    """A stored measure. column and field: what it reads (None for a count). filter: index in RollupPlan.filters, -1 for none. precision: 0 unless uniques."""

    name: str
    kind: str
    column: str | None
    field: Field | None
    filter: int
    precision: int


@dataclasses.dataclass(frozen=True)
class BreakdownPlan:
    """A breakdown. keys and fields: the entity first, then the dimensions. width: of its finest windows, in microseconds; span: such windows to a
    row; table: the one that holds them."""

    index: int
    keys: tuple[str, ...]
    fields: tuple[Field, ...]
    width: int
    span: int
    table: str


@dataclasses.dataclass(frozen=True)
class BreakdownKeys:
    """Where the cells of one breakdown go: of each its window number (int64), row and column, all three in one order."""

    index: int
    table: str
    width: int
    windows: npt.NDArray[np.int64]
    rows: list[bytes]
    columns: list[bytes]


class RollupPlan:
    """What the kernels need to know of a roll-up.

    time: the event time's column. where: index in `filters` of the roll-up's own filter, -1 for none. filters: the different canonical filters.
    compiled: where the compiled kernels keep their own form of this plan; nobody else's.

    Raises DeclarationError for a roll-up with more breakdowns or dimensions than a row key can number.
    """

    def __init__(self, rollup: Rollup) -> None:
        self.rollup = rollup
        self.time = rollup.schema.time
        self.filters: list[dict[str, Any]] = []
        self.compiled: Any = None
        if len(rollup.by) > MAX_BREAKDOWNS:
            raise DeclarationError(
                f"roll-up {rollup.name!r} has {len(rollup.by)} breakdowns",
                hint=f"a row key numbers at most {MAX_BREAKDOWNS}: split the roll-up",
            )
        self._numbers: dict[str, int] = {}
        self.where = self._number(rollup.where, f"roll-up {rollup.name!r}")
        self.measures = tuple(self._measure(name, measure) for name, measure in rollup.stored.items())
        self.breakdowns = tuple(self._breakdown(index) for index in range(len(rollup.by)))
        numbers = {measure.filter for measure in self.measures}
        self._any = () if -1 in numbers else tuple(sorted(numbers))  # a record must pass one of these to be counted at all

    def _number(self, condition: Any, what: str) -> int:
        if condition is None:
            return -1
        checked = check_filter(condition, self.rollup.schema.columns, what)
        number = self._numbers.setdefault(json.dumps(checked, sort_keys=True), len(self.filters))
        if number == len(self.filters):
            self.filters.append(checked)
        return number

    def _measure(self, name: str, measure: Any) -> MeasurePlan:
        column = getattr(measure, "field", None)
        field = self.rollup.schema.columns[column] if column else None
        return MeasurePlan(
            name, measure.kind, column, field, self._number(measure.where, f"measure {name!r}"), getattr(measure, "precision", 0)
        )

    def _breakdown(self, index: int) -> BreakdownPlan:
        one, rollup = self.rollup.by[index], self.rollup
        if len(one.dimensions) > MAX_DIMENSIONS:
            raise DeclarationError(
                f"roll-up {rollup.name!r}: a breakdown by {len(one.dimensions)} dimensions", hint=f"at most {MAX_DIMENSIONS} fit a row key"
            )
        keys, width = (rollup.entity, *one.dimensions), one.widths[0]
        return BreakdownPlan(
            index, keys, tuple(rollup.schema.columns[key] for key in keys), width, Granularity(width).span, rollup.table(width)
        )

    def masks(self, columns: Columns) -> tuple[npt.NDArray[np.uint8] | None, list[npt.NDArray[np.uint8]]]:
        """Which records of a batch some measure counts (None: all), and the mask of each filter, uint8 0/1 by record."""
        passed = [masks.mask(one, columns) for one in self.filters]
        counted: npt.NDArray[np.uint8] | None = None
        for number in self._any:
            counted = passed[number] if counted is None else counted | passed[number]
        if self.where >= 0:
            counted = passed[self.where] if counted is None else counted & passed[self.where]
        return counted, passed
