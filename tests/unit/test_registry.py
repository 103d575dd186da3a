"""What runs and what is served: definitions, generations, names, positions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from stores import Stores

from penstock import By, Count, Int, Ratio, Rollup, Schema, String, Timestamp
from penstock.bolts import ArchiveBolt, RollupBolt
from penstock.errors import ConfigurationError, NotFoundError, UsageError
from penstock.kernels.encode import encode_list
from penstock.model.units import DAY
from penstock.rollup.control import CONTROL_TABLE, ShardId
from penstock.rollup.registry import BoltDefinition, Registry, resolve_start

SCHEMA = Schema("events", time="ts", lateness="1d", fields={"ts": Timestamp("ms"), "k": Int(), "page": String()})


def counts(name: str = "counts", **changed: Any) -> Rollup:
    return Rollup(
        name,
        **{
            "of": SCHEMA,
            "entity": "k",
            "measures": {"n": Count(), "m": Count(where={"k": 1})},
            "by": [By(keep={"1m": "2d", "1h": "9d"})],
            **changed,
        },
    )


def definition(*rollups: Rollup, bolt: str = "test.rollups") -> BoltDefinition:
    return BoltDefinition(bolt, **RollupBolt.definition_of(SCHEMA, rollups or [counts()]))


@pytest.fixture
def stores() -> Stores:
    made = Stores()
    made.log.create("events", 2)
    for second in range(5):
        made.log.append("events", 0, [encode_list([b"{}"], [second * 1_000_000])])
    return made


@pytest.fixture
def registry(stores: Stores) -> Registry:
    return Registry(stores.table)


def ttls(stores: Stores) -> dict[str, int | None]:
    return {name: stores.table._tables[name].ttl for name in stores.table.tables()}


def starts(registry: Registry, made: BoltDefinition) -> dict[int, int]:
    return {shard.partition: control.start for shard, control in registry.shards(made.bolt, made.generation)}


def test_prepare_makes_tables_control_cells_and_what_readers_need(registry: Registry, stores: Stores) -> None:
    made = definition()
    shards = registry.prepare(made, stores.log, "events")
    assert [shard.partition for shard in shards] == [0, 1] and all(
        shard.incarnation == stores.log.incarnation("events") for shard in shards
    )
    assert ttls(stores) == {
        "control": None,
        "counts_1m": (2 + 1 + 7) * DAY,
        "counts_1h": (9 + 1 + 7) * DAY,
        "counts_index": (9 + 1 + 7) * DAY,
    }
    assert registry.provider("rollup", "counts") == made == registry.definition(made.bolt, made.generation)
    assert (registry.bolts(), registry.generations(made.bolt), registry.published(made.bolt)) == (
        [made.bolt],
        [made.generation],
        made.generation,
    )
    assert registry.names("rollup") == ["counts"] and registry.names("dataset") == []
    for shard, control in registry.shards(made.bolt, made.generation):
        assert control.done.offset == control.flushing == control.start == 0 and control.owner == ""
        assert ShardId.of_row(shard.row) == shard


def test_prepare_again_changes_nothing(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events", "latest")
    before = dict(stores.table.scan(CONTROL_TABLE))
    registry.prepare(definition(), stores.log, "events", "earliest")  # it goes on from where it was
    assert dict(stores.table.scan(CONTROL_TABLE)) == before


@pytest.mark.parametrize(
    "start, expected",
    [
        (None, {0: 0, 1: 0}),
        ("earliest", {0: 0, 1: 0}),
        ("latest", {0: 5, 1: 0}),
        ("1970-01-01T00:00:02.5Z", {0: 3, 1: 0}),
        ("2100-01-01", {0: 5, 1: 0}),
    ],
)
def test_a_first_generation_begins_where_the_user_says(
    registry: Registry, stores: Stores, start: str | None, expected: dict[int, int]
) -> None:
    registry.prepare(definition(), stores.log, "events", start)
    assert starts(registry, definition()) == expected


def test_earliest_is_the_first_offset_that_retention_has_left(registry: Registry, stores: Stores) -> None:
    stores.log.truncate_before("events", 0, 2)
    registry.prepare(definition(), stores.log, "events")
    assert starts(registry, definition()) == {0: 2, 1: 0}


def test_what_is_no_start_is_refused(stores: Stores) -> None:
    with pytest.raises(UsageError, match="--from: 'newest' is not a time"):
        resolve_start(stores.log, "events", 0, "newest")


def test_a_topic_created_anew_is_counted_from_its_beginning(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events", "latest")
    stores.log.delete("events")
    stores.log.create("events", 1)
    stores.log.append("events", 0, [encode_list([b"{}"], [0])])
    registry.prepare(definition(), stores.log, "events")
    found = registry.shards("test.rollups", definition().generation)
    assert sorted((control.start, shard.partition) for shard, control in found) == [(0, 0), (0, 1), (5, 0)]
    assert len({shard.incarnation for shard, _ in found}) == 2


def test_a_changed_definition_needs_a_start_and_takes_nothing_before(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events")
    before = dict(stores.table.scan(CONTROL_TABLE)), stores.table.tables()
    with pytest.raises(UsageError, match="test.rollups has changed") as caught:
        registry.prepare(definition(counts(), counts("more")), stores.log, "events")
    assert "--from earliest" in str(caught.value) and "penstock publish" in str(caught.value)
    assert (dict(stores.table.scan(CONTROL_TABLE)), stores.table.tables()) == before


def test_how_long_cells_are_kept_and_ratios_change_without_a_new_generation(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events")
    wider = definition(
        counts(by=[By(keep={"1m": "20d", "1h": "90d"})], measures={"n": Count(), "m": Count(where={"k": 1}), "share": Ratio("m", "n")})
    )
    assert wider.generation == definition().generation
    registry.prepare(wider, stores.log, "events")
    served = registry.provider("rollup", "counts").rollup("counts")
    assert list(served.by[0].keep.values()) == [20 * DAY, 90 * DAY] and "share" in served.measures
    assert ttls(stores)["counts_1m"] == (20 + 1 + 7) * DAY


def test_a_table_keeps_cells_as_long_as_the_generation_that_needs_them_longest(registry: Registry, stores: Stores) -> None:
    old, new = definition(), definition(counts(measures={"n": Count()}, by=[By(keep={"1m": "30d", "1h": "90d"})]))
    registry.prepare(old, stores.log, "events")
    registry.prepare(new, stores.log, "events", "earliest")
    registry.prepare(old, stores.log, "events")  # goes on beside it
    assert ttls(stores)["counts_1m"] == (30 + 1 + 7) * DAY and ttls(stores)["counts_index"] == (90 + 1 + 7) * DAY


def test_publish_switches_what_is_served(registry: Registry, stores: Stores) -> None:
    old, new = definition(), definition(counts(measures={"n": Count()}))
    registry.prepare(old, stores.log, "events")
    registry.prepare(new, stores.log, "events", "latest")
    assert registry.published("test.rollups") == old.generation and registry.provider("rollup", "counts") == old
    registry.publish("test.rollups", new.generation)
    assert registry.published("test.rollups") == new.generation and registry.provider("rollup", "counts") == new
    assert starts(registry, new) == {0: 5, 1: 0} and starts(registry, old) == {0: 0, 1: 0}


def test_publishing_what_was_never_started_says_what_there_is(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events")
    with pytest.raises(NotFoundError, match="no generation 0123456789abcdef") as caught:
        registry.publish("test.rollups", "0123456789abcdef")
    assert definition().generation in str(caught.value)
    with pytest.raises(NotFoundError, match="never started"):
        registry.published("test.other")
    with pytest.raises(NotFoundError, match="no generation"):
        registry.definition("test.rollups", "0123456789abcdef")


def test_a_roll_up_that_only_the_next_generation_makes_is_not_served_yet(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events")
    new = definition(counts(), counts("more"))
    registry.prepare(new, stores.log, "events", "earliest")
    assert registry.names("rollup") == ["counts"]
    with pytest.raises(NotFoundError, match="'more' is not made by the generation") as caught:
        registry.provider("rollup", "more")
    assert "penstock publish" in str(caught.value)
    registry.publish("test.rollups", new.generation)
    assert registry.names("rollup") == ["counts", "more"] and registry.provider("rollup", "more") == new


def test_a_roll_up_that_the_published_generation_has_no_more_is_not_served(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(counts(), counts("more")), stores.log, "events")
    new = definition()
    registry.prepare(new, stores.log, "events", "earliest")
    registry.publish("test.rollups", new.generation)
    assert registry.names("rollup") == ["counts"]
    with pytest.raises(NotFoundError):
        registry.provider("rollup", "more")


def test_two_bolts_cannot_make_the_same_roll_up(registry: Registry, stores: Stores) -> None:
    registry.prepare(definition(), stores.log, "events")
    with pytest.raises(ConfigurationError, match="rollup counts is made by test.rollups already"):
        registry.prepare(definition(counts("fresh"), counts(), bolt="other.rollups"), stores.log, "events")
    registry.prepare(definition(counts("fresh"), bolt="third.rollups"), stores.log, "events")  # the refused one took no name


def test_an_archive_makes_a_dataset(registry: Registry, stores: Stores) -> None:
    made = BoltDefinition("test.archive", **ArchiveBolt.definition_of(SCHEMA))
    registry.prepare(made, stores.log, "events")
    assert registry.provider("dataset", "events") == made and registry.names("dataset") == ["events"]
    with pytest.raises(NotFoundError, match="no dataset 'pages' here") as caught:
        registry.provider("dataset", "pages")
    assert "events" in str(caught.value)


def test_an_empty_table_is_served_nothing(registry: Registry) -> None:
    assert registry.names("rollup") == registry.bolts() == []
    with pytest.raises(NotFoundError, match="no roll-up 'counts' here"):
        registry.provider("rollup", "counts")


def test_a_definition_is_pure_data() -> None:
    made = definition()
    assert BoltDefinition.from_json(made.to_json()) == made and dataclasses.asdict(made)["kind"] == "rollup"
