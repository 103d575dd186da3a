"""What every table does: HBase's rules for versions, compare-and-set, scans in order, and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, UnavailableError
from penstock.kernels import pack_cells, unpack_cells
from penstock.table import Table, prefix_end
from penstock.table.memory import MemoryTable
from penstock.table.sqlite import SqliteTable

EMBEDDED: dict[str, Callable[[Path], Any]] = {
    "sqlite": lambda directory: SqliteTable(directory / "tables" / "t.sqlite"),
    "memory": lambda directory: MemoryTable(),
}


@pytest.fixture(params=list(EMBEDDED))
def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An embedded table store with one table, `t`."""
    store = EMBEDDED[request.param](tmp_path)
    store.create("t")
    yield store
    store.close()


@pytest.fixture(params=[*EMBEDDED, pytest.param("hbase", marks=pytest.mark.servers)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """A table store with one table, `t`."""
    if request.param == "hbase":
        with of_my_own(request.getfixturevalue("hbase")) as store:
            store.create("t")
            yield store
        return
    store = EMBEDDED[request.param](tmp_path)
    store.create("t")
    yield store
    store.close()


@contextlib.contextmanager
def of_my_own(settings: dict[str, Any]) -> Iterator[Any]:
    """An HBaseTable whose tables nobody else has. They are dropped at the end."""
    import happybase

    from penstock.table.hbase import HBaseTable

    prefix = f"contract_{uuid.uuid4().hex[:12]}_"
    store = HBaseTable({**settings, "prefix": prefix, "timeout": 60})
    try:
        yield store
    finally:
        connection = happybase.Connection(settings["host"], settings["port"])
        for name in store.tables():
            connection.delete_table(prefix + name, disable=True)
        connection.close()
        store.close()


def test_packed_rows_of_several_tables_are_those_of_each(table: Table) -> None:
    table.create("u")
    table.put("t", [(b"a", b"x", b"1"), (b"b", b"x", b"2")], 1)
    table.put("u", [(b"a", b"x", b"3"), (b"a", b"y", b"4")], 1)
    for asked in (
        [("t", [b"b", b"none", b"a"]), ("u", [b"a"]), ("t", [b"a", b"a"])],
        [("t", [b"b"])],
        [("t", []), ("u", [b"a", b"b"])],
        [("t", [b"%d" % number for number in range(500)] + [b"a"]), ("u", [b"a"])],
        [],
    ):
        assert table.packed_rows(asked) == [list(map(pack_cells, table.rows(name, rows))) for name, rows in asked]
    for asked in ([("t", [b"a"]), ("gone", [b"a"])], [("gone", [b"a"]), ("t", [b"a"])]):
        with pytest.raises(NotFoundError, match="gone"):
            table.packed_rows(asked)
    both = table.packed_rows([("t", [b"a"]), ("u", [b"a"])])
    assert [list(map(unpack_cells, rows)) for rows in both] == [[{b"x": b"1"}], [{b"x": b"3", b"y": b"4"}]]


def test_a_put_is_hidden_by_a_newer_cell_and_overwrites_an_equally_old_one(table: Table) -> None:
    table.put("t", [(b"r", b"c", b"at 5")], 5)
    table.put("t", [(b"r", b"c", b"older"), (b"r", b"d", b"other cell")], 4)
    assert table.get("t", [(b"r", b"c"), (b"r", b"d")]) == [b"at 5", b"other cell"]
    table.put("t", [(b"r", b"c", b"again at 5")], 5)
    assert table.get("t", [(b"r", b"c")]) == [b"again at 5"]
    table.put("t", [(b"r", b"c", b"newer")], 6)
    assert table.get("t", [(b"r", b"c")]) == [b"newer"]


def test_the_last_of_two_values_for_a_cell_in_one_put_wins(table: Table) -> None:
    table.put("t", [(b"r", b"c", b"zz first"), (b"r", b"c", b"aa last")], 1)
    assert table.get("t", [(b"r", b"c")]) == [b"aa last"]


def test_get_answers_in_the_order_asked_with_repeats_and_none_for_absent_cells(table: Table) -> None:
    table.put("t", [(b"b", b"x", b"1"), (b"a", b"y", b""), (b"a", b"", b"3")], 1)
    assert table.get("t", [(b"b", b"x"), (b"a", b"x"), (b"a", b"y"), (b"b", b"x"), (b"a", b""), (b"", b"")]) == [
        b"1",
        None,
        b"",
        b"1",
        b"3",
        None,
    ]
    assert table.get("t", []) == []


def test_rows_answer_in_the_order_asked_and_are_the_callers_to_change(table: Table) -> None:
    table.put("t", [(b"b", b"y", b"2"), (b"b", b"x", b"1"), (b"a", b"x", b"3")], 1)
    found = table.rows("t", [b"b", b"none", b"a", b"b"])
    assert found == [{b"x": b"1", b"y": b"2"}, {}, {b"x": b"3"}, {b"x": b"1", b"y": b"2"}]
    assert list(found[0]) == [b"x", b"y"]
    found[0][b"x"] = b"changed"
    assert found[3][b"x"] == b"1"
    assert table.rows("t", [b"b"])[0][b"x"] == b"1"


def test_a_scan_gives_rows_in_byte_order_within_its_bounds(table: Table) -> None:
    table.put("t", [(row, b"c", row) for row in (b"\xff\xff", b"b", b"a\x00", b"a", b"\x00", b"ab")], 1)
    assert [row for row, _ in table.scan("t")] == [b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff\xff"]
    assert [row for row, _ in table.scan("t", b"a", prefix_end(b"a"))] == [b"a", b"a\x00", b"ab"]
    assert [row for row, _ in table.scan("t", b"a\x00", b"b")] == [b"a\x00", b"ab"]
    assert list(table.scan("t", b"b", b"b")) == []


def test_a_scan_of_many_cells_gives_each_row_whole_and_allows_writes_meanwhile(table: Table) -> None:
    wide = [(b"m", b"%05d" % n, b"w") for n in range(2500)]  # a row larger than a page, and thousands of small ones around it
    table.put(
        "t", wide + [(b"%s%04d" % (side, n), column, b"v") for side in (b"a", b"z") for n in range(1200) for column in (b"x", b"y")], 1
    )
    seen = []
    for row, cells in table.scan("t"):
        seen.append((row, len(cells)))
        if len(seen) == 10:
            table.put("t", [(b"a0003", b"late", b"v"), (b"zz", b"x", b"v")], 2)
            table.create("another")
    expected = [(b"a%04d" % n, 2) for n in range(1200)] + [(b"m", 2500)] + [(b"z%04d" % n, 2) for n in range(1200)]
    assert [item for item in seen if item[0] != b"zz"] == expected


def test_compare_and_set_writes_only_over_the_expected_value(table: Table) -> None:
    assert table.compare_and_set("t", b"r", b"c", None, b"1")
    assert not table.compare_and_set("t", b"r", b"c", None, b"2")
    assert not table.compare_and_set("t", b"r", b"c", b"0", b"2")
    assert table.get("t", [(b"r", b"c")]) == [b"1"]
    assert not table.compare_and_set("t", b"r", b"c", b"", b"2")
    assert table.compare_and_set("t", b"r", b"c", b"1", b"4")
    assert table.get("t", [(b"r", b"c")]) == [b"4"]
    assert not table.compare_and_set("t", b"r", b"other", b"4", b"5")
    assert not table.compare_and_set("t", b"r", b"other", b"", b"5"), "no cell is no empty value"
    assert table.compare_and_set("t", b"r", b"", None, b"6"), "an empty column is a column"
    assert table.rows("t", [b"r"]) == [{b"": b"6", b"c": b"4"}]


def test_to_an_embedded_compare_and_set_an_empty_value_is_a_value(embedded: Any) -> None:
    assert embedded.compare_and_set("t", b"r", b"c", None, b"")
    assert not embedded.compare_and_set("t", b"r", b"c", None, b"3")
    assert embedded.compare_and_set("t", b"r", b"c", b"", b"4")
    assert embedded.get("t", [(b"r", b"c")]) == [b"4"]


def test_of_many_threads_that_compare_and_set_one_wins_each_time(table: Table) -> None:
    assert table.compare_and_set("t", b"r", b"n", None, b"0")

    def add() -> None:
        for _ in range(25):
            while True:
                value = table.get("t", [(b"r", b"n")])[0]
                assert value is not None
                if table.compare_and_set("t", b"r", b"n", value, b"%d" % (int(value) + 1)):
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.get("t", [(b"r", b"n")]) == [b"100"]


def test_tables_are_apart_and_creating_one_again_keeps_its_cells(table: Table) -> None:
    table.create("by_advertiser_1m", ttl=1_000_000_000)
    table.put("t", [(b"r", b"c", b"t")], 1)
    table.put("by_advertiser_1m", [(b"r", b"c", b"m")], int(time.time() * 1000))
    table.create("by_advertiser_1m", ttl=2_000_000_000, hashed=True)
    assert table.tables() == ["by_advertiser_1m", "t"]
    assert table.get("t", [(b"r", b"c")]) + table.get("by_advertiser_1m", [(b"r", b"c")]) == [b"t", b"m"]


@pytest.mark.parametrize(
    "call",
    [
        lambda t, name: t.put(name, [], 1),
        lambda t, name: t.get(name, []),
        lambda t, name: t.rows(name, []),
        lambda t, name: t.scan(name),
        lambda t, name: t.compare_and_set(name, b"r", b"c", None, b"v"),
    ],
    ids=["put", "get", "rows", "scan", "compare_and_set"],
)
@pytest.mark.parametrize("name", ["absent", 'no"; DROP TABLE cells_t; --'])
def test_a_table_that_was_not_created_is_an_error_that_names_it(table: Table, call: Callable[[Table, str], object], name: str) -> None:
    with pytest.raises(NotFoundError, match=name.split('"')[0]):
        call(table, name)
    assert table.tables() == ["t"]


@pytest.mark.parametrize("name", ["", "T", "1m", "a-b", 'a"b', "a" * 101, "x\n"])
def test_a_name_that_is_not_usable_is_refused(table: Table, name: str) -> None:
    with pytest.raises(ConfigurationError):
        table.create(name)


def test_a_key_longer_than_hbase_takes_is_refused_and_nothing_is_written(table: Table) -> None:
    with pytest.raises(ConfigurationError, match="32768"):
        table.put("t", [(b"a", b"c", b"v"), (b"r" * 32768, b"c", b"v")], 1)
    assert list(table.scan("t")) == []
    table.put("t", [(b"r" * 32767, b"c" * 32767, b"v")], 1)
    assert table.get("t", [(b"r" * 32767, b"c" * 32767)]) == [b"v"]


def test_expire_drops_cells_older_than_their_tables_ttl_and_no_control_cell(embedded: Any) -> None:
    embedded.create("short", ttl=100_000)
    embedded.put("short", [(b"a", b"old", b"v"), (b"a", b"renewed", b"v"), (b"b", b"old", b"v")], 899)
    embedded.put("short", [(b"a", b"renewed", b"w")], 900)
    embedded.put("t", [(b"a", b"old", b"v")], 1)
    assert embedded.compare_and_set("short", b"a", b"control", None, b"v")
    assert embedded.expire(1_000_000) == 2
    assert list(embedded.scan("short")) == [(b"a", {b"control": b"v", b"renewed": b"w"})]
    assert embedded.get("t", [(b"a", b"old")]) == [b"v"]
    embedded.put("short", [(b"a", b"old", b"back")], 5)
    assert embedded.get("short", [(b"a", b"old")]) == [b"back"], "an expired cell leaves no tombstone"


_bytes = st.binary(max_size=3)


@settings(max_examples=60, deadline=None)
@given(puts=st.lists(st.tuples(st.lists(st.tuples(_bytes, _bytes, st.binary(max_size=40)), max_size=8), st.integers(0, 5)), max_size=8))
def test_sqlite_holds_what_a_dict_of_newest_values_holds(puts: list[tuple[list[tuple[bytes, bytes, bytes]], int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteTable(Path(directory, "t"))
        store.create("t")
        newest: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        for cells, timestamp in puts:
            store.put("t", cells, timestamp)
            for row, column, value in cells:
                if newest.get((row, column), (-1, b""))[0] <= timestamp:
                    newest[row, column] = timestamp, value
        assert store.get("t", list(newest)) == [value for _, value in newest.values()]
        assert {(row, column): value for row, cells in store.scan("t") for column, value in cells.items()} == {
            key: value for key, (_, value) in newest.items()
        }
        store.close()


def test_fifty_thousand_cells_go_in_and_come_out(tmp_path: Path) -> None:
    rng = random.Random(7)
    cells = [
        (rng.randbytes(rng.randint(1, 30)), rng.randbytes(rng.randint(0, 20)), rng.randbytes(rng.randint(0, 120))) for _ in range(50_000)
    ]
    expected = {(row, column): value for row, column, value in cells}
    store = SqliteTable(tmp_path / "t")
    store.create("t")
    store.put("t", cells, 1)
    keys = [*expected, (b"absent", b"absent")]
    rng.shuffle(keys)
    assert store.get("t", keys) == [expected.get(key) for key in keys]
    store.close()


def test_cells_survive_a_new_opening_and_a_reader_beside_a_writer_sees_them(tmp_path: Path) -> None:
    writer = SqliteTable(tmp_path / "t")
    writer.create("t")
    writer.put("t", [(b"r", b"c", b"1")], 1)
    reader = SqliteTable(tmp_path / "t", readonly=True)
    assert reader.get("t", [(b"r", b"c")]) == [b"1"]
    writer.put("t", [(b"r", b"c", b"2")], 2)
    assert reader.get("t", [(b"r", b"c")]) == [b"2"]
    with pytest.raises(ConfigurationError, match="reading only"):
        reader.put("t", [(b"r", b"c", b"3")], 3)
    writer.close()
    reader.close()
    with SqliteTableOpen(tmp_path / "t", readonly=True) as again:
        assert again.get("t", [(b"r", b"c")]) == [b"2"]
    with pytest.raises(NotFoundError):
        SqliteTable(tmp_path / "absent", readonly=True)


class SqliteTableOpen:
    """A SqliteTable that is closed at the end of a with statement."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.store = SqliteTable(path, **options)

    def __enter__(self) -> SqliteTable:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


def test_a_lock_that_another_process_holds_too_long_is_unavailable_and_reads_go_on(tmp_path: Path) -> None:
    with SqliteTableOpen(tmp_path / "t", timeout=0.2) as store:
        store.create("t")
        store.put("t", [(b"r", b"c", b"1")], 1)
        other = sqlite3.connect(tmp_path / "t", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for call in (lambda: store.put("t", [(b"r", b"c", b"2")], 2), lambda: store.compare_and_set("t", b"r", b"c", b"1", b"2")):
            with pytest.raises(UnavailableError, match="locked") as caught:
                call()
            assert caught.value.retriable
        assert store.get("t", [(b"r", b"c")]) == [b"1"]
        other.execute("ROLLBACK")
        store.put("t", [(b"r", b"c", b"2")], 2)
        other.close()


def test_a_file_that_is_no_database_is_corrupt_and_one_of_another_kind_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"not a database at all " * 500)
    with pytest.raises(CorruptionError, match="t is not a sound"):
        SqliteTable(tmp_path / "t")
    sqlite3.connect(tmp_path / "empty").execute("CREATE TABLE x (y)").connection.close()
    with SqliteTableOpen(tmp_path / "empty", readonly=True) as store, pytest.raises(NotFoundError):
        store.tables()


_ADD = """
import sys
from penstock.table.sqlite import SqliteTable
store = SqliteTable(sys.argv[1])
for _ in range(100):
    while True:
        value = store.get("t", [(b"r", b"n")])[0]
        if store.compare_and_set("t", b"r", b"n", value, b"%d" % (int(value) + 1)):
            break
"""
_PUT_FOR_EVER = """
import os, sys
from penstock.table.sqlite import SqliteTable
store = SqliteTable(sys.argv[1])
number = int(sys.argv[2])
while True:
    store.put("t", [(b"%08d" % number, b"%d" % n, b"x" * 60) for n in range(20)], number)
    os.write(1, b"%08d" % number)
    number += 1
"""


def test_two_processes_that_compare_and_set_lose_no_step(tmp_path: Path) -> None:
    with SqliteTableOpen(tmp_path / "t") as store:
        store.create("t")
        assert store.compare_and_set("t", b"r", b"n", None, b"0")
        adders = [subprocess.Popen([sys.executable, "-c", _ADD, str(tmp_path / "t")]) for _ in range(2)]
        assert [adder.wait(60) for adder in adders] == [0, 0]
        assert store.get("t", [(b"r", b"n")]) == [b"200"]


def test_a_process_killed_between_puts_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with SqliteTableOpen(tmp_path / "t") as store:
        store.create("t")
        number, acknowledged = 0, 0
        for after in (3, 17, 40):
            writer = subprocess.Popen([sys.executable, "-c", _PUT_FOR_EVER, str(tmp_path / "t"), str(number)], stdout=subprocess.PIPE)
            assert writer.stdout is not None
            for _ in range(after):
                acknowledged = int(os.read(writer.stdout.fileno(), 8))
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(rest) for rest in _eights(writer.stdout.read()))])
            writer.wait()
            writer.stdout.close()
            rows = dict(store.scan("t"))
            assert set(rows) >= {b"%08d" % n for n in range(acknowledged + 1)}
            assert all(len(cells) == 20 for cells in rows.values()), "a put is one transaction"
            number = acknowledged + 1


def _eights(data: bytes) -> list[bytes]:
    return [data[at : at + 8] for at in range(0, len(data) - 7, 8)]
