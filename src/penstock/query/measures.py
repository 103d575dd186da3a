"""The measures of a question: which of a cell's values each one needs, and what it makes of them once they are merged."""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
import re
from typing import Any, Sequence

from penstock.errors import QueryError
from penstock.kernels import Hll, RollupPlan, saturate
from penstock.kernels.plan import MeasurePlan
from penstock.model import Ratio, Rollup
from penstock.model.fields import INT64_MAX, INT64_MIN, NAME

_QUOTIENT = re.compile(r"(?:(?P<name>[^=/\s]+)\s*=)?\s*(?P<numerator>[^=/\s]+)\s*/\s*(?P<denominator>[^=/\s]+)")


_EXACT = decimal.Context(prec=40)  # more digits than any value has, whatever precision the program works with


@dataclasses.dataclass(frozen=True)
class Output:
    """One measure of an answer.

    places: of the stored measures that it is made of, in the cell's order; two of them make a ratio. type: "int", "decimal", "timestamp" or "float".
    error: the relative standard error of the estimate, 0 for what is exact.
    """

    name: str
    kind: str
    type: str
    parts: tuple[MeasurePlan, ...]
    places: tuple[int, ...]
    error: float

    @property
    def scale(self) -> int | None:
        """Decimal places, of what is made of a Decimal field."""
        return getattr(self.parts[0].field, "scale", None) if self.type == "decimal" else None

    def column(self, stored: Sequence[list[Any]]) -> tuple[list[Any], bool]:
        """The measure of merged cells, and whether a sum in any of them had to be cut to 64 bits.

        stored: as of `kernels.decode_cells`. int for counts, sums, estimates and instants (microseconds); Decimal for what is made of a Decimal field;
        float for a ratio. None for an extreme of nothing and for a ratio whose denominator is 0 or none.
        """
        raw = [_stored(part, stored[place]) for part, place in zip(self.parts, self.places)]
        cut = any(one for _, one in raw)
        if len(raw) == 1:
            return _in_units(self.parts[0].field, raw[0][0]), cut
        # Two whole numbers, scaled so that they are in one unit: Python divides them to the nearest float.
        up, down = (10 ** (getattr(part.field, "scale", 0) if _type(part) == "decimal" else 0) for part in reversed(self.parts))
        pairs = zip(raw[0][0], raw[1][0])
        return [None if one is None or not other else (one * up) / (other * down) for one, other in pairs], cut

    def value(self, state: Sequence[Any]) -> Any:
        """The same of one merged cell, as of `kernels.decode_cell`."""
        return self.column([[value] for value in state])[0][0]


def _stored(part: MeasurePlan, raw: list[Any]) -> tuple[list[Any], bool]:
    """A stored measure's whole numbers, and whether any had to be cut to 64 bits."""
    if part.kind == "uniques":
        return [round(one.estimate()) for one in raw], False
    if part.kind != "sum" or not raw or (max(raw) <= INT64_MAX and min(raw) >= INT64_MIN):
        return raw, False
    return [saturate(one)[0] for one in raw], True


def _in_units(field: Any, values: list[Any]) -> list[Any]:
    """Canonical values as a user reads them."""
    if field is None or field.kind != "decimal":
        return values
    places, scaled = -field.scale, _EXACT.scaleb
    zero = scaled(0, places)  # most windows of most answers
    return [scaled(one, places) if one else None if one is None else zero for one in values]


def units(field: Any, value: Any) -> Any:
    """A canonical value as a user reads it: a Decimal field's whole number of 10**-scale becomes a decimal.Decimal, exactly."""
    if field is None or field.kind != "decimal" or value is None:
        return value
    return _EXACT.scaleb(value, -field.scale)


def empty_state(plan: RollupPlan) -> list[Any]:
    """What `kernels.decode_cell` would give for a window without records."""
    return [Hll(one.precision) if one.kind == "uniques" else 0 if one.kind in ("count", "sum") else None for one in plan.measures]


def outputs(plan: RollupPlan, asked: Sequence[str] | None) -> list[Output]:
    """The measures asked for: names of the roll-up's, and quotients of two of them ("clicks/impressions", "ctr=clicks/impressions").

    None stands for all that the roll-up declares. Raises QueryError, naming `measures`.
    """
    if isinstance(asked, str):
        raise QueryError(f"measures: {asked!r} is one text, not a list of names", hint=f"write measures=[{asked!r}]")
    names = list(plan.rollup.measures) if asked is None else list(asked)
    if not names:
        raise QueryError("measures: none is asked for", hint=f"leave it out for all of them: {_known(plan.rollup)}")
    made = _made(plan, tuple(names)) if all(isinstance(name, str) for name in names) else [_output(plan, name) for name in names]
    twice = {one.name for one in made if sum(other.name == one.name for other in made) > 1}
    if twice:
        raise QueryError(f"measures: {', '.join(sorted(twice))} is asked for twice", hint="name each measure once")
    return list(made)


@functools.lru_cache(256)
def _made(plan: RollupPlan, names: tuple[str, ...]) -> list[Output]:
    return [_output(plan, name) for name in names]


def _known(rollup: Rollup) -> str:
    return f"{', '.join(rollup.measures)}, or a quotient of two such as ctr=clicks/impressions"


def _output(plan: RollupPlan, asked: str) -> Output:
    declared = plan.rollup.measures.get(asked) if isinstance(asked, str) else None
    if isinstance(declared, Ratio):
        return _ratio(plan, asked, declared.numerator, declared.denominator)
    if declared is not None:
        return _single(plan, asked)
    quotient = _QUOTIENT.fullmatch(asked.strip()) if isinstance(asked, str) else None
    if quotient is None:
        raise QueryError(f"measures: roll-up {plan.rollup.name!r} has no measure {asked!r}", hint=f"it has {_known(plan.rollup)}")
    name = quotient["name"]
    if name is not None and (not NAME.fullmatch(name) or name in plan.rollup.measures):
        raise QueryError(
            f"measures: {name!r} cannot name the quotient of {asked!r}",
            hint="use lower-case letters, digits and _, and no measure's own name",
        )
    return _ratio(plan, name or f"{quotient['numerator']}/{quotient['denominator']}", quotient["numerator"], quotient["denominator"])


def _place(plan: RollupPlan, name: str) -> int:
    for place, one in enumerate(plan.measures):
        if one.name == name:
            return place
    raise QueryError(
        f"measures: {name!r} is not a stored measure of roll-up {plan.rollup.name!r}, so nothing can be divided by it or it by anything",
        hint=f"a quotient takes two of {', '.join(one.name for one in plan.measures)}",
    )


def _type(part: MeasurePlan) -> str:
    return part.field.kind if part.field is not None and part.kind in ("sum", "min", "max") else "int"


def _error(part: MeasurePlan) -> float:
    """1.04 / sqrt(2**precision): Flajolet et al., "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", 2007."""
    return 1.04 / math.sqrt(2**part.precision) if part.kind == "uniques" else 0.0


def _single(plan: RollupPlan, name: str) -> Output:
    place = _place(plan, name)
    part = plan.measures[place]
    return Output(name, part.kind, _type(part), (part,), (place,), _error(part))


def _ratio(plan: RollupPlan, name: str, numerator: str, denominator: str) -> Output:
    places = _place(plan, numerator), _place(plan, denominator)
    parts = plan.measures[places[0]], plan.measures[places[1]]
    for part in parts:
        if _type(part) == "timestamp":
            raise QueryError(
                f"measures: {name!r} would divide with {part.name!r}, which is an instant",
                hint="divide counts, sums, numbers and uniques only",
            )
    # The errors of two independent estimates add as squares, to first order.
    return Output(name, "ratio", "float", parts, places, math.hypot(*map(_error, parts)))
