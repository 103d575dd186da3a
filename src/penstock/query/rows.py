"""From merged cells to the rows of an answer: groups left out, small audiences, windows without records, order, limit, and values as a user reads them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from typing import Any, Hashable, Mapping, Sequence, TypeVar

from penstock.kernels import RollupPlan, Series, decode_cells
from penstock.model import Field
from penstock.query.answer import Column, Rows, Suppressed
from penstock.query.audience import hidden
from penstock.query.calendars import Calendar
from penstock.query.comparison import Pair, change
from penstock.query.measures import empty_state, units
from penstock.query.merge import Group, merged
from penstock.query.ranking import Choice
from penstock.query.request import TIME, Question, comparison_names

Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass
class Values:
    """The measures of a reading's rows, a column each, in the order of the question's outputs.

    windows: where each row's window starts. groups: its values of `by`; None where the question has none, and the rows are all windows in their order.
    rest: of the groups that `top` leaves out, by window. totals: of all of them. hidden: which places are None because too few people stand behind, by row.
    """

    windows: Sequence[int]
    groups: Sequence[tuple[Any, ...]] | None
    columns: Sequence[Sequence[Any]]
    rest: dict[int, Sequence[Any]] = dataclasses.field(default_factory=dict)
    totals: Sequence[Any] | None = None
    hidden: dict[int, frozenset[int]] = dataclasses.field(default_factory=dict)
    hidden_rest: dict[int, frozenset[int]] = dataclasses.field(default_factory=dict)
    hidden_totals: frozenset[int] = frozenset()

    def lines(self) -> dict[Group, Sequence[Any]]:
        """The rows by window and group."""
        return dict(zip(zip(self.windows, itertools.repeat(()) if self.groups is None else self.groups), zip(*self.columns)))


class Valuer:
    """Makes measures of cells."""

    def __init__(self, plan: RollupPlan, question: Question) -> None:
        self.plan, self.question = plan, question
        self.saturated: set[str] = set()

    @functools.cached_property
    def nothing(self) -> list[Any]:
        """The measures of no records."""
        empty = empty_state(self.plan)
        return [one.value(empty) for one in self.question.outputs]

    def series(self, read: Series, starts: Sequence[int]) -> Values:
        """The measures of an answer without groups. starts: of its windows."""
        totals = [column[0] for column in self._columns(read.total())] if self.question.totals else None
        return Values(starts, None, self._columns(read.columns()), totals=totals)

    def of(self, cells: Mapping[Group, bytes], starts: Sequence[int], choice: Choice | None) -> Values:
        """The measures of cells by group. starts: of the answer's windows. choice: the groups that `top` keeps, None for all."""
        question, plan = self.question, self.plan
        kept, left = (dict(cells), {}) if choice is None else choice.split(cells)
        rest = {window: merged(plan, some) for window, some in left.items()}
        small: dict[Group, frozenset[int]] = {}
        if question.minimum_audience is not None:
            rows = {**kept, **{(window, _REST): cell for window, cell in rest.items()}}
            small = hidden(plan, question.outputs, question.minimum_audience, rows, bool(question.by))
        hidden_rest = {window: places for (window, group), places in small.items() if group == _REST}
        lines = self._table(kept, {group: places for group, places in small.items() if group in kept})
        if not question.by:
            lines = {(window, ()): lines.get((window, ()), self.nothing) for window in starts}
        totals, hidden_totals = None, frozenset[int]()
        if question.totals:
            totals, hidden_totals = self._totals([*kept.values(), *rest.values()])
        if not question.other:
            rest, hidden_rest = {}, {}
        windows, groups = zip(*lines) if lines else ((), ())
        return Values(
            windows,
            groups if question.by else None,
            list(zip(*lines.values())) if lines else [()] * len(question.outputs),
            self._table(rest, hidden_rest),
            totals,
            {at: small[one] for at, one in enumerate(lines) if one in small} if small else {},
            hidden_rest,
            hidden_totals,
        )

    def _columns(self, stored: Sequence[list[Any]]) -> list[list[Any]]:
        """The measures of decoded cells."""
        columns = []
        for one in self.question.outputs:
            values, cut = one.column(stored)
            columns.append(values)
            if cut:
                self.saturated.add(one.name)
        return columns

    def _table(self, cells: Mapping[Key, bytes], without: Mapping[Key, frozenset[int]]) -> dict[Key, Sequence[Any]]:
        """The measures of cells, None for those that are hidden."""
        found: dict[Key, Sequence[Any]] = dict(zip(cells, zip(*self._columns(decode_cells(self.plan, cells.values())))))
        for key, places in without.items():
            found[key] = [None if place in places else value for place, value in enumerate(found[key])]
        return found

    def _totals(self, cells: Sequence[bytes]) -> tuple[Sequence[Any], frozenset[int]]:
        if not cells:
            return self.nothing, frozenset()
        whole, minimum = {(0, ()): merged(self.plan, cells)}, self.question.minimum_audience
        small = {} if minimum is None else hidden(self.plan, self.question.outputs, minimum, whole, False)
        return self._table(whole, small)[0, ()], small.get((0, ()), frozenset())


_REST: tuple[Any, ...] = (object(),)  # stands for the groups left out, and is equal to no group


def columns_of(plan: RollupPlan, question: Question) -> tuple[Column, ...]:
    """The columns of an answer: the window's start if there are windows, then the dimensions, the measures, and what they are compared with."""
    fields = plan.rollup.schema.columns
    times = [Column(TIME, "time", "timestamp")] if question.interval is not None else []
    compared = []
    for one in question.outputs if question.compare else ():
        for name in comparison_names(one):
            what = name[len(one.name) + 1 :]
            kind = "float" if what == "percent" or one.type == "float" else one.type
            compared.append(Column(name, "comparison", kind, what, one.name, one.scale if kind == "decimal" else None))
    return (
        *times,
        *(Column(name, "dimension", fields[name].kind, scale=getattr(fields[name], "scale", None)) for name in question.by),
        *(Column(one.name, "measure", one.type, one.kind, scale=one.scale) for one in question.outputs),
        *compared,
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """The columns of an answer, and the parts of it that hold values, as it shows them. ordered: all rows in their order, before limit and offset and not yet shown: a list a column."""

    columns: tuple[Column, ...]
    rows: Rows
    other: list[dict[str, Any]]
    totals: dict[str, Any] | None
    suppressed: tuple[Suppressed, ...]
    ordered: list[Sequence[Any]]

    @property
    def count(self) -> int:
        """How many rows there are without limit and offset."""
        return len(self.ordered[0])


def make(valuer: Valuer, now: Values, pair: Pair | None, before: Values | None) -> Made:
    """The rows of an answer. pair: which windows are compared with which; before: the values of those."""
    plan, question = valuer.plan, valuer.question
    columns = columns_of(plan, question)
    lead = question.interval is not None
    windows, grouped, values = now.windows, now.groups, now.columns
    if pair is not None and before is not None:
        lines, old = now.lines(), before.lines()
        lines.update(dict.fromkeys(pair.only_before(lines, old), valuer.nothing))
        values = list(
            zip(*([*line, *change(question.outputs, line, pair.earlier(old, *group, valuer.nothing))] for group, line in lines.items()))
        )
        if grouped is not None:
            windows, grouped = [window for window, _ in lines], [group for _, group in lines]
    table: list[Sequence[Any]] = [windows] if lead else []
    if grouped is not None:
        table += zip(*grouped) if grouped else [()] * len(question.by)
    table += values or [()] * (len(columns) - len(table))
    order = _order(table, columns, question)
    ordered: list[Sequence[Any]] = table if order is None else [[values[at] for at in order] for values in table]
    stop = None if question.limit is None else question.offset + question.limit
    show = _Shower(plan, question, columns)
    names = [one.name for one in question.outputs]
    suppressed = []
    if now.hidden:
        kept = (range(len(windows)) if order is None else order)[question.offset : stop]
        found = ((at, now.hidden.get(place)) for at, place in enumerate(kept))
        suppressed += [Suppressed("rows", at, _named(names, places)) for at, places in found if places]
    other = []
    for at, (window, line) in enumerate(sorted(now.rest.items())):
        if pair is not None and before is not None:
            line = [*line, *change(question.outputs, line, pair.earlier_rest(before.rest, window, valuer.nothing))]
        other.append(show.without_dimensions((window, *line) if lead else line))
        if window in now.hidden_rest:
            suppressed.append(Suppressed("other", at, _named(names, now.hidden_rest[window])))
    totals = None
    if now.totals is not None:
        line = now.totals
        if before is not None and before.totals is not None:
            line = [*line, *change(question.outputs, line, before.totals)]
        totals = show.measures(line)
        if now.hidden_totals:
            suppressed.append(Suppressed("totals", None, _named(names, now.hidden_totals)))
    return Made(columns, show.rows([values[question.offset : stop] for values in ordered]), other, totals, tuple(suppressed), ordered)


def _named(names: Sequence[str], places: frozenset[int]) -> tuple[str, ...]:
    return tuple(names[place] for place in sorted(places))


class _Shower:
    """Turns rows of canonical values into what an answer shows."""

    def __init__(self, plan: RollupPlan, question: Question, columns: Sequence[Column]) -> None:
        fields = plan.rollup.schema.columns
        self.names = [column.name for column in columns]
        self.special = [
            (column.name, fields[column.name] if column.role == "dimension" else None, column.type)
            for column in columns
            if column.type == "timestamp" or (column.role == "dimension" and column.type == "decimal")
        ]
        self.dimensions = len(question.by)
        self.lead = 0 if question.interval is None else 1
        self.calendar = question.calendar

    def rows(self, columns: Sequence[Sequence[Any]]) -> Rows:
        """Rows, of a list of canonical values a column."""
        shown = dict(zip(self.names, columns))
        for name, field, kind in self.special:
            if kind == "timestamp":
                shown[name] = self.calendar.texts(shown[name])
            else:
                shown[name] = [units(field, value) for value in shown[name]]
        return Rows(shown)

    def row(self, values: Sequence[Any]) -> dict[str, Any]:
        """A row."""
        return self.rows([(value,) for value in values])[0]

    def without_dimensions(self, values: Sequence[Any]) -> dict[str, Any]:
        """The row of groups that were left out."""
        lead = [*values[: self.lead], *([None] * self.dimensions), *values[self.lead :]]
        row = self.row(lead)
        for name in self.names[self.lead : self.lead + self.dimensions]:
            del row[name]
        return row

    def measures(self, values: Sequence[Any]) -> dict[str, Any]:
        """Measures alone."""
        at = self.lead + self.dimensions
        row = dict(zip(self.names[at:], values))
        for name, field, kind in self.special:
            if name in row:
                row[name] = show(field, kind, row[name], self.calendar)
        return row


def show(field: Field | None, kind: str, value: Any, calendar: Calendar) -> Any:
    """A value as an answer shows it: instants as ISO 8601 text, a dimension's decimals in units. field: the dimension's, None for the other columns."""
    return calendar.text(value) if kind == "timestamp" and value is not None else units(field, value)


def _order(table: Sequence[Sequence[Any]], columns: Sequence[Column], question: Question) -> list[int] | None:
    """Which row comes when; None where they are in order. By time, then dimensions, as windows without groups are; then by the columns asked for, the first
    counting most. Nulls come last, whichever way."""
    names = [column.name for column in columns]
    usual = [(column.name, False) for column in columns if column.role in ("time", "dimension")] if question.by else []
    order: list[int] | None = None
    for name, descending in reversed([*question.order, *usual]):
        values = table[names.index(name)]
        if order is None and not descending and None not in values and all(map(operator.le, values, values[1:])):
            continue
        places = range(len(values)) if order is None else order
        nulls = [at for at in places if values[at] is None]
        order = sorted((at for at in places if values[at] is not None), key=values.__getitem__, reverse=descending) + nulls
    return order


__all__ = ["Made", "Valuer", "Values", "columns_of", "make", "show"]
