"""Declarations that work, and those that are refused with the name of what is wrong and the fix."""

from __future__ import annotations

import decimal
from typing import Any, Callable

import pyarrow as pa
import pytest

from penstock import (
    ArchiveBolt,
    Bool,
    By,
    Count,
    Decimal,
    Enum,
    Int,
    KafkaSpout,
    Max,
    Min,
    PenstockError,
    Ratio,
    Rollup,
    RollupBolt,
    Schema,
    String,
    Sum,
    Timestamp,
    Topology,
    Uniques,
    UsageError,
    derived,
)
from penstock.errors import DeclarationError
from penstock.model.units import DAY, HOUR, MINUTE

FIELDS = {
    "ts": Timestamp("ms"),
    "seen": Timestamp("s", nullable=True),
    "advertiser": Int(),
    "user": Int(nullable=True),
    "type": Enum("view", "click"),
    "country": String(),
    "cost": Decimal(6),
    "ok": Bool(),
}


@derived(String(nullable=True), of=["country"])
def continent(country: pa.Array) -> pa.Array:
    return country


@derived(String(), of=["country"])
def neither(country: pa.Array) -> pa.Array:
    return country


@derived(String(default="?"), of=["city"])
def of_nothing(city: pa.Array) -> pa.Array:
    return city


def schema(**changed: Any) -> Schema:
    return Schema(changed.pop("name", "ads"), **{"time": "ts", "fields": FIELDS, "lateness": "1d", **changed})


def rollup(**changed: Any) -> Rollup:
    given = {"of": schema(), "entity": "advertiser", "measures": {"events": Count()}, "by": [By(keep={"1h": "90d"})]}
    return Rollup(changed.pop("name", "by_advertiser"), **{**given, **changed})


def field(**fields: Any) -> Schema:
    return schema(fields={**FIELDS, **fields})


def test_the_design_documents_example_is_accepted_as_it_stands() -> None:
    ads = Schema(
        "ads",
        time="ts",
        lateness="1d",
        fields={
            "ts": Timestamp("ms"),
            "event_id": String(),
            "advertiser": Int(path="advertiser_id"),
            "user": Int(path="user_id"),
            "type": Enum("impression", "click", "save", "conversion"),
            "campaign": Int(path="campaign_id"),
            "country": String(default="??"),
            "cost": Decimal(6, nullable=True),
        },
    )

    by_advertiser = Rollup(
        "by_advertiser",
        of=ads,
        entity="advertiser",
        measures={
            "impressions": Count(where={"type": "impression"}),
            "clicks": Count(where={"type": "click"}),
            "spend": Sum("cost"),
            "reach": Uniques("user"),
        },
        by=[
            By(keep={"1m": "3d", "1h": "90d", "1d": "5y"}),
            By("country", keep={"1h": "90d", "1d": "5y"}),
            By("campaign", "country", keep={"1d": "5y"}),
        ],
    )

    class AdvertiserAnalytics(Topology):
        live = KafkaSpout.spec(ads)
        rollups = RollupBolt.spec(live, [by_advertiser], flush="5s")
        detail = KafkaSpout.spec(ads)
        archive = ArchiveBolt.spec(detail)

    assert AdvertiserAnalytics.topology_name == "advertiser_analytics"
    assert list(AdvertiserAnalytics.definitions) == ["rollups", "archive"]
    assert by_advertiser.widths() == (MINUTE, HOUR, DAY)
    assert dict(by_advertiser.tables()) == {
        "by_advertiser_1m": (3 + 1 + 7) * DAY,
        "by_advertiser_1h": (90 + 1 + 7) * DAY,
        "by_advertiser_1d": (5 * 365 + 1 + 7) * DAY,
    }
    assert by_advertiser.reads() == {"advertiser", "user", "type", "campaign", "country", "cost"}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # schemas
    "a name that is no identifier": (lambda: schema(name="Ads-2"), "'Ads-2'"),
    "a name that a warehouse table of another schema has": (lambda: schema(name="ads_late"), "'ads_late'"),
    "a name of Penstock's own": (lambda: schema(name="penstock_x"), "'penstock_x'"),
    "fields that are no mapping": (lambda: schema(fields=[("ts", Timestamp())]), "fields"),
    "a field's class instead of a field": (lambda: field(kind=Int), "'kind'"),
    "a field that is something else": (lambda: field(kind="int"), "'kind'"),
    "a field name that is no identifier": (lambda: field(**{"User Id": Int()}), "'User Id'"),
    "a reserved field name": (lambda: field(log_offset=Int()), "'log_offset'"),
    "a filter's word as a field name": (lambda: field(any=Int()), "'any'"),
    "an unknown source": (lambda: field(x=Int(source="topic")), "'topic'"),
    "a number out of the record's timestamp": (lambda: field(x=Int(source="record")), "Timestamp"),
    "a path into the key": (lambda: field(x=String(source="key", path="a")), "path"),
    "an empty path": (lambda: field(x=Int(path="a..b")), "'a..b'"),
    "a default of another type": (lambda: field(x=Int(default="1")), "'1'"),
    "a default beyond 64 bits": (lambda: field(x=Int(default=2**63)), "64 bits"),
    "a default that is no member": (lambda: field(x=Enum("a", "b", default="c")), "'c'"),
    "a default that is too long": (lambda: field(x=String(max_bytes=2, default="äö")), "2 bytes"),
    "a default with too many places": (lambda: field(x=Decimal(2, default="0.125")), "'0.125'"),
    "a default with too many digits": (lambda: field(x=Decimal(2, default=10**16)), "18 digits"),
    "a default before 1970": (lambda: field(x=Timestamp(default=-1)), "1970"),
    "true as a number": (lambda: field(x=Int(default=True)), "True"),
    "text of no length": (lambda: field(x=String(max_bytes=0)), "max_bytes"),
    "text longer than a VARCHAR": (lambda: field(x=String(max_bytes=65536)), "65536"),
    "an Enum of nothing": (lambda: field(x=Enum()), "'x'"),
    "an Enum with a text twice": (lambda: field(x=Enum("a", "a")), "'x'"),
    "an Enum of numbers": (lambda: field(x=Enum(1, 2)), "'x'"),  # type: ignore[arg-type]
    "an unknown unit of time": (lambda: field(x=Timestamp("ns")), "'ns'"),
    "a scale that is too fine": (lambda: field(x=Decimal(13)), "13"),
    "a field inside another": (lambda: field(user=Int(), name=String(path="user.name")), "'name'"),
    "a time that is not a field": (lambda: schema(time="when"), "'when'"),
    "a time that is a number": (lambda: schema(time="advertiser"), "'advertiser'"),
    "a time that may be null": (lambda: schema(time="seen"), "'seen'"),
    "a lateness that is no duration": (lambda: schema(lateness="1 day"), "lateness"),
    "a negative lateness": (lambda: schema(lateness=-1), "lateness"),
    "a negative ahead": (lambda: schema(ahead=-1), "ahead"),
    "a key that is not a field": (lambda: schema(key="page"), "'page'"),
    "an unknown format": (lambda: schema(format="avro"), "'avro'"),
    # derived columns
    "a plain function as a derived column": (lambda: schema(derive={"x": len}), "'x'"),
    "a derived column that may be null and says nothing of it": (lambda: schema(derive={"x": neither}), "'x'"),
    "a derived column of a field that is not there": (lambda: schema(derive={"x": of_nothing}), "'city'"),
    "a derived column called like a field": (lambda: schema(derive={"type": continent}), "'type'"),
    "a derived column called like its own field": (lambda: schema(derive={"country": continent}), "'country'"),
    "a derived column inside a function": (lambda: schema(derive={"x": derived(String(default=""), of=["country"])(lambda c: c)}), "'x'"),
    "a derived column of a class of field": (lambda: derived(String, of=["country"]), "String"),  # type: ignore[arg-type]
    "a derived column of one text": (lambda: derived(String(default=""), of="country"), "'country'"),
    "a derived column of nothing": (lambda: derived(String(default=""), of=[]), "of="),
    # breakdowns
    "no granularity": (lambda: By(keep={}), "keep"),
    "a granularity that there is not": (lambda: By(keep={"7m": "1d"}), "'7m'"),
    "a granularity that is no duration": (lambda: By(keep={"hour": "1d"}), "'hour'"),
    "granularities that do not fit into each other": (lambda: By(keep={"10m": "9d", "15m": "9d"}), "'15m'"),
    "a granularity twice": (lambda: By(keep={"60m": "9d", "1h": "8d"}), "'1h'"),
    "a keep of less than a window": (lambda: By(keep={"1d": "1h"}), "'1d'"),
    "a list of dimensions": (lambda: By(["country"], keep={"1h": "1d"}), "'country'"),  # type: ignore[arg-type]
    # roll-ups
    "a roll-up's name that is no identifier": (lambda: rollup(name="by advertiser"), "'by advertiser'"),
    "a roll-up of no schema": (lambda: rollup(of="ads"), "'ads'"),
    "an entity that is not a field": (lambda: rollup(entity="page"), "'page'"),
    "an entity that may be null": (lambda: rollup(entity="user"), "'user'"),
    "no measures": (lambda: rollup(measures={}), "measures"),
    "measures without names": (lambda: rollup(measures=[Count()]), "measures"),
    "a measure's class": (lambda: rollup(measures={"n": Count}), "'n'"),
    "a measure's name that is no identifier": (lambda: rollup(measures={"N": Count()}), "'N'"),
    "a sum of text": (lambda: rollup(measures={"n": Sum("country")}), "'country'"),
    "a sum of instants": (lambda: rollup(measures={"n": Sum("ts")}), "'ts'"),
    "a sum of nothing": (lambda: rollup(measures={"n": Sum("price")}), "'price'"),
    "a smallest text": (lambda: rollup(measures={"n": Min("country")}), "'country'"),
    "a largest truth": (lambda: rollup(measures={"n": Max("ok")}), "'ok'"),
    "uniques of a Bool": (lambda: rollup(measures={"n": Uniques("ok")}), "'n'"),
    "a sketch that is too small": (lambda: rollup(measures={"n": Uniques("user", precision=3)}), "3"),
    "a sketch that is too large": (lambda: rollup(measures={"n": Uniques("user", precision=17)}), "17"),
    "a ratio alone": (lambda: rollup(measures={"n": Ratio("a", "b")}), "'a'"),
    "a ratio of a ratio": (lambda: rollup(measures={"a": Count(), "b": Ratio("a", "a"), "c": Ratio("b", "a")}), "'b'"),
    "no breakdown": (lambda: rollup(by=[]), "breakdown"),
    "a breakdown that is a text": (lambda: rollup(by=["country"]), "'country'"),
    "a breakdown by what is not a field": (lambda: rollup(by=[By("page", keep={"1h": "90d"})]), "'page'"),
    "a breakdown by the entity": (lambda: rollup(by=[By("advertiser", keep={"1h": "90d"})]), "'advertiser'"),
    "a dimension twice": (lambda: rollup(by=[By("type", "type", keep={"1h": "90d"})]), "'type'"),
    "a breakdown twice, in another order": (
        lambda: rollup(by=[By("type", "country", keep={"1h": "9d"}), By("country", "type", keep={"1d": "9d"})]),
        "twice",
    ),
    "minutes that are gone before the hour is folded": (lambda: rollup(by=[By(keep={"1m": "24h", "1h": "90d"})]), "1m"),
    # filters
    "a filter of a field that is not there": (lambda: rollup(measures={"n": Count(where={"typ": "click"})}), "'typ'"),
    "a filter that is no mapping": (lambda: rollup(where="type = click"), "filter"),
    "an empty filter": (lambda: rollup(where={}), "filter"),
    "a filter for what is no member": (lambda: rollup(where={"type": "clik"}), "'clik'"),
    "an unknown operator": (lambda: rollup(where={"cost": {">": 3}}), "'>'"),
    "an order of texts without one": (lambda: rollup(where={"type": {"lt": "view"}}), "'lt'"),
    "any of one": (lambda: rollup(where={"any": {"type": "click"}}), '"any"'),
    "any of none": (lambda: rollup(where={"any": []}), '"any"'),
    "in a text": (lambda: rollup(where={"country": {"in": "DE"}}), "'DE'"),
    "in a set": (lambda: rollup(where={"country": {"in": {"DE"}}}), "'country'"),
    "a filter inside not": (lambda: rollup(where={"not": {"typ": 1}}), "'typ'"),
    "a decimal that is not exact": (lambda: rollup(where={"cost": "0.1234567"}), "'0.1234567'"),
    "a decimal beyond all bounds": (lambda: rollup(where={"cost": "1e999999999"}), "'1e999999999'"),
    "not a number": (lambda: rollup(where={"cost": float("nan")}), "nan"),
    "less than null": (lambda: rollup(where={"cost": {"lt": None}}), "None"),
}


@pytest.mark.parametrize("declare, named", REFUSED.values(), ids=REFUSED)
def test_is_refused_with_the_name_and_the_fix(declare: Callable[[], Any], named: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert named in caught.value.message
    assert caught.value.hint and len(caught.value.hint) > 8
    assert isinstance(caught.value, (UsageError, PenstockError)) and isinstance(caught.value, ValueError)
    assert str(caught.value) == f"{caught.value.message}\n  {caught.value.hint}"


@pytest.mark.parametrize("keep, fine", [("25h", True), ("24h", False), ("1d", False), ("90000s", True), ("89999s", False)])
def test_minutes_must_outlive_the_hour_that_is_folded_from_them_by_the_lateness(keep: str, fine: bool) -> None:
    by = [By(keep={"1m": keep, "1h": "90d"})]
    if fine:
        rollup(by=by)
    else:
        with pytest.raises(DeclarationError, match="1h plus the schema's lateness"):
            rollup(by=by)


def test_the_finest_granularity_comes_first_however_it_is_written() -> None:
    assert By(keep={"1d": "5y", "1m": "3d", "1h": "90d"}).widths == (MINUTE, HOUR, DAY)
    assert rollup(by=By("country", keep={"1h": "9d"})).by[0].dimensions == ("country",)


def test_a_granularity_lays_out_rows_of_an_hour_a_day_or_32_days() -> None:
    from penstock.model import Granularity
    from penstock.model.rollup import GRANULARITIES

    for width in GRANULARITIES:
        span = Granularity(width).span
        assert span * width == (HOUR if width < HOUR else DAY if width < DAY else 32 * DAY)
    assert Granularity(HOUR).name == "1h"


def test_decimals_of_pythons_own_are_recorded_as_text() -> None:
    made = rollup(
        of=field(price=Decimal(2, default=decimal.Decimal("0.50"))),
        where={"price": {"gt": decimal.Decimal("1.5")}},
        measures={"n": Count(where={"price": [decimal.Decimal("2")]})},
    )
    again = Rollup.from_json(made.to_json())
    assert again.fingerprint == made.fingerprint
    assert again.schema.fields["price"].canonical(again.schema.fields["price"].default) == 50
    assert made.to_json()["where"] == {"price": {"gt": "1.5"}}


def test_a_derived_function_is_found_by_its_name() -> None:
    column = schema(derive={"area": continent}).derive["area"]
    assert column.function.endswith("test_model_declarations:continent") and column.load() is continent
    with pytest.raises(DeclarationError, match="nowhere.at_all:f cannot be imported"):
        type(column)("nowhere.at_all:f", ("country",), String(default="")).load()


def test_sources_are_what_must_be_decoded_for_the_columns_wanted() -> None:
    made = schema(derive={"area": continent})
    assert made.sources({"area"}) == ["ts", "country"]
    assert made.sources({"cost", "advertiser"}) == ["ts", "advertiser", "cost"]
    assert list(made.columns)[-1] == "area"
