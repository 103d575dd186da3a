"""Which groups are the largest, and how sure that is where the measure is an estimate."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Mapping, Sequence

from penstock.kernels import RollupPlan, decode_cell
from penstock.query.answer import Ranking
from penstock.query.audience import hidden
from penstock.query.measures import Output
from penstock.query.merge import Group, merged
from penstock.query.request import Question


@dataclasses.dataclass(frozen=True)
class Choice:
    """The groups that `top` keeps. ranked: all of them with their measure, largest first; the first `kept` are kept."""

    by: Output
    ranked: Sequence[tuple[tuple[Any, ...], Any]]
    kept: int

    def split(self, cells: Mapping[Group, bytes]) -> tuple[dict[Group, bytes], dict[int, list[bytes]]]:
        """The cells of the groups that are kept, and of the others by window."""
        chosen = {group for group, _ in self.ranked[: self.kept]}
        kept: dict[Group, bytes] = {}
        left: dict[int, list[bytes]] = {}
        for (window, group), cell in cells.items():
            if group in chosen:
                kept[window, group] = cell
            else:
                left.setdefault(window, []).append(cell)
        return kept, left


def choose_groups(plan: RollupPlan, question: Question, cells: Mapping[Group, bytes]) -> Choice:
    """The groups that are largest over the whole range in the first measure that the answer is ordered by; ties in the order of their values."""
    assert question.top is not None
    outputs = {one.name: one for one in question.outputs}
    by = next((outputs[name] for name, _ in question.order if name in outputs), question.outputs[0])
    together: dict[tuple[Any, ...], list[bytes]] = {}
    for (_, group), cell in cells.items():
        together.setdefault(group, []).append(cell)
    cells_of = {(0, group): merged(plan, some) for group, some in together.items()}
    # A group that is too small must not show by its place that it is large in something.
    small = hidden(plan, [by], question.minimum_audience, cells_of, True) if question.minimum_audience is not None else {}
    found = [(group[1], None if group in small else by.value(decode_cell(plan, cell))) for group, cell in cells_of.items()]
    found.sort(key=lambda one: tuple((value is None, 0 if value is None else value) for value in one[0]))
    found.sort(key=lambda one: (one[1] is not None, 0 if one[1] is None else one[1]), reverse=True)
    return Choice(by, found, question.top)


def ranking(by: Output, names: Sequence[str], ranked: Sequence[tuple[tuple[Any, ...], Any]], first: int, last: int) -> Ranking:
    """How sure the places first to last (not included) are of groups that are ordered by an estimate."""
    values = [value for _, value in ranked if value is not None]
    unsure = []
    for at in range(first, min(last, len(values))):
        near = [other for other in (at - 1, at + 1) if 0 <= other < len(values)]
        if any(_swappable(by.error, values[at], values[other]) for other in near):
            unsure.append(dict(zip(names, ranked[at][0])))
    left = sum(_swappable(by.error, values[last - 1], value) for value in values[last:]) if 0 < last <= len(values) else 0
    return Ranking(by.name, by.error, tuple(unsure), left)


def _swappable(error: float, one: Any, other: Any) -> bool:
    """Whether two estimates are nearer to each other than twice the standard error of their difference."""
    return abs(float(one) - float(other)) <= 2 * error * math.hypot(float(one), float(other))
