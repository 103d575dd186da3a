"""A roll-up: measures of an entity's records by window and breakdown."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Mapping, Sequence

from penstock.errors import DeclarationError
from penstock.model.fields import check_name
from penstock.model.filters import check_filter, fields_of, plain_filter
from penstock.model.measures import Measure, measure_from_json
from penstock.model.schema import Schema, fingerprint
from penstock.model.units import DAY, HOUR, MINUTE, duration, duration_text

CELL_FORMAT = 1  # part of every generation: another byte layout is another generation
GRANULARITIES = tuple(n * MINUTE for n in (1, 5, 10, 15, 20, 30)) + tuple(n * HOUR for n in (1, 2, 3, 4, 6, 8, 12)) + (DAY,)


@dataclasses.dataclass(frozen=True)
class Granularity:
    """Windows of one width, and how the table of that width lays them out: `span` windows to a row."""

    width: int  # microseconds

    @property
    def name(self) -> str:
        """Such as "1h"; also how queries write it and how the table is called."""
        return duration_text(self.width)

    @property
    def span(self) -> int:
        """Windows in a row's bucket: an hour of minutes, a day of hours, 32 days."""
        return HOUR // self.width if self.width < HOUR else DAY // self.width if self.width < DAY else 32


class By:
    """A breakdown: the dimensions that it splits by (none: the total), and how long each granularity is kept."""

    def __init__(self, *dimensions: str, keep: Mapping[str, str | int]) -> None:
        self.dimensions = dimensions
        what = f"breakdown by {', '.join(map(repr, dimensions)) or 'nothing'}"
        if not all(isinstance(dimension, str) for dimension in dimensions):
            raise DeclarationError(f"{what}: dimensions are names", hint='By("country", "device", keep=...)')
        if not isinstance(keep, Mapping) or not keep:
            raise DeclarationError(f"{what}: keep is empty", hint='say how long each granularity is kept: keep={"1h": "90d", "1d": "5y"}')
        self.keep: dict[int, int] = {}
        for granularity, kept in sorted(keep.items(), key=lambda item: duration(item[0], what)):
            width = duration(granularity, f"{what}: granularity")
            if width not in GRANULARITIES:
                raise DeclarationError(
                    f"{what}: granularity {granularity!r} is not available",
                    hint=f"use {', '.join(duration_text(g) for g in GRANULARITIES)}",
                )
            if self.keep and width % max(self.keep):
                raise DeclarationError(
                    f"{what}: {granularity!r} is not made of whole {duration_text(max(self.keep))} windows",
                    hint="each granularity must be a multiple of the finer one before it",
                )
            if width in self.keep:
                raise DeclarationError(f"{what}: {granularity!r} is there twice", hint=f"write it once, as {duration_text(width)!r}")
            self.keep[width] = duration(kept, f"{what}: keep of {granularity!r}")
            if self.keep[width] < width:
                raise DeclarationError(
                    f"{what}: {granularity!r} windows are kept {kept!r}, less than one window",
                    hint=f"keep them {duration_text(width)!r} at least",
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Window widths in microseconds, finest first; the stream writes the first, the others are folded from it."""
        return tuple(self.keep)

    def to_json(self) -> dict[str, Any]:
        """The breakdown as pure data."""
        return {"dimensions": list(self.dimensions), "keep": {duration_text(g): k for g, k in self.keep.items()}}


class Rollup:
    """Measures of `entity`'s records, in windows of event time, for each breakdown.

    of: the Schema. entity: the field whose value is looked up; not nullable. where: a filter for the whole roll-up.
    A record that no measure counts makes no cell. Raises DeclarationError, naming the field and the fix.
    """

    def __init__(
        self,
        name: str,
        *,
        of: Schema,
        entity: str,
        measures: Mapping[str, Measure],
        by: Sequence[By] | By,
        where: Mapping[str, Any] | None = None,
    ) -> None:
        what = f"roll-up {check_name(name, 'roll-up')!r}"
        if not isinstance(of, Schema):
            raise DeclarationError(f"{what}: of={of!r} is not a Schema", hint='ads = Schema("ads", ...), then of=ads')
        self.name, self.schema, self.entity, columns = name, of, entity, of.columns
        if entity not in columns:
            raise DeclarationError(
                f"{what}: entity {entity!r} is not a field of schema {of.name!r}", hint=f"the fields are {', '.join(columns)}"
            )
        if columns[entity].nullable:
            raise DeclarationError(
                f"{what}: entity {entity!r} is nullable",
                hint="records without an entity cannot be looked up: drop nullable=True, or give it a default",
            )
        if not measures:
            raise DeclarationError(f"{what} has no measures", hint='measures={"events": Count()}')
        if not isinstance(measures, Mapping):
            raise DeclarationError(f"{what}: measures are {measures!r}", hint='give each a name: measures={"events": Count()}')
        for measure_name, measure in measures.items():
            check_name(measure_name, f"{what}: measure")
            if not isinstance(measure, Measure):
                raise DeclarationError(
                    f"{what}: measure {measure_name!r} is {measure!r}",
                    hint="use Count(), Sum(...), Min(...), Max(...), Uniques(...) or Ratio(...)",
                )
            measure.check(measure_name, columns, measures)
        self.measures: dict[str, Measure] = dict(measures)
        if not any(m.stored for m in self.measures.values()):
            raise DeclarationError(f"{what} has no stored measure", hint="a Ratio needs the two measures it divides")
        if where is not None:
            check_filter(where, columns, what)
        self.where = plain_filter(where)
        if not by:
            raise DeclarationError(f"{what} has no breakdown", hint='by=[By(keep={"1h": "90d"})] for totals')
        self.by = (by,) if isinstance(by, By) else tuple(by)
        if not all(isinstance(one, By) for one in self.by):
            raise DeclarationError(f"{what}: by={by!r} is not a list of breakdowns", hint='by=[By("country", keep={"1h": "90d"})]')
        for index, one in enumerate(self.by):
            self._check_by(one, what)
            if set(one.dimensions) in [set(other.dimensions) for other in self.by[:index]]:
                raise DeclarationError(
                    f"{what}: breakdown by {', '.join(one.dimensions) or 'nothing'} is there twice",
                    hint="put both granularities into one keep={...}",
                )

    def _check_by(self, one: By, what: str) -> None:
        what = f"{what}: breakdown by {', '.join(map(repr, one.dimensions)) or 'nothing'}"
        for dimension in one.dimensions:
            if dimension not in self.schema.columns:
                raise DeclarationError(f"{what}: there is no field {dimension!r}", hint=f"the fields are {', '.join(self.schema.columns)}")
        if self.entity in one.dimensions or len(set(one.dimensions)) != len(one.dimensions):
            raise DeclarationError(f"{what} repeats a field", hint="the entity is always part of the key; name each dimension once")
        for finer, coarser in zip(one.widths, one.widths[1:]):
            if one.keep[finer] < coarser + self.schema.lateness:
                raise DeclarationError(
                    f"{what}: {duration_text(finer)} windows are kept {duration_text(one.keep[finer])}, "
                    f"and would be gone before the {duration_text(coarser)} window is folded from them",
                    hint=f"keep them {duration_text(coarser)} plus the schema's lateness ({duration_text(self.schema.lateness)}) at least",
                )

    @property
    def stored(self) -> dict[str, Measure]:
        """The measures that have a place in the cell, in the cell's order."""
        return {n: m for n, m in self.measures.items() if m.stored}

    def reads(self) -> set[str]:
        """The columns that computing it needs."""
        names = {self.entity} | (fields_of(self.where) if self.where else set())
        for one in self.by:
            names |= set(one.dimensions)
        return names.union(*(m.reads() for m in self.stored.values()))

    def widths(self) -> tuple[int, ...]:
        """All window widths of any breakdown, finest first."""
        return tuple(sorted({width for one in self.by for width in one.widths}))

    def table(self, width: int) -> str:
        """The name of the table that holds the cells of a granularity."""
        return f"{self.name}_{duration_text(width)}"

    def tables(self) -> Iterator[tuple[str, int]]:
        """Each table's name and how long its cells must live, in microseconds: the longest keep plus lateness plus 7 days."""
        for width in self.widths():
            yield self.table(width), max(one.keep[width] for one in self.by if width in one.keep) + self.schema.lateness + 7 * DAY

    def to_json(self) -> dict[str, Any]:
        """The roll-up as pure data, its schema included. Measures are a list: their order is that of the cell's bytes."""
        return {
            "name": self.name,
            "schema": self.schema.to_json(),
            "entity": self.entity,
            "where": self.where,
            "measures": [{"name": n, **m.to_json()} for n, m in self.measures.items()],
            "by": [one.to_json() for one in self.by],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Rollup:
        """The roll-up of its pure-data form."""
        return cls(
            data["name"],
            of=Schema.from_json(data["schema"]),
            entity=data["entity"],
            where=data["where"],
            measures={m["name"]: measure_from_json(m) for m in data["measures"]},
            by=[By(*one["dimensions"], keep=one["keep"]) for one in data["by"]],
        )

    @property
    def fingerprint(self) -> str:
        """Changes with all that changes the cells' bytes: not with how long they are kept, nor with ratios."""
        return fingerprint(
            {
                "cell": CELL_FORMAT,
                "name": self.name,
                "schema": self.schema.to_json(),
                "entity": self.entity,
                "where": self.where,
                "measures": [{"name": n, **m.to_json()} for n, m in self.stored.items()],
                "by": [{"dimensions": one.dimensions, "widths": one.widths} for one in self.by],
            }
        )

    def __repr__(self) -> str:
        return f"Rollup({self.name!r} of {self.schema.name!r} by {self.entity!r})"
