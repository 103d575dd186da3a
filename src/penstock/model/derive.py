"""Derived columns: a vectorised pure function of a record's fields, named by where it is imported from."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, Callable

from penstock.errors import DeclarationError
from penstock.model.fields import Field, field_from_json


@dataclasses.dataclass(frozen=True)
class Derived:
    """A derived column: `function(*columns)` takes the Arrow arrays of the fields `of` and returns one array of `field`'s type, as long."""

    function: str  # "package.module:name"
    of: tuple[str, ...]
    field: Field

    def load(self) -> Callable[..., Any]:
        """The function itself. Raises DeclarationError if it cannot be imported."""
        module, _, name = self.function.partition(":")
        try:
            found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        except (ImportError, AttributeError) as problem:
            raise DeclarationError(
                f"derived column: {self.function} cannot be imported ({problem})",
                hint="a worker must be able to import it: keep it in a module of the project",
            ) from None
        return found  # type: ignore[return-value]

    def to_json(self) -> dict[str, Any]:
        """The column as pure data."""
        return {"function": self.function, "of": list(self.of), "field": self.field.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Derived:
        """The column of its pure-data form."""
        return cls(data["function"], tuple(data["of"]), field_from_json(data["field"]))


def derived(field: Field, *, of: list[str] | tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a function as a derived column.

        @derived(String(), of=["ip"])
        def country(ip: pyarrow.Array) -> pyarrow.Array: ...

    It must be pure: the same input gives the same output, on any machine, at any time, or a rebuild would give other numbers. What the field cannot
    hold (text that is too long or not in the Enum, a number out of range) counts as null. Raises DeclarationError.
    """
    if not isinstance(field, Field):
        raise DeclarationError(f"derived column: {field!r} is not a field", hint="@derived(String(nullable=True), of=[...])")
    if isinstance(of, str) or not of:
        raise DeclarationError(
            f"derived column: of={of!r} is not a list of fields", hint='name what the function takes, in its order: of=["ip"]'
        )

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.penstock = Derived(f"{function.__module__}:{function.__qualname__}", tuple(of), field)  # type: ignore[attr-defined]
        return function

    return mark


def derived_of(function: Any, what: str) -> Derived:
    """The column that a marked function stands for. Raises DeclarationError for any other."""
    if isinstance(function, Derived):
        return function
    column = getattr(function, "penstock", None)
    if not isinstance(column, Derived):
        raise DeclarationError(f"{what}: {function!r} is not a derived column", hint="mark the function with @derived(String(), of=[...])")
    if "<" in column.function or column.function.startswith("__main__:"):
        raise DeclarationError(
            f"{what}: {column.function} cannot be imported by a worker", hint="define it at the top level of a module of the project"
        )
    return column
