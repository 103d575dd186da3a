"""What a roll-up measures. Every stored measure is order-free: whole numbers, extremes and HyperLogLog registers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Mapping

from penstock.errors import DeclarationError
from penstock.model.fields import Bool, Decimal, Field, Int, Timestamp
from penstock.model.filters import check_filter, fields_of, plain_filter


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of the records of a group; `where` narrows them."""

    where: Mapping[str, Any] | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str] = ""
    stored: ClassVar[bool] = True  # has a place in the cell; a ratio is computed from two that have

    def check(self, name: str, fields: Mapping[str, Field], others: Mapping[str, Measure]) -> None:
        """Raise DeclarationError if the measure called `name` cannot work beside `others`."""
        if self.where is not None:
            check_filter(self.where, fields, f"measure {name!r}")

    def reads(self) -> set[str]:
        """The fields that it reads."""
        name = getattr(self, "field", None)
        return ({name} if name else set()) | (fields_of(self.where) if self.where else set())

    def to_json(self) -> dict[str, Any]:
        """The measure as pure data."""
        data = {"type": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) is not None}}
        return {**data, "where": plain_filter(self.where)} if self.where is not None else data


@dataclasses.dataclass(frozen=True)
class Count(Measure):
    """How many records."""

    kind: ClassVar[str] = "count"


@dataclasses.dataclass(frozen=True)
class _OfField(Measure):
    field: str = ""
    allowed: ClassVar[tuple[type[Field], ...]] = (Int, Decimal)

    def __init__(self, field: str, *, where: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "field", field)
        object.__setattr__(self, "where", where)

    def check(self, name: str, fields: Mapping[str, Field], others: Mapping[str, Measure]) -> None:
        if self.field not in fields:
            raise DeclarationError(
                f"measure {name!r}: there is no field {self.field!r}", hint=f"the fields are {', '.join(sorted(fields))}"
            )
        if not isinstance(fields[self.field], self.allowed):
            kinds = " or ".join(cls.__name__ for cls in self.allowed)
            raise DeclarationError(
                f"measure {name!r}: {type(self).__name__} of field {self.field!r}, which is {fields[self.field].kind}",
                hint=f"{type(self).__name__} takes a field that is {kinds}",
            )
        super().check(name, fields, others)


@dataclasses.dataclass(frozen=True, init=False)
class Sum(_OfField):
    """The sum of a field; nulls add nothing. Kept in 128 bits; a total beyond 64 is reported saturated."""

    kind: ClassVar[str] = "sum"


@dataclasses.dataclass(frozen=True, init=False)
class Min(_OfField):
    """The smallest value of a field; null where every value is."""

    kind: ClassVar[str] = "min"
    allowed: ClassVar[tuple[type[Field], ...]] = (Int, Decimal, Timestamp)


@dataclasses.dataclass(frozen=True, init=False)
class Max(_OfField):
    """The largest value of a field; null where every value is."""

    kind: ClassVar[str] = "max"
    allowed: ClassVar[tuple[type[Field], ...]] = (Int, Decimal, Timestamp)


@dataclasses.dataclass(frozen=True, init=False)
class Uniques(_OfField):
    """How many different values of a field, estimated by a HyperLogLog of 2**precision registers.

    Exact registers: which order or batches the records came in changes nothing. Standard error 1.04 / sqrt(2**precision):
    2.3 % at the default of 11.
    """

    precision: int = 11
    kind: ClassVar[str] = "uniques"
    allowed: ClassVar[tuple[type[Field], ...]] = (Field,)

    def __init__(self, field: str, *, precision: int = 11, where: Mapping[str, Any] | None = None) -> None:
        super().__init__(field, where=where)
        object.__setattr__(self, "precision", precision)

    def check(self, name: str, fields: Mapping[str, Field], others: Mapping[str, Measure]) -> None:
        if not isinstance(self.precision, int) or not 4 <= self.precision <= 16:
            raise DeclarationError(
                f"measure {name!r}: precision {self.precision!r} is out of range", hint="use 4 to 16; 11 errs by 2.3 %, 14 by 0.8 %"
            )
        super().check(name, fields, others)
        if isinstance(fields[self.field], Bool):
            raise DeclarationError(f"measure {name!r}: Uniques of a Bool is at most 2", hint="count each side with where=")

    @property
    def standard_error(self) -> float:
        """Relative standard error of the estimate."""
        return 1.04 / math.sqrt(2**self.precision)


@dataclasses.dataclass(frozen=True, init=False)
class Ratio(Measure):
    """One measure over another, computed when it is read: a click-through rate, an average. Null where the denominator is 0."""

    numerator: str = ""
    denominator: str = ""
    kind: ClassVar[str] = "ratio"
    stored: ClassVar[bool] = False

    def __init__(self, numerator: str, denominator: str) -> None:
        for name, value in {"numerator": numerator, "denominator": denominator, "where": None}.items():
            object.__setattr__(self, name, value)

    def check(self, name: str, fields: Mapping[str, Field], others: Mapping[str, Measure]) -> None:
        for part in (self.numerator, self.denominator):
            if part not in others or not others[part].stored:
                raise DeclarationError(
                    f"measure {name!r}: {part!r} is not a stored measure of this roll-up",
                    hint="a Ratio names two of its counts, sums, extremes or uniques",
                )


MEASURES: dict[str, type[Measure]] = {cls.kind: cls for cls in (Count, Sum, Min, Max, Uniques, Ratio)}


def measure_from_json(data: dict[str, Any]) -> Measure:
    """The measure of its pure-data form."""
    return MEASURES[data["type"]](**{key: value for key, value in data.items() if key not in ("type", "name")})
