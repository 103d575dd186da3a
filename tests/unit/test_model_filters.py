"""Filters: their canonical form, what passes, and the same by the kernels' masks."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_cases import column_of

from penstock.kernels import Columns, mask
from penstock.model import Bool, Decimal, Enum, Field, Int, String, Timestamp, check_filter, fields_of, matches
from penstock.model.filters import plain_filter

FIELDS: dict[str, Field] = {
    "n": Int(nullable=True),
    "s": String(nullable=True),
    "e": Enum("a", "b", "é", nullable=True),
    "t": Timestamp("ms", nullable=True),
    "d": Decimal(2, nullable=True),
    "b": Bool(nullable=True),
}
USUAL = {
    "n": st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1]),
    "s": st.sampled_from(["", "a", "b", "ä", "a\0"]),
    "e": st.sampled_from(["a", "b", "é"]),
    "t": st.integers(0, 3),
    "d": st.integers(-3, 3),
    "b": st.booleans(),
}  # canonical
ORDERED = ("n", "s", "t", "d")


def written(name: str, value: Any) -> Any:
    """A canonical value as a user writes it."""
    return str(decimal.Decimal(value).scaleb(-2)) if name == "d" else value


@st.composite
def conditions(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    """A condition as written, and what it means of one record: a function written here, apart from the model's."""
    name = draw(st.sampled_from(sorted(FIELDS)))
    value = draw(USUAL[name])
    kind = draw(
        st.sampled_from(
            ["plain", "list", "null", "not null", "eq", "ne", "in", *(["lt", "le", "gt", "ge", "between"] if name in ORDERED else [])]
        )
    )
    text = written(name, value)
    if kind == "null":
        return {name: None}, lambda r: r[name] is None
    if kind == "not null":
        return {name: {"ne": None}}, lambda r: r[name] is not None
    if kind in ("plain", "eq"):
        return {name: text if kind == "plain" else {"eq": text}}, lambda r: r[name] is not None and r[name] == value
    if kind == "ne":
        return {name: {"ne": text}}, lambda r: r[name] is not None and r[name] != value
    if kind in ("list", "in"):
        some = draw(st.lists(USUAL[name], max_size=3))
        several = [written(name, one) for one in some]
        return {name: several if kind == "list" else {"in": several}}, lambda r: r[name] is not None and any(r[name] == one for one in some)
    if kind == "between":
        other = draw(USUAL[name])
        return {name: {"ge": text, "lt": written(name, other)}}, lambda r: r[name] is not None and not r[name] < value and r[name] < other
    order = {"lt": (-1,), "le": (-1, 0), "gt": (1,), "ge": (0, 1)}[kind]
    return {name: {kind: text}}, lambda r: r[name] is not None and (r[name] > value) - (r[name] < value) in order


@st.composite
def filters(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], Any]:
    data: dict[str, Any] = {}
    means = []
    for _ in range(draw(st.integers(1, 2))):
        one, mean = draw(conditions())
        if not set(one) & set(data):
            data.update(one)
            means.append(mean)
    if depth and draw(st.booleans()):
        several = draw(st.lists(filters(depth - 1), min_size=1, max_size=2))
        data["any"] = [one for one, _ in several]
        means.append(lambda r, several=several: any(mean(r) for _, mean in several))
    if depth and draw(st.booleans()):
        inner, mean = draw(filters(depth - 1))
        data["not"] = inner
        means.append(lambda r, mean=mean: not mean(r))
    return data, lambda r: all(mean(r) for mean in means)


RECORDS = st.lists(st.fixed_dictionaries({name: st.none() | value for name, value in USUAL.items()}), min_size=1, max_size=8)


def columns_of(records: list[dict[str, Any]]) -> Columns:
    return Columns(
        {name: column_of(one, [record[name] for record in records]) for name, one in FIELDS.items()}, np.zeros(len(records), np.int32)
    )


@settings(max_examples=300, deadline=None)
@given(filters(), RECORDS)
def test_a_filter_means_what_it_says_to_the_model_and_to_the_kernels(
    case: tuple[dict[str, Any], Any], records: list[dict[str, Any]]
) -> None:
    data, mean = case
    checked = check_filter(data, FIELDS, "test")
    expected = [mean(record) for record in records]
    assert [matches(checked, record.__getitem__) for record in records] == expected
    assert mask(checked, columns_of(records)).astype(bool).tolist() == expected
    assert fields_of(checked) == fields_of(data)
    assert check_filter(plain_filter(data), FIELDS, "test") == checked


def test_the_canonical_form() -> None:
    assert check_filter(
        {"e": ["b", "a", "b"], "d": {"gt": "0.5", "le": 10}, "any": [{"s": None}, {"n": 3}], "not": {"b": True}}, FIELDS, "w"
    ) == {
        "e": {"in": ["a", "b"]},
        "d": {"gt": 50, "le": 1000},
        "any": [{"s": {"eq": None}}, {"n": {"eq": 3}}],
        "not": {"b": {"eq": True}},
    }


@settings(max_examples=300, deadline=None)
@example(decimal.Decimal("1.00000000000000000000000000001"), 6)
@example(decimal.Decimal("-0.0"), 0)
@example(decimal.Decimal(10) ** 18, 0)
@example(decimal.Decimal("99999999999999999.9"), 1)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**16), max_value=10**16), st.integers(0, 12))
def test_a_decimal_is_held_exactly_or_refused(value: decimal.Decimal, scale: int) -> None:
    with decimal.localcontext(decimal.Context(prec=100)):
        exact = value * 10**scale
        fits = exact == exact.to_integral_value() and abs(exact) < 10**18
    for given_as in (value, str(value)):
        if fits:
            assert Decimal(scale).canonical(given_as) == int(exact)
        else:
            with pytest.raises(ValueError, match=f"more than {scale} places or more than 18 digits"):
                Decimal(scale).canonical(given_as)


@pytest.mark.parametrize("value", ["", "1,5", "abc", True, None, [1], "sNaN", "NaN", "inf", "-Infinity", "1e999999999", "1e-999999999"])
def test_what_is_no_decimal_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        Decimal(6).canonical(value)


def test_a_float_means_the_number_that_is_written() -> None:
    assert Decimal(6).canonical(0.1) == 100_000
    assert Decimal(2).canonical("1e3") == 100_000
