"""What a side computed, in one form for all, so that no rate is reported of a side that counts something else."""

from __future__ import annotations

import math
from typing import Any, Iterable

from penstock.kernels import RollupPlan, decode_cell, split_column, split_row
from penstock.table import Table

from bench.workload import PRECISION

Answer = dict[
    tuple[Any, ...], list[float]
]  # (entity, dimensions..., window): count, sum in the smallest unit, and uniques where there are any
TOLERANCE = 2 * 1.04 / math.sqrt(1 << PRECISION)  # of the root mean square difference between two sketches' estimates: more than both err


def of_cells(plan: RollupPlan, cells: Iterable[tuple[bytes, bytes, bytes]]) -> Answer:
    """The answer that the cells (row, column, value) of a roll-up's first breakdown hold. Shards are of different entities, and add up if not."""
    found: Answer = {}
    span = plan.breakdowns[0].span
    for row, column, cell in cells:
        entity, bucket, dimensions = split_row(plan, 0, row)
        window = bucket * span + split_column(column)[1]
        measured = [value.estimate() if hasattr(value, "estimate") else value for value in decode_cell(plan, cell)]
        known = found.setdefault((entity, *dimensions, window), [0] * len(measured))
        for index, value in enumerate(measured):
            known[index] += value
    return found


def of_table(plan: RollupPlan, table: Table) -> Answer:
    """The answer that a table holds."""
    rows = table.scan(plan.breakdowns[0].table)
    return of_cells(plan, ((row, column, cell) for row, columns in rows for column, cell in columns.items()))


def by_entity(answer: Answer) -> Answer:
    """How many events each entity has: of an answer with nothing but counts."""
    found: Answer = {}
    for key, counts in answer.items():
        found.setdefault(key[:1], [0])[0] += sum(counts)
    return found


def difference(ours: Answer, theirs: Answer) -> str | None:
    """What is not the same in two answers: counts and sums must be equal, estimates near. None if nothing is."""
    if ours.keys() != theirs.keys():
        return f"{len(ours.keys() - theirs.keys())} groups are in the first alone, {len(theirs.keys() - ours.keys())} in the second alone"
    squares, sketched = 0.0, 0
    for key, mine in ours.items():
        other = theirs[key]
        if mine[:2] != other[:2] or len(mine) != len(other):
            return f"group {key}: {mine} is not {other}"
        if len(mine) == 3:
            squares += ((mine[2] - other[2]) / other[2]) ** 2
            sketched += 1
    apart = math.sqrt(squares / sketched) if sketched else 0.0
    return f"the estimates of uniques differ by {apart:.2%}, and may by {TOLERANCE:.2%}" if apart > TOLERANCE else None
