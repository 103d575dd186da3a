"""A value as a command line gives it, by the kind of field it is for."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import pytest

from penstock.errors import QueryError
from penstock.kernels import RollupPlan
from penstock.model import Bool, By, Count, Decimal, Enum, Field, Int, Rollup, Schema, String, Sum, Timestamp
from penstock.query.request import Question, parse, parse_value


@pytest.mark.parametrize(
    ("field", "given", "canonical"),
    [
        (Int(), "42", 42),
        (Int(), " -7 ", -7),
        (Int(), 42, 42),
        (Int(), str(-(2**63)), -(2**63)),
        (String(), "42", "42"),
        (String(), "", ""),
        (Enum("a", "b"), "b", "b"),
        (Bool(), "True", True),
        (Bool(), False, False),
        (Decimal(2), "1.5", 150),
        (Decimal(2), D("1.50"), 150),
        (Decimal(2), 3, 300),
        (Timestamp("s"), "2024-03-01T00:00:00.500Z", 1709251200500000),
        (Timestamp("s"), 5, 5),
    ],
)
def test_a_text_becomes_what_the_field_holds(field: Field, given: Any, canonical: Any) -> None:
    found = parse_value(field, given, "entity: x")
    assert found == canonical and type(found) is type(canonical)


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        (Int(), "4.2", "entity: x: '4.2' is not a whole number"),
        (Int(), "٤٢", "is not a whole number"),
        (Int(), "1_000", "is not a whole number"),
        (Int(), "9" * 19, "does not fit 64 bits"),
        (Int(), "9" * 9000, "is not a whole number"),
        (Int(), True, "is not a whole number"),
        (Int(), None, "is not a whole number"),
        (Enum("a", "b"), "c", "is not one of a, b"),
        (Bool(), "yes", "is not true or false"),
        (Decimal(2), "1.234", "more than 2 places"),
        (Decimal(2), "x", "is not a number"),
        (Decimal(2), "NaN", "more than 2 places"),
        (Timestamp("s"), "noon", "entity: x: 'noon' is not a time"),
        (String(), 5, "is not text"),
        (String(max_bytes=2), "é" * 2, "longer than 2 bytes"),
    ],
)
def test_what_the_field_cannot_hold_is_refused_by_name(field: Field, given: Any, said: str) -> None:
    with pytest.raises(QueryError) as raised:
        parse_value(field, given, "entity: x")
    assert said in raised.value.message and raised.value.message.startswith("entity: x") and raised.value.hint


schema = Schema(
    "s",
    time="ts",
    fields={
        "ts": Timestamp("ms"),
        "site": Int(),
        "status": Int(),
        "bot": Bool(),
        "seen": Timestamp("ms"),
        "price": Decimal(2),
        "cost": Decimal(2),
    },
)
plan = RollupPlan(
    Rollup(
        "r",
        of=schema,
        entity="site",
        measures={"n": Count(), "spend": Sum("cost")},
        by=[By("status", "bot", "seen", "price", keep={"1h": "90d"})],
    )
)


def asked(**more: Any) -> Question:
    whole: dict[str, Any] = {
        "entity": "7",
        "measures": None,
        "start": "2024-03-01",
        "end": "2024-03-02",
        "interval": None,
        "by": (),
        "where": None,
        "order": None,
        "limit": None,
    }
    return parse(plan, **{**whole, **more})


def test_a_filter_takes_texts_for_every_kind_of_field() -> None:
    question = asked(
        where={
            "status": ["404", 200],
            "bot": "true",
            "seen": {"lt": "2024-03-01"},
            "price": "1.5",
            "not": {"any": [{"status": {"gt": "500"}}]},
        }
    )
    assert question.where == {
        "status": {"in": [200, 404]},
        "bot": {"eq": True},
        "seen": {"lt": 1709251200000000},
        "price": {"eq": 150},
        "not": {"any": [{"status": {"gt": 500}}]},
    }
    assert question.dimensions == {"status", "bot", "seen", "price"}


def test_times_are_utc_unless_they_have_a_zone() -> None:
    assert asked(start="2024-03-01T02:00+02:00").start == asked(start="2024-03-01").start == asked(start=1709251200000000).start
    for outside in ("1969-12-31", 253_402_300_800_000_000, -1):
        with pytest.raises(QueryError, match="start: .* is before 1970 or after 9999"):
            asked(start=outside)


def test_quotients_are_parsed_with_and_without_a_name() -> None:
    names = [one.name for one in asked(measures=["n", "cpm = spend / n", "spend/n"]).outputs]
    assert names == ["n", "cpm", "spend/n"]
    for nonsense in ("n/", "/n", "a=b", "n/n/n", "A=n/spend", 5):
        with pytest.raises(QueryError, match="^measures: "):
            asked(measures=[nonsense])


def test_the_dimensions_of_a_total_cannot_be_filtered() -> None:
    total = RollupPlan(Rollup("r", of=schema, entity="site", measures={"n": Count()}, by=[By(keep={"1h": "90d"})]))
    with pytest.raises(QueryError, match="where: roll-up 'r' has no dimensions"):
        parse(total, entity=1, measures=None, start=0, end=10**10, interval=None, by=(), where={"status": 1}, order=None, limit=None)
    with pytest.raises(QueryError, match="by: roll-up 'r' has no dimension 'status'") as raised:
        parse(total, entity=1, measures=None, start=0, end=10**10, interval=None, by=["status"], where=None, order=None, limit=None)
    assert raised.value.hint == "it has totals only: leave by out"
