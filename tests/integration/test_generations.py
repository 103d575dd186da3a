"""A changed definition: refused without a start, filled beside the one that is served, published, counted on."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock import ArchiveBolt, By, Count, Enum, Int, KafkaSpout, Ratio, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology
from penstock.deployment import Deployment
from penstock.errors import NotFoundError, UsageError
from penstock.log.producer import Producer
from penstock.query.analytics import Analytics
from penstock.rollup.registry import Registry
from penstock.runner.local import LocalRunner, prepare

FIELDS = {"ts": Timestamp("ms"), "shop": Int(), "kind": Enum("view", "sale"), "price": Int(default=0)}
EVENTS = Schema("events", time="ts", lateness="1h", fields=FIELDS)
KEEP = {"1m": "50y", "1h": "60y"}
START = 1_699_999_200_000
OLD: dict[str, Any] = {"views": Count(where={"kind": "view"})}
NEW: dict[str, Any] = {"sales": Count(where={"kind": "sale"}), "views": Count(where={"kind": "view"}), "revenue": Sum("price")}


def topology(*rollups: Rollup, schema: Schema = EVENTS) -> Any:
    live = KafkaSpout.spec(schema)
    detail = KafkaSpout.spec(schema)
    return type(Topology)(
        "Shops",
        (Topology,),
        {"live": live, "rollups": RollupBolt.spec(live, list(rollups)), "detail": detail, "archive": ArchiveBolt.spec(detail)},
    )


def shops(measures: dict[str, Any], keep: dict[str, str] = KEEP, schema: Schema = EVENTS, name: str = "shops") -> Rollup:
    return Rollup(name, of=schema, entity="shop", measures=measures, by=[By(keep=keep)])


@pytest.fixture
def deployment(tmp_path: Path) -> Any:
    with Deployment("test", {"local": str(tmp_path / "data"), "partitions": 2}) as made:
        made.log.create("events", 2)
        yield made


def produce(deployment: Deployment, first: int, count: int) -> list[dict[str, Any]]:
    events = [
        {"ts": START + n * 1000, "shop": n % 3, "kind": "sale" if n % 4 == 0 else "view", "price": n % 11}
        for n in range(first, first + count)
    ]
    with Producer(deployment.log, "events") as producer:
        for event in events:
            producer.send(json.dumps(event).encode(), partition=event["shop"] % 2)
    return events


def run(deployment: Deployment, which: Any, start: str | None = None) -> list[Any]:
    definitions = prepare(which, deployment, start)
    LocalRunner(which, deployment, definitions).run(until_caught_up=True)
    return definitions


def answers(deployment: Deployment, name: str = "shops") -> dict[int, dict[str, Any]]:
    found = {}
    for shop in range(3):
        [found[shop]] = Analytics(deployment).query(name, entity=shop, start="2023-11-14", end="2023-11-20").rows
    return found


def expected(events: list[dict[str, Any]], *names: str) -> dict[int, dict[str, Any]]:
    views, sales, revenue = Counter[int](), Counter[int](), Counter[int]()
    for event in events:
        (sales if event["kind"] == "sale" else views)[event["shop"]] += 1
        revenue[event["shop"]] += event["price"]
    every = {"views": views, "sales": sales, "revenue": revenue}
    return {shop: {name: every[name][shop] for name in names} for shop in range(3)}


def accepted(deployment: Deployment, bolt: str) -> dict[str, int]:
    registry = Registry(deployment.table)
    return {
        generation: sum(control.done.accepted for _, control in registry.shards(bolt, generation))
        for generation in registry.generations(bolt)
    }


def test_a_changed_definition_is_refused_until_it_is_said_where_it_begins(deployment: Deployment) -> None:
    events = produce(deployment, 0, 60)
    run(deployment, topology(shops(OLD)))
    with pytest.raises(UsageError, match="shops.rollups has changed") as caught:
        prepare(topology(shops(NEW)), deployment)
    assert "--from earliest" in (caught.value.hint or "") and "penstock publish" in (caught.value.hint or "")
    assert answers(deployment) == expected(events, "views")


def test_a_new_generation_fills_beside_the_one_that_is_served_until_it_is_published(deployment: Deployment) -> None:
    events = produce(deployment, 0, 100)
    old = topology(shops(OLD)).definitions["rollups"].generation
    run(deployment, topology(shops(OLD)))
    events += produce(deployment, 100, 50)
    changed = topology(shops(NEW))
    new = changed.definitions["rollups"].generation
    definitions = run(deployment, changed, "earliest")
    assert [(one.bolt, one.generation) for one in definitions] == [
        ("shops.rollups", new),
        ("shops.rollups", old),
        ("shops.archive", changed.definitions["archive"].generation),
    ]
    assert accepted(deployment, "shops.rollups") == {old: 150, new: 150}
    assert answers(deployment) == expected(events, "views")  # the old one is served, and went on counting

    events += produce(deployment, 150, 30)
    run(deployment, changed)  # without --from: the generation is known
    assert accepted(deployment, "shops.rollups") == {old: 180, new: 180}
    assert answers(deployment) == expected(events, "views")

    registry = Registry(deployment.table)
    registry.publish("shops.rollups", new)
    assert answers(deployment) == expected(events, "sales", "views", "revenue")
    events += produce(deployment, 180, 10)
    assert [one.generation for one in run(deployment, changed) if one.bolt == "shops.rollups"] == [new]  # the old one rests
    assert accepted(deployment, "shops.rollups") == {old: 180, new: 190}
    assert answers(deployment) == expected(events, "sales", "views", "revenue")

    registry.publish("shops.rollups", old)  # back: what it has is served, and it goes on from where it was
    assert answers(deployment) == expected(events[:180], "views")
    run(deployment, topology(shops(OLD)))
    assert accepted(deployment, "shops.rollups") == {old: 190, new: 190} and answers(deployment) == expected(events, "views")


def test_a_new_generation_from_the_end_counts_only_what_comes(deployment: Deployment) -> None:
    produce(deployment, 0, 40)
    run(deployment, topology(shops(OLD)))
    changed = topology(shops(NEW))
    run(deployment, changed, "latest")
    later = produce(deployment, 40, 20)
    run(deployment, changed)
    Registry(deployment.table).publish("shops.rollups", changed.definitions["rollups"].generation)
    assert answers(deployment) == expected(later, "sales", "views", "revenue")


def test_publishing_a_generation_that_was_never_started_fails(deployment: Deployment) -> None:
    run(deployment, topology(shops(OLD)))
    never = topology(shops(NEW)).definitions["rollups"].generation
    with pytest.raises(NotFoundError, match=f"no generation {never}"):
        Registry(deployment.table).publish("shops.rollups", never)


def test_a_roll_up_that_is_new_is_asked_for_after_it_is_published(deployment: Deployment) -> None:
    events = produce(deployment, 0, 60)
    run(deployment, topology(shops(OLD)))
    changed = topology(shops(OLD), shops(NEW, name="money"))
    run(deployment, changed, "earliest")
    assert [info.name for info in Analytics(deployment).rollups()] == ["shops"]
    with pytest.raises(NotFoundError, match="'money'.*\n.*penstock publish"):
        answers(deployment, "money")
    Registry(deployment.table).publish("shops.rollups", changed.definitions["rollups"].generation)
    assert [info.name for info in Analytics(deployment).rollups()] == ["money", "shops"]
    assert answers(deployment, "money") == expected(events, "sales", "views", "revenue")


def test_keep_and_ratios_change_at_once_and_begin_no_generation(deployment: Deployment) -> None:
    events = produce(deployment, 0, 60)
    run(deployment, topology(shops(NEW, keep={"1m": "2d", "1h": "60y"})))
    wider = topology(shops({**NEW, "rate": Ratio("sales", "views")}))
    assert wider.definitions["rollups"].generation == topology(shops(NEW)).definitions["rollups"].generation
    run(deployment, wider)
    for shop, row in expected(events, "sales", "views", "revenue").items():
        assert answers(deployment)[shop] == {**row, "rate": pytest.approx(row["sales"] / row["views"])}
    [info] = Analytics(deployment).rollups()
    assert info.breakdowns == (((), {"1m": "50y", "1h": "60y"}),)


def test_an_archives_new_generation_archives_beside_the_old_one(deployment: Deployment) -> None:
    produce(deployment, 0, 30)
    run(deployment, topology(shops(OLD)))
    schema = Schema("events", time="ts", lateness="2h", fields=FIELDS)
    changed = topology(shops(OLD, schema=schema), schema=schema)
    run(deployment, changed, "earliest")
    assert sorted(accepted(deployment, "shops.archive").values()) == [30, 30]
    entries = [entry for hour in deployment.archive.hours("events") for entry in deployment.archive.entries("events", hour)]
    by_generation = Counter[str]()
    for entry in entries:
        by_generation[entry.shard.partition("-")[0]] += entry.rows
    assert by_generation == dict.fromkeys(Registry(deployment.table).generations("shops.archive"), 30)


def test_an_old_generation_of_another_topic_goes_on_with_its_own(deployment: Deployment) -> None:
    run(deployment, topology(shops(OLD)))
    old = Registry(deployment.table).definition("shops.rollups", topology(shops(OLD)).definitions["rollups"].generation)
    renamed = Schema("renamed", time="ts", lateness="1h", fields=FIELDS)
    prepare(topology(shops(OLD, schema=renamed), schema=renamed), deployment, "earliest")
    wrong = [shard for shard, _ in Registry(deployment.table).shards(old.bolt, old.generation) if shard.topic != "events"]
    if wrong:
        raise NotFoundError(f"made for another topic: {[dataclasses.astuple(shard) for shard in wrong]}")
