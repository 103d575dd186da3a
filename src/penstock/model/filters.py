"""The one filter grammar, as data, for measures, roll-ups, queries and routes.

    {"type": "click"}                          equals
    {"type": ["click", "save"]}                one of
    {"cost": {"gt": "0.5", "le": 10}}          compare: eq ne lt le gt ge in, all that are given
    {"referrer": None}                         is null
    {"type": "click", "country": "DE"}         all of
    {"any": [{...}, {...}]}, {"not": {...}}    one of several; not

A comparison with null is false; so is its `ne`. A filter is checked against the fields once, when it is declared or asked.
"""

from __future__ import annotations

import decimal
import operator
from typing import Any, Callable, Mapping

from penstock.errors import DeclarationError
from penstock.model.fields import Bool, Enum, Field

OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "in")
Filter = Mapping[str, Any]


def check_filter(data: Any, fields: Mapping[str, Field], what: str) -> dict[str, Any]:
    """The filter in its canonical form: every condition as {field: {op: value}}, values as the kernels hold them.

    Raises DeclarationError naming `what`, the field and the fix.
    """
    if not isinstance(data, Mapping) or not data:
        raise DeclarationError(f"{what}: {data!r} is not a filter", hint='write {"field": value}, with "any" and "not" where needed')
    checked: dict[str, Any] = {}
    for name, condition in data.items():
        if name == "any":
            if not isinstance(condition, (list, tuple)) or not condition:
                raise DeclarationError(f'{what}: "any" takes a list of filters', hint='{"any": [{"type": "click"}, {"type": "save"}]}')
            checked["any"] = [check_filter(one, fields, what) for one in condition]
        elif name == "not":
            checked["not"] = check_filter(condition, fields, what)
        elif name not in fields:
            raise DeclarationError(f"{what}: there is no field {name!r}", hint=f"the fields are {', '.join(sorted(fields))}")
        else:
            checked[name] = _condition(name, condition, fields[name], what)
    return checked


def _condition(name: str, condition: Any, field: Field, what: str) -> dict[str, Any]:
    if isinstance(condition, (list, tuple)):
        condition = {"in": condition}
    elif not isinstance(condition, Mapping):
        condition = {"eq": condition}
    result: dict[str, Any] = {}
    for op, value in condition.items():
        if op not in OPERATORS:
            raise DeclarationError(f"{what}: {op!r} is not an operator of field {name!r}", hint=f"use {', '.join(OPERATORS)}")
        if op in ("lt", "le", "gt", "ge") and isinstance(field, (Enum, Bool)):
            raise DeclarationError(f"{what}: field {name!r} has no order, so {op!r} does not apply", hint="use eq, ne or in")
        if op == "in" and not isinstance(value, (list, tuple)):
            raise DeclarationError(
                f'{what}: "in" of field {name!r} takes a list, not {value!r}',
                hint=f'{{"{name}": {{"in": [...]}}}}, or only {{"{name}": [...]}}',
            )
        try:
            if op == "in":
                result[op] = sorted({field.canonical(one) for one in value})
            elif value is None and op in ("eq", "ne"):
                result[op] = None
            else:
                result[op] = field.canonical(value)
        except (ValueError, TypeError) as problem:
            raise DeclarationError(
                f"{what}: {value!r} for field {name!r} {problem}", hint=f"give a value that the field ({field.kind}) can hold"
            ) from None
    return result


def plain_filter(data: Any) -> Any:
    """A filter as it was written, as JSON can hold it: decimals as text."""
    if isinstance(data, Mapping):
        return {name: plain_filter(one) for name, one in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain_filter(one) for one in data]
    return str(data) if isinstance(data, decimal.Decimal) else data


def fields_of(data: Filter) -> set[str]:
    """The fields that a filter reads, checked or not."""
    names: set[str] = set()
    for name, condition in data.items():
        if name == "any":
            names.update(*map(fields_of, condition))
        elif name == "not":
            names |= fields_of(condition)
        else:
            names.add(name)
    return names


def matches(checked: Filter, value_of: Callable[[str], Any]) -> bool:
    """Whether one record (canonical values, None for null) passes. The plain form of what kernels.masks does for a batch."""
    for name, condition in checked.items():
        if name == "any":
            passed = any(matches(one, value_of) for one in condition)
        elif name == "not":
            passed = not matches(condition, value_of)
        else:
            value = value_of(name)
            passed = all(_holds(op, value, wanted) for op, wanted in condition.items())
        if not passed:
            return False
    return True


def _holds(op: str, value: Any, wanted: Any) -> bool:
    if wanted is None:
        return (value is None) == (op == "eq")
    if value is None:
        return False
    return bool(_COMPARE[op](value, wanted))


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "in": lambda value, wanted: value in wanted,
}


__all__ = ["Filter", "OPERATORS", "check_filter", "fields_of", "matches", "plain_filter"]
