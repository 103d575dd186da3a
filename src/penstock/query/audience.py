"""Minimum audience: what too few people stand behind is left out of an answer.

Of every row (a group in a window; the groups left out by `top`; the totals):

- People are what the roll-up's Uniques count. If the largest of them is below the minimum, all measures of the row are hidden.
- Otherwise, a Uniques measure that counts somebody and fewer than the minimum is hidden, with every measure that has the same filter and every quotient of one.
- A row without any record is zeros, and not hidden.
- Where the hidden groups of a window come to fewer people than the minimum together, the smallest of the others is hidden as well, until they do not: a total
  less the groups that are shown would give them away. Without `by`, the windows are what is compared so.

Answers to different questions can still be subtracted from each other (ranges that differ by an hour, filters that differ by a value). This is no differential
privacy; whoever must not learn about single people must not be free to ask anything.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from penstock.kernels import RollupPlan, decode_cell
from penstock.query.measures import Output
from penstock.query.merge import Group, merged

_ANY = None  # stands for all filters: the largest audience


def hidden(plan: RollupPlan, outputs: Sequence[Output], minimum: int, rows: Mapping[Group, bytes], by: bool) -> dict[Group, frozenset[int]]:
    """Which outputs, by their places, are hidden of which rows. by: whether the groups of a window make up its total; else the windows do."""
    filters: list[int | None] = [_ANY, *dict.fromkeys(one.filter for one in plan.measures if one.kind == "uniques")]
    places = {one: [place for place, output in enumerate(outputs) if _touches(output, one)] for one in filters}
    audiences = {group: audience(plan, cell) for group, cell in rows.items()}
    together: dict[Any, list[Group]] = {}
    for group in rows:
        together.setdefault(group[0] if by else None, []).append(group)
    found: dict[Group, set[int]] = {}
    for one in filters:
        for groups in together.values():
            for group in _with_complement(plan, one, minimum, groups, rows, audiences):
                found.setdefault(group, set()).update(places[one])
    return {group: frozenset(some) for group, some in found.items() if some}


def audience(plan: RollupPlan, cell: bytes) -> dict[int | None, int]:
    """How many people a cell counts, by filter; under None the largest of them."""
    state = decode_cell(plan, cell)
    counts: dict[int | None, int] = {}
    for place, one in enumerate(plan.measures):
        if one.kind == "uniques":
            count = round(state[place].estimate())
            counts[one.filter] = max(counts.get(one.filter, 0), count)
            counts[_ANY] = max(counts.get(_ANY, 0), count)
    return counts


def _touches(output: Output, one: int | None) -> bool:
    return one is _ANY or any(part.filter == one for part in output.parts)


def _with_complement(
    plan: RollupPlan,
    one: int | None,
    minimum: int,
    groups: Sequence[Group],
    rows: Mapping[Group, bytes],
    audiences: Mapping[Group, Mapping[int | None, int]],
) -> list[Group]:
    """The groups that are too small, and those that have to be hidden with them."""
    small = [group for group in groups if audiences[group][one] < minimum and (one is _ANY or audiences[group][one] > 0)]
    others = sorted(
        (group for group in groups if group not in set(small) and audiences[group][one] > 0), key=lambda group: audiences[group][one]
    )
    while small and others and audience(plan, merged(plan, [rows[group] for group in small]))[one] < minimum:
        small.append(others.pop(0))
    return small
