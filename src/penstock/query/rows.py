"""From merged measures to the rows of an answer: windows without records, order, limit, and values as a user reads them."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from penstock.kernels import RollupPlan
from penstock.model import Field
from penstock.model.units import iso
from penstock.query.answer import Column
from penstock.query.measures import empty_state, units
from penstock.query.merge import Group
from penstock.query.plan import QueryPlan
from penstock.query.request import TIME, Question, floor

_Row = tuple[Any, ...]  # one value a column: the window's start, canonical dimension values, measures


def columns_of(plan: RollupPlan, question: Question) -> tuple[Column, ...]:
    """The columns of an answer: the window's start if there are windows, then the dimensions, then the measures."""
    fields = plan.rollup.schema.columns
    times = [Column(TIME, "time", "timestamp")] if question.interval is not None else []
    return (
        *times,
        *(Column(name, "dimension", fields[name].kind) for name in question.by),
        *(Column(one.name, "measure", one.type, one.kind) for one in question.outputs),
    )


def rows_of(
    plan: RollupPlan, query: QueryPlan, question: Question, states: Mapping[Group, Sequence[Any]]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The answer's rows in order, and the measures of which some value had to be cut to 64 bits."""
    columns = columns_of(plan, question)
    saturated: dict[str, None] = {}
    found: list[_Row] = []

    def add(window: int, group: Sequence[Any], values: Sequence[Any]) -> None:
        found.append((*group, *values) if question.interval is None else (window, *group, *values))

    for (window, group), state in states.items():
        values = [one.value(state) for one in question.outputs]
        saturated.update((one.name, None) for one, (_, cut) in zip(question.outputs, values) if cut)
        add(window, group, [value for value, _ in values])
    if not question.by:
        empty = empty_state(plan)
        nothing = [one.value(empty)[0] for one in question.outputs]
        for window in _windows(query, question):
            if (window, ()) not in states:
                add(window, (), nothing)
    kept = _ordered(found, columns, question)[: question.limit]
    fields = plan.rollup.schema.columns
    kinds = [fields[column.name] if column.role == "dimension" else None for column in columns]
    rows = [{column.name: show(kind, column.type, value) for column, kind, value in zip(columns, kinds, row)} for row in kept]
    return rows, tuple(saturated)


def show(field: Field | None, kind: str, value: Any) -> Any:
    """A value as an answer shows it: instants as ISO 8601 text, a dimension's decimals in units. field: the dimension's, None for the other columns."""
    return iso(value) if kind == "timestamp" and value is not None else units(field, value)


def _windows(query: QueryPlan, question: Question) -> Sequence[int]:
    """Where the windows of the answer start."""
    return [question.start] if question.interval is None else range(floor(query.start, question.interval), query.end, question.interval)


def _ordered(found: list[_Row], columns: Sequence[Column], question: Question) -> list[_Row]:
    """By time, then dimensions; then by the columns asked for, the first counting most. Nulls come last, whichever way."""
    names = [column.name for column in columns]
    usual = [(column.name, False) for column in columns if column.role != "measure"]
    for name, descending in reversed([*question.order, *usual]):
        place = names.index(name)
        nulls = [row for row in found if row[place] is None]
        found = [row for row in found if row[place] is not None]
        found.sort(key=lambda row, at=place: row[at], reverse=descending)  # type: ignore[misc]
        found += nulls
    return found
