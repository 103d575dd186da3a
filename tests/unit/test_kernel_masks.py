"""Filters over a batch against the same filter asked of each record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import INTS, ROLLUPS, SCHEMA, TEXTS, TIMES, columns_of

from penstock.kernels.masks import mask
from penstock.kernels.plan import RollupPlan
from penstock.model import By, Count, Rollup, check_filter, matches

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "account": st.sampled_from(INTS),
    "page": st.sampled_from(TEXTS),
    "agent": st.sampled_from(TEXTS) | st.text(max_size=3),
    "flag": st.booleans(),
    "type": st.sampled_from(["view", "click", "buy"]),
    "device": st.sampled_from(["phone", "desk\0top\1"]),
    "user": st.sampled_from(INTS),
    "cost": st.integers(-5, 5),
    "seen": st.sampled_from(TIMES),
    "ts": st.sampled_from(TIMES),
}
RECORDS = st.lists(
    st.fixed_dictionaries({name: values | st.none() if SCHEMA.columns[name].nullable else values for name, values in VALUES.items()}),
    max_size=12,
)


def conditions(name: str) -> st.SearchStrategy[dict[str, Any]]:
    values = VALUES[name]
    ops = ["eq", "ne"] if SCHEMA.columns[name].kind in ("bool", "enum") else ["eq", "ne", "lt", "le", "gt", "ge"]
    one = st.dictionaries(st.sampled_from(ops), values, min_size=0, max_size=2)
    several = st.lists(values, max_size=3).map(lambda some: {"in": some})
    null = st.sampled_from([{"eq": None}, {"ne": None}])
    return (one | several | null).map(lambda condition: {name: condition})


PLAIN = st.sampled_from(sorted(VALUES)).flatmap(conditions)
FILTERS = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"any": some}),
        inner.map(lambda one: {"not": one}),
        st.tuples(inner, PLAIN).map(lambda two: {**two[0], **two[1]}),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(FILTERS, RECORDS)
def test_a_mask_is_the_filter_asked_of_each_record(data: dict[str, Any], records: list[dict[str, Any]]) -> None:
    checked = check_filter(data, SCHEMA.columns, "filter")
    passed = mask(checked, columns_of(SCHEMA.columns, records))
    assert passed.dtype == np.uint8
    assert passed.tolist() == [int(matches(checked, record.__getitem__)) for record in records]


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.name)
def test_a_plan_numbers_each_different_filter_once(rollup: Rollup) -> None:
    plan = RollupPlan(rollup)
    assert all(one not in plan.filters[:index] for index, one in enumerate(plan.filters))
    assert [one.name for one in plan.measures] == list(rollup.stored)
    for one in plan.measures:
        declared = rollup.measures[one.name].where
        assert (one.filter == -1) == (declared is None)
        assert declared is None or plan.filters[one.filter] == check_filter(declared, SCHEMA.columns, one.name)
    assert [(one.keys, one.width, one.table) for one in plan.breakdowns] == [
        ((rollup.entity, *by.dimensions), min(by.keep), rollup.table(min(by.keep))) for by in rollup.by
    ]


def test_filters_written_differently_are_one() -> None:
    measures = {
        "a": Count(where={"type": "view", "cost": 1}),
        "b": Count(where={"cost": {"eq": "1"}, "type": {"eq": "view"}}),
        "c": Count(where={"type": ["buy", "view"]}),
        "d": Count(where={"type": {"in": ["view", "buy", "view"]}}),
    }
    plan = RollupPlan(
        Rollup("r", of=SCHEMA, entity="account", measures=measures, by=[By(keep={"1m": "3d"})], where={"type": ["view", "buy"]})
    )
    assert [one.filter for one in plan.measures] == [plan.measures[0].filter] * 2 + [plan.where] * 2 and len(plan.filters) == 2
