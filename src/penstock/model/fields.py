"""Field types: what a record holds and how each part of it is read. Pure data; the kernels do the reading."""

from __future__ import annotations

import dataclasses
import decimal
import re
from typing import Any, ClassVar

from penstock.errors import DeclarationError

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
DECIMAL_DIGITS = 18  # a scaled decimal fits an int64 and a warehouse's DECIMAL(18, scale)
_EXACT = decimal.Context(prec=2 * DECIMAL_DIGITS, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_name(name: Any, what: str) -> str:
    """A name that is safe as an identifier in Python, HBase, Parquet and SQL alike."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DeclarationError(
            f"{what}: {name!r} is not a usable name", hint="use lower-case letters, digits and _, a letter first, at most 63"
        )
    return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a record.

    path: where the value lies in the record's value: "user.id" is key "id" of the object at key "user"; a tuple of keys where a key has a
        dot in it. The field's own name unless given.
    default: what a missing (not a null) value stands for.
    nullable: null, and missing without a default, is a value; otherwise it makes the record a reject.
    source: "value", "key" (the whole record key), "header:NAME", or, for a Timestamp, "record" (the log's own timestamp).
    """

    path: str | tuple[str, ...] | None = None
    default: Any = None
    nullable: bool = False
    source: str = "value"

    kind: ClassVar[str] = ""

    def check(self, name: str) -> None:
        """Raise DeclarationError if the field called `name` cannot work."""
        where = f"field {name!r}"
        if self.source not in ("value", "key", "record") and not re.fullmatch(r"header:.+", self.source):
            raise DeclarationError(f"{where}: source {self.source!r} is unknown", hint='use "value", "key", "record" or "header:NAME"')
        if self.source == "record" and self.kind != "timestamp":
            raise DeclarationError(
                f"{where}: only a Timestamp can come from the record itself",
                hint=f"{type(self).__name__}(source=...) may be value, key or header:NAME",
            )
        if self.source != "value" and self.path is not None:
            raise DeclarationError(f"{where}: a path leads into the value, but source is {self.source!r}", hint="leave one of them out")
        if any(not isinstance(key, str) or not key for key in self.keys(name)):
            raise DeclarationError(f"{where}: path {self.path!r} has an empty key", hint='write "outer.inner", or a tuple of keys')
        if self.default is not None:
            try:
                self.check_value(self.default)
            except ValueError as problem:
                raise DeclarationError(
                    f"{where}: default {self.default!r} {problem}", hint="give a default that the field itself could hold"
                ) from None

    def keys(self, name: str) -> tuple[str, ...]:
        """The path as keys, outermost first."""
        if self.path is None:
            return (name,)
        return tuple(self.path.split(".")) if isinstance(self.path, str) else tuple(self.path)

    def check_value(self, value: Any) -> None:
        """Raise ValueError, saying why, if a canonical value cannot be held."""
        raise NotImplementedError(f"{type(self).__name__} holds no value of its own")

    def canonical(self, value: Any) -> Any:
        """What the kernels hold for a value as a user writes it (an int, a str or a bool)."""
        self.check_value(value)
        return value

    def to_json(self) -> dict[str, Any]:
        """The field as pure data."""
        data: dict[str, Any] = {"type": self.kind}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                data[field.name] = list(value) if isinstance(value, tuple) else value
        return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int(Field):
    """A whole number of 64 bits, signed."""

    kind: ClassVar[str] = "int"

    def check_value(self, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is not a whole number")
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError("does not fit 64 bits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class String(Field):
    """Text; UTF-8 in the record, at most `max_bytes` of it."""

    max_bytes: int = 8192
    kind: ClassVar[str] = "string"

    def check(self, name: str) -> None:
        super().check(name)
        if not 1 <= self.max_bytes <= 65535:
            raise DeclarationError(
                f"field {name!r}: max_bytes {self.max_bytes} is out of range", hint="use 1 to 65535, what a warehouse's VARCHAR holds"
            )

    def check_value(self, value: Any) -> None:
        if not isinstance(value, str):
            raise ValueError("is not text")
        if len(value.encode()) > self.max_bytes:
            raise ValueError(f"is longer than {self.max_bytes} bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bool(Field):
    """True or false."""

    kind: ClassVar[str] = "bool"

    def check_value(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError("is not true or false")


@dataclasses.dataclass(frozen=True, init=False)
class Enum(Field):
    """One of a few texts. Any other text makes the record a reject."""

    values: tuple[str, ...] = ()
    kind: ClassVar[str] = "enum"

    def __init__(self, *values: str, path: Any = None, default: str | None = None, nullable: bool = False, source: str = "value") -> None:
        for name, value in {"path": path, "default": default, "nullable": nullable, "source": source, "values": tuple(values)}.items():
            object.__setattr__(self, name, value)

    def check(self, name: str) -> None:
        if (
            not self.values
            or len(self.values) > 1000
            or len(set(self.values)) != len(self.values)
            or not all(isinstance(v, str) and v for v in self.values)
        ):
            raise DeclarationError(
                f"field {name!r}: an Enum takes 1 to 1000 different texts, not {self.values!r}", hint='Enum("click", "save")'
            )
        super().check(name)

    def check_value(self, value: Any) -> None:
        if value not in self.values:
            raise ValueError(f"is not one of {', '.join(self.values)}")


@dataclasses.dataclass(frozen=True, init=False)
class Timestamp(Field):
    """An instant. unit: "s", "ms" or "us" for numbers (fractions allowed where they are whole microseconds or are rounded to them), "iso8601" for text.

    Held as microseconds since 1970 in UTC, from 1970 to 9999.
    """

    unit: str = "ms"
    kind: ClassVar[str] = "timestamp"
    LIMIT: ClassVar[int] = 253_402_300_800_000_000

    def __init__(
        self, unit: str = "ms", *, path: Any = None, default: int | None = None, nullable: bool = False, source: str = "value"
    ) -> None:
        for name, value in {"path": path, "default": default, "nullable": nullable, "source": source, "unit": unit}.items():
            object.__setattr__(self, name, value)

    def check(self, name: str) -> None:
        if self.unit not in ("s", "ms", "us", "iso8601"):
            raise DeclarationError(
                f"field {name!r}: unit {self.unit!r} is unknown", hint='use Timestamp("s"), ("ms"), ("us") or ("iso8601")'
            )
        super().check(name)

    def check_value(self, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self.LIMIT:
            raise ValueError("is not microseconds since 1970, up to the year 9999")


@dataclasses.dataclass(frozen=True, init=False)
class Decimal(Field):
    """A number with `scale` decimal places, held as a whole number of 10**-scale, so that sums do not depend on their order.

    More places in a record are rounded, half to even. 18 digits in all.
    """

    scale: int = 6
    kind: ClassVar[str] = "decimal"

    def __init__(self, scale: int = 6, *, path: Any = None, default: Any = None, nullable: bool = False, source: str = "value") -> None:
        default = str(default) if isinstance(default, decimal.Decimal) else default  # pure data, as a generation is recorded
        for name, value in {"path": path, "default": default, "nullable": nullable, "source": source, "scale": scale}.items():
            object.__setattr__(self, name, value)

    def check(self, name: str) -> None:
        if not isinstance(self.scale, int) or not 0 <= self.scale <= 12:
            raise DeclarationError(f"field {name!r}: scale {self.scale!r} is out of range", hint="use Decimal(0) to Decimal(12)")
        super().check(name)

    def check_value(self, value: Any) -> None:
        self.canonical(value)

    def canonical(self, value: Any) -> int:
        try:
            number = decimal.Decimal(str(value))
        except decimal.InvalidOperation:
            raise ValueError("is not a number") from None
        try:
            scaled = _EXACT.to_integral_exact(_EXACT.scaleb(number, self.scale))
        except decimal.DecimalException:
            scaled = decimal.Decimal("NaN")
        if not scaled.is_finite() or abs(scaled) >= 10**DECIMAL_DIGITS:
            raise ValueError(f"has more than {self.scale} places or more than {DECIMAL_DIGITS} digits")
        return int(scaled)


TYPES = {cls.kind: cls for cls in (Int, String, Bool, Enum, Timestamp, Decimal)}


def field_from_json(data: dict[str, Any]) -> Field:
    """The field of its pure-data form."""
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key not in ("type", "name")
    }
    values = arguments.pop("values", ())
    return TYPES[data["type"]](*values, **arguments)
