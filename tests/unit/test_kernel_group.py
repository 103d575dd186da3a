"""Group-by: the compiled kernel and the reference against a plain dict, however the events are cut into batches, deltas and shards."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FASTEST, IMPLEMENTATIONS, INTS, REFERENCE, ROLLUPS, SCHEMA, TEXTS, TIMES, columns_of

from penstock.errors import CorruptionError, DeclarationError, InternalError
from penstock.kernels.plan import RollupPlan
from penstock.model import By, Count, Granularity, Int, Max, Rollup, Schema, Sum, Timestamp, Uniques, check_filter, matches

GENERATION, SHARD = b"generati", b"shard 000001"
PLANS = [RollupPlan(rollup) for rollup in ROLLUPS]
MONEY = st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-3, 3)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.sampled_from(TIMES) | st.integers(0, Timestamp.LIMIT - 1),
            "account": st.sampled_from(INTS[:4]) | st.sampled_from(INTS),
            "page": st.sampled_from(TEXTS) | st.text(max_size=5),
            "flag": st.sampled_from([True, False, None]),
            "type": st.sampled_from(["view", "click", "buy"]),
            "device": st.sampled_from(["phone", "desk\0top\1", None]),
            "user": st.none() | st.sampled_from(INTS) | st.integers(-(2**63), 2**63 - 1),
            "agent": st.none() | st.sampled_from(TEXTS),
            "cost": st.none() | MONEY,
            "seen": st.none() | st.sampled_from(TIMES),
        }
    ),
    max_size=40,
)


def registers_with(hashes: list[int], precision: int) -> bytes:
    """HyperLogLog registers as the definition has them, in strings of binary digits."""
    registers = [0] * 2**precision
    for hashed in hashes:
        digits = f"{hashed:064b}"
        rest = digits[precision:]
        rank = len(rest) - len(rest.lstrip("0")) + 1
        register = int(digits[:precision], 2)
        registers[register] = max(registers[register], rank)
    return bytes(registers)


def hash_of(value: Any) -> int:
    return xxhash.xxh64_intdigest(value.encode() if isinstance(value, str) else value.to_bytes(8, "little", signed=True))


def oracle(rollup: Rollup, records: list[dict[str, Any]]) -> dict[Any, list[Any]]:
    """(breakdown, window, entity, dimensions) to values, one event after the other."""
    columns = rollup.schema.columns
    where = {name: check_filter(m.where, columns, name) for name, m in rollup.stored.items() if m.where is not None}
    common = check_filter(rollup.where, columns, "roll-up") if rollup.where else {}
    taken: dict[Any, dict[str, list[Any]]] = {}
    for record in records:
        counted = [name for name in rollup.stored if matches(where.get(name, {}), record.__getitem__)]
        if not counted or not matches(common, record.__getitem__):
            continue
        for index, by in enumerate(rollup.by):
            key = index, record["ts"] // min(by.keep), record[rollup.entity], tuple(record[name] for name in by.dimensions)
            lists = taken.setdefault(key, {name: [] for name in rollup.stored})
            for name in counted:
                lists[name].append(record[getattr(rollup.stored[name], "field", None) or "ts"])
    return {key: [summary(rollup.stored[name], values) for name, values in lists.items()] for key, lists in taken.items()}


def summary(measure: Any, values: list[Any]) -> Any:
    present = [value for value in values if value is not None]
    if measure.kind == "uniques":
        return registers_with([hash_of(value) for value in present], measure.precision)
    return {"count": len(values), "sum": sum(present), "min": min(present, default=None), "max": max(present, default=None)}[measure.kind]


def cells_of(kernels: Any, plan: RollupPlan, deltas: list[Any]) -> dict[tuple[str, bytes, bytes], bytes]:
    """Flush deltas, one after the other, into a dict."""
    table: dict[tuple[str, bytes, bytes], bytes] = {}
    for stamp, delta in enumerate(deltas, 1):
        flushed = delta.keys()
        for keys in flushed:
            places = [(keys.table, row, column) for row, column in zip(keys.rows, keys.columns)]
            assert len(set(places)) == len(places)
            for place, cell in zip(places, delta.merge(keys.index, [table.get(place) for place in places], stamp)):
                assert kernels.cell_stamp(cell) == stamp
                table[place] = cell
    return table


def values_in(kernels: Any, plan: RollupPlan, table: dict[tuple[str, bytes, bytes], bytes]) -> dict[Any, list[Any]]:
    made = {}
    for (name, row, column), cell in table.items():
        breakdown = next(one for one in plan.breakdowns if one.table == name and is_row_of(kernels, plan, one.index, row))
        entity, bucket, dimensions = kernels.split_row(plan, breakdown.index, row)
        generation, offset, shard = kernels.split_column(column)
        assert (generation, shard) == (GENERATION, SHARD) and 0 <= offset < Granularity(breakdown.width).span
        values = [value.registers() if hasattr(value, "registers") else value for value in kernels.decode_cell(plan, cell)]
        made[breakdown.index, bucket * Granularity(breakdown.width).span + offset, entity, tuple(dimensions)] = values
    return made


def is_row_of(kernels: Any, plan: RollupPlan, breakdown: int, row: bytes) -> bool:
    try:
        kernels.split_row(plan, breakdown, row)
    except CorruptionError:
        return False
    return True


def delta_of(kernels: Any, plan: RollupPlan, records: list[dict[str, Any]], shard: bytes = SHARD) -> Any:
    delta = kernels.Delta(plan, GENERATION, shard)
    delta.add(columns_of(SCHEMA.columns, records), np.zeros(len(records), np.uint8), 0, len(records))
    return delta


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.rollup.name)
def test_groups_are_those_of_a_plain_dict(kernels: Any, plan: RollupPlan) -> None:
    @settings(max_examples=40, deadline=None)
    @given(RECORDS)
    def check(records: list[dict[str, Any]]) -> None:
        delta = delta_of(kernels, plan, records)
        wanted = oracle(plan.rollup, records)
        assert values_in(kernels, plan, cells_of(kernels, plan, [delta])) == wanted
        assert delta.cells == len(wanted)

    check()


@pytest.mark.skipif(len(IMPLEMENTATIONS) < 2, reason="the compiled kernels were not built")
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.rollup.name)
def test_compiled_and_reference_give_the_same_bytes_in_the_same_order(plan: RollupPlan) -> None:
    @settings(max_examples=40, deadline=None)
    @given(RECORDS)
    def check(records: list[dict[str, Any]]) -> None:
        deltas = [delta_of(kernels, plan, records) for kernels in (REFERENCE, FASTEST)]
        for one, other in zip(*(delta.keys() for delta in deltas)):
            assert (one.index, one.table, one.width, one.rows, one.columns) == (
                other.index,
                other.table,
                other.width,
                other.rows,
                other.columns,
            )
            assert one.windows.tolist() == other.windows.tolist() and one.windows.dtype == other.windows.dtype == np.int64
            first = [delta.merge(one.index, [None] * len(one.rows), 3) for delta in deltas]
            assert first[0] == first[1]
            again = [delta.merge(one.index, cells, 4) for delta, cells in zip(deltas, first)]
            assert again[0] == again[1]

    check()


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.rollup.name)
def test_no_cut_into_batches_flushes_or_shards_and_no_order_changes_a_byte(plan: RollupPlan) -> None:
    @settings(max_examples=40, deadline=None)
    @given(RECORDS, st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 3))
    def check(records: list[dict[str, Any]], rng: random.Random, flushes: int, shards: int) -> None:
        kernels = FASTEST
        whole = {key: kernels.strip_stamp(cell) for key, cell in cells_of(kernels, plan, [delta_of(kernels, plan, records)]).items()}
        shuffled = rng.sample(records, len(records))
        by_place: dict[Any, list[bytes]] = {}
        for shard in range(shards):
            mine, deltas = shuffled[shard::shards], []
            cuts = sorted(rng.choices(range(len(mine) + 1), k=flushes - 1))
            columns, verdict = columns_of(SCHEMA.columns, mine), np.zeros(len(mine), np.uint8)
            for start, stop in zip([0, *cuts], [*cuts, len(mine)]):
                delta = kernels.Delta(plan, GENERATION, b"%012d" % shard)
                middle = rng.randint(start, stop)
                delta.add(columns, verdict, start, middle)
                delta.add(columns, verdict, middle, stop)
                deltas.append(delta)
            for (table, row, column), cell in cells_of(kernels, plan, deltas).items():
                by_place.setdefault((table, row, kernels.column_key(GENERATION, kernels.split_column(column)[1], SHARD)), []).append(cell)
        assert set(by_place) == set(whole)
        for place, cells in by_place.items():
            rng.shuffle(cells)
            cut = rng.randint(1, len(cells))
            nested = kernels.merge_cells(plan, [kernels.merge_cells(plan, cells[:cut], 9), *cells[cut:]], 7)
            assert nested == kernels.merge_cells(plan, cells, 7)
            assert kernels.strip_stamp(nested) == whole[place]

    check()


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
def test_only_accepted_records_in_the_range_count(kernels: Any) -> None:
    schema = Schema("s", time="ts", fields={"ts": Timestamp("us"), "id": Int()})
    plan = RollupPlan(Rollup("r", of=schema, entity="id", measures={"n": Count()}, by=[By(keep={"1m": "1d"})]))
    records = [{"ts": 5, "id": row} for row in range(10)]
    delta = kernels.Delta(plan, GENERATION, SHARD)
    delta.add(columns_of(schema.columns, records), np.array([0, 1, 2] * 3 + [0], np.uint8), 1, 9)
    assert [kernels.split_row(plan, 0, row)[0] for row in delta.keys()[0].rows] == [3, 6]


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
def test_a_stored_cell_that_includes_the_delta_is_left_alone(kernels: Any) -> None:
    records = [
        {
            "ts": 0,
            "account": 1,
            "page": page,
            "flag": None,
            "type": "buy",
            "device": None,
            "user": 7,
            "agent": None,
            "cost": 5,
            "seen": None,
        }
        for page in "abc"
    ]
    delta = delta_of(kernels, PLANS[0], records)
    delta.freeze()
    old = delta.merge(1, [None, None, None], 10)
    assert delta.merge(1, old, 10) == delta.merge(1, old, 9) == [None, None, None]
    mixed = delta.merge(1, [old[0], None, old[2]], 11)
    assert mixed == delta.merge(1, [old[0], None, old[2]], 11), "a merge changes the delta"
    assert [kernels.decode_cell(PLANS[0], cell)[0] for cell in mixed] == [2, 1, 2]
    with pytest.raises(InternalError, match="2 stored cells for 3 keys"):
        delta.merge(1, [None, None], 11)
    with pytest.raises(InternalError, match="frozen"):
        delta.add(columns_of(SCHEMA.columns, records), np.zeros(3, np.uint8), 0, 3)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
def test_sums_do_not_saturate_on_the_way(kernels: Any) -> None:
    schema = Schema("s", time="ts", fields={"ts": Timestamp("us"), "id": Int(), "n": Int()})
    plan = RollupPlan(Rollup("r", of=schema, entity="id", measures={"n": Sum("n")}, by=[By(keep={"1m": "1d"})]))
    top, bottom = 2**63 - 1, -(2**63)
    for values in ([top] * 5 + [bottom] * 5, [bottom] * 5 + [top] * 5, [top] * 3, [bottom] * 3, [top, bottom, -1]):
        delta = kernels.Delta(plan, GENERATION, SHARD)
        delta.add(
            columns_of(schema.columns, [{"ts": 5, "id": 1, "n": value} for value in values]),
            np.zeros(len(values), np.uint8),
            0,
            len(values),
        )
        [total] = kernels.decode_cell(plan, delta.merge(0, [None], 1)[0])
        assert total == sum(values)
        assert kernels.saturate(total) == (max(bottom, min(top, sum(values))), not bottom <= sum(values) <= top)


def test_tables_grow_with_a_hundred_thousand_groups() -> None:
    seed, count = 20_150_517, 300_000
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    schema = Schema("s", time="ts", fields={"ts": Timestamp("us"), "id": Int(), "n": Int()})
    plan = RollupPlan(
        Rollup(
            "r",
            of=schema,
            entity="id",
            measures={"n": Count(), "sum": Sum("n"), "top": Max("n"), "u": Uniques("n", precision=8)},
            by=[By(keep={"1m": "1d"})],
        )
    )
    ids, minutes, values = rng.integers(0, 20_000, count), rng.integers(0, 10, count), rng.integers(-50, 50, count)
    columns = columns_of(schema.columns, [{"ts": 0, "id": 0, "n": 0}] * count)
    columns.columns["ts"].data, columns.columns["id"].data, columns.columns["n"].data = minutes * 60_000_000 + 59_999_999, ids, values
    delta, before = FASTEST.Delta(plan, GENERATION, SHARD), 0
    for start in range(0, count, 50_000):
        delta.add(columns, np.zeros(count, np.uint8), start, start + 50_000)
        assert delta.nbytes > before
        before = delta.nbytes
    groups, places = np.unique(ids * 10 + minutes, return_inverse=True)
    counts, sums = np.bincount(places), np.bincount(places, values)
    [keys] = delta.keys()
    assert delta.cells == len(keys.rows) == len(groups) > 100_000
    for row, window, cell in zip(keys.rows, keys.windows, delta.merge(0, [None] * len(groups), 1)):
        at = np.searchsorted(groups, FASTEST.split_row(plan, 0, row)[0] * 10 + window)
        assert FASTEST.decode_cell(plan, cell)[:2] == [counts[at], sums[at]]


@pytest.mark.skipif(len(IMPLEMENTATIONS) < 2, reason="the compiled kernels were not built")
def test_columns_that_break_the_contract_are_refused_whole() -> None:
    record = {
        "ts": 0,
        "account": 1,
        "page": "ab",
        "flag": True,
        "type": "buy",
        "device": None,
        "user": 7,
        "agent": "x",
        "cost": 5,
        "seen": None,
    }
    plan, verdict = PLANS[0], np.zeros(2, np.uint8)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("ts", {"data": np.array([0, Timestamp.LIMIT], np.int64)}),
        ("ts", {"data": np.array([-1, 0], np.int64)}),
        ("page", {"offsets": np.array([0, 2, 99], np.int32)}),
        ("agent", {"offsets": np.array([0, -1, 2], np.int32)}),
        ("device", {"data": np.array([0, 2], np.int16), "valid": None}),
        ("account", {"data": np.zeros(1, np.int64)}),
        ("cost", {"valid": np.ones(1, np.uint8)}),
    ]
    for name, spoiled in wrong:
        columns = columns_of(SCHEMA.columns, [record, record])
        columns.columns[name] = dataclasses.replace(columns.columns[name], **spoiled)
        delta = FASTEST.Delta(plan, GENERATION, SHARD)
        with pytest.raises(InternalError, match=name):
            delta.add(columns, verdict, 0, 2)
        assert delta.cells == 0
    with pytest.raises(InternalError, match=r"rows \[0, 3\)"):
        FASTEST.Delta(plan, GENERATION, SHARD).add(columns_of(SCHEMA.columns, [record, record]), verdict, 0, 3)


def test_a_roll_up_beyond_a_row_key_is_refused() -> None:
    fields = {f"f{index}": Int() for index in range(17)}
    schema = Schema("s", time="ts", fields={"ts": Timestamp("us"), "id": Int(), **fields})
    with pytest.raises(DeclarationError, match="17 dimensions"):
        RollupPlan(Rollup("r", of=schema, entity="id", measures={"n": Count()}, by=[By(*fields, keep={"1m": "1d"})]))


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS, ids=lambda kernels: kernels.name)
def test_generation_and_shard_have_their_lengths(kernels: Any) -> None:
    for generation, shard in ((b"short", SHARD), (GENERATION, b"short")):
        with pytest.raises(InternalError, match="8 bytes"):
            kernels.Delta(PLANS[0], generation, shard)
