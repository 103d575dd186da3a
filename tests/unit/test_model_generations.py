"""Generations: what makes another one and what does not; pure data that survives JSON in the same order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Callable

import pyarrow as pa
import pytest

from penstock import Bool, By, Count, Decimal, Enum, Int, Max, Min, Ratio, Rollup, Schema, String, Sum, Timestamp, Uniques, derived
from penstock.bolts import ArchiveBolt, RollupBolt


@derived(String(default="?"), of=["country"])
def continent(country: pa.Array) -> pa.Array:
    return country


@derived(String(default="?"), of=["country"])
def region(country: pa.Array) -> pa.Array:
    return country


FIELDS: dict[str, Any] = {
    "zeta": String(max_bytes=100),
    "ts": Timestamp("iso8601", path=("meta", "t.s")),
    "advertiser": Int(path="adv.id"),
    "user": Int(nullable=True),
    "type": Enum("view", "click"),
    "country": String(default="??"),
    "cost": Decimal(4, nullable=True),
    "ok": Bool(source="header:ok", default=False),
    "at": Timestamp("ms", source="record"),
    "k": String(source="key"),
}
MEASURES: dict[str, Any] = {
    "views": Count(where={"type": "view"}),
    "clicks": Count(where={"type": ["click"]}),
    "ctr": Ratio("clicks", "views"),
    "spend": Sum("cost"),
    "reach": Uniques("user", precision=12),
    "first": Min("ts"),
    "dearest": Max("cost", where={"not": {"type": "view"}}),
}
KEEP = {"1m": "3d", "1h": "90d"}


def schema(**changed: Any) -> Schema:
    given: dict[str, Any] = {
        "time": "ts",
        "lateness": "1h",
        "ahead": "2h",
        "key": "advertiser",
        "format": "msgpack",
        "derive": {"area": continent},
        "fields": FIELDS,
    }
    return Schema(changed.pop("name", "ads"), **{**given, **changed})


def rollup(**changed: Any) -> Rollup:
    given: dict[str, Any] = {
        "of": schema(),
        "entity": "advertiser",
        "measures": MEASURES,
        "where": {"any": [{"ok": True}, {"cost": {"gt": "0.5"}}]},
        "by": [By(keep=KEEP), By("area", "type", keep={"1h": "90d", "1d": "5y"})],
    }
    return Rollup(changed.pop("name", "r"), **{**given, **changed})


def fields(**changed: Any) -> Schema:
    return schema(fields={name: one for name, one in {**FIELDS, **changed}.items() if one is not None})


def measures(**changed: Any) -> Rollup:
    return rollup(measures={name: one for name, one in {**MEASURES, **changed}.items() if one is not None})


OTHER: dict[str, Callable[[], Rollup]] = {
    "another name": lambda: rollup(name="q"),
    "another entity": lambda: rollup(entity="type", by=[By(keep=KEEP), By("area", keep=KEEP)]),
    "another filter": lambda: rollup(where={"ok": True}),
    "no filter": lambda: rollup(where=None),
    "a measure more": lambda: measures(n=Count()),
    "a measure less": lambda: measures(spend=None),
    "a measure's name": lambda: measures(spend=None, cost=Sum("cost")),
    "a measure's filter": lambda: measures(views=Count(where={"type": "click"})),
    "a measure's field": lambda: measures(reach=Uniques("advertiser", precision=12)),
    "a measure's kind": lambda: measures(first=Max("ts")),
    "a sketch's size": lambda: measures(reach=Uniques("user", precision=11)),
    "measures in another order": lambda: rollup(measures=dict(reversed(MEASURES.items()))),
    "breakdowns in another order": lambda: rollup(by=list(reversed(rollup().by))),
    "dimensions in another order": lambda: rollup(by=[By(keep=KEEP), By("type", "area", keep={"1h": "90d", "1d": "5y"})]),
    "a breakdown less": lambda: rollup(by=[By(keep=KEEP)]),
    "a finer granularity": lambda: rollup(by=[By(keep=KEEP), By("area", "type", keep={"1m": "9d", "1h": "90d", "1d": "5y"})]),
    "a coarser granularity": lambda: rollup(by=[By(keep={**KEEP, "1d": "5y"}), By("area", "type", keep={"1h": "90d", "1d": "5y"})]),
    "the lateness": lambda: rollup(of=schema(lateness="2h")),
    "how far ahead": lambda: rollup(of=schema(ahead="1h")),
    "the format": lambda: rollup(of=schema(format="json")),
    "the event time": lambda: rollup(of=schema(time="at")),
    "a derived column's function": lambda: rollup(of=schema(derive={"area": region})),
    "a field's path": lambda: rollup(of=fields(advertiser=Int(path="advertiser"))),
    "a field's unit": lambda: rollup(of=fields(ts=Timestamp("ms", path=("meta", "t.s")))),
    "a field's default": lambda: rollup(of=fields(country=String(default="XX"))),
    "whether it may be null": lambda: rollup(of=fields(user=Int())),
    "a field's source": lambda: rollup(of=fields(k=String(source="header:k"))),
    "an Enum's order": lambda: rollup(of=fields(type=Enum("click", "view"))),
    "a decimal's scale": lambda: rollup(of=fields(cost=Decimal(5, nullable=True))),
    "how long text may be": lambda: rollup(of=fields(zeta=String(max_bytes=99))),
    "a field more, which is checked too": lambda: rollup(of=fields(page=String())),
    "fields in another order": lambda: rollup(of=schema(fields=dict(sorted(FIELDS.items())))),
}
SAME: dict[str, Callable[[], Rollup]] = {
    "declared again": rollup,
    "kept longer": lambda: rollup(by=[By(keep={"1m": "30d", "1h": "5y"}), By("area", "type", keep={"1h": "180d", "1d": "10y"})]),
    "granularities written in another order": lambda: rollup(
        by=[By(keep=dict(reversed(KEEP.items()))), By("area", "type", keep={"60m": "90d", "24h": "5y"})]
    ),
    "no ratio": lambda: measures(ctr=None),
    "another ratio": lambda: measures(ctr=Ratio("views", "clicks"), cpc=Ratio("spend", "clicks")),
    "durations in other words": lambda: rollup(of=schema(lateness="60m", ahead=7_200_000_000)),
    "through JSON": lambda: Rollup.from_json(json.loads(json.dumps(rollup().to_json(), sort_keys=True))),
}


def generation(made: Rollup) -> str:
    return str(RollupBolt.definition_of(made.schema, [made])["generation"])


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_another_generation(change: Callable[[], Rollup]) -> None:
    assert generation(change()) != generation(rollup())
    assert change().fingerprint != rollup().fingerprint


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_generation(change: Callable[[], Rollup]) -> None:
    assert generation(change()) == generation(rollup())


def test_all_the_others_differ_from_each_other() -> None:
    assert len({generation(change()) for change in OTHER.values()}) == len(OTHER)


def test_an_archives_generation_is_that_of_its_schema() -> None:
    one = ArchiveBolt.definition_of(schema())["generation"]
    assert one == ArchiveBolt.definition_of(schema())["generation"] != ArchiveBolt.definition_of(schema(lateness="2h"))["generation"]
    assert (
        one != ArchiveBolt.definition_of(schema(fields=dict(reversed(FIELDS.items()))))["generation"]
    )  # the files' columns have another order


def test_order_and_every_setting_survive_json_with_sorted_keys() -> None:
    made = rollup()
    again = Rollup.from_json(json.loads(json.dumps(made.to_json(), sort_keys=True)))
    assert again.to_json() == made.to_json()
    assert list(again.schema.fields) == list(FIELDS) and again.schema.fields == FIELDS
    assert list(again.measures) == list(MEASURES) and list(again.stored) == [name for name in MEASURES if name != "ctr"]
    assert again.measures["ctr"] == MEASURES["ctr"] and again.measures["reach"] == MEASURES["reach"]
    assert again.schema.derive == made.schema.derive
    assert [one.keep for one in again.by] == [one.keep for one in made.by]


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_model_generations as t; "
        "print(t.rollup().fingerprint, t.generation(t.rollup()), t.schema().fingerprint)"
    )
    expected = f"{rollup().fingerprint} {generation(rollup())} {schema().fingerprint}"
    folder = os.path.dirname(__file__)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, folder], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "77")
    ]
    assert [process.communicate()[0].strip() for process in running] == [expected, expected]


def test_a_fingerprint_is_16_hex_digits_and_pinned() -> None:
    """Changing how a fingerprint is made makes every running bolt another generation: not by accident."""
    pinned = Rollup(
        "r",
        of=Schema("s", time="t", fields={"t": Timestamp(), "k": Int()}),
        entity="k",
        measures={"n": Count()},
        by=[By(keep={"1h": "9d"})],
    )
    assert pinned.fingerprint == "63654b07e3dbb55f"
