"""The table in HBase against real servers: the same as a dict does, under many threads, with servers killed, idle, tunnelled and regions offline."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import happybase
import pytest
from hbase_servers import Java, OwnThrift, relay

from penstock.errors import ConfigurationError, NotFoundError, UnavailableError
from penstock.table.hbase import HBaseTable
from penstock.table.hbase.interfaces import thrift1
from penstock.table.memory import MemoryTable

pytestmark = pytest.mark.servers
SEED = random.randrange(1 << 32)
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def prefixed(hbase: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings with a prefix of our own, whose tables are dropped at the end."""
    settings = {**hbase, "prefix": f"test_{uuid.uuid4().hex[:12]}_", "regions": 4, "timeout": 60}
    yield settings
    store = HBaseTable(settings)
    connection = happybase.Connection(settings["host"], settings["port"])
    for name in store.tables():
        connection.delete_table(settings["prefix"] + name, disable=True)
    connection.close()
    store.close()


@pytest.fixture
def store(prefixed: dict[str, Any]) -> Iterator[HBaseTable]:
    """The shared HBase, with tables of our own."""
    table = HBaseTable(prefixed)
    yield table
    table.close()


@pytest.fixture(scope="module")
def java(hbase: dict[str, Any]) -> Java:
    """HBase's jars and configuration."""
    return Java(hbase["port"])


@pytest.fixture(scope="module")
def own(java: Java) -> Iterator[OwnThrift]:
    """A Thrift server of our own on the shared HBase, which hangs up after two silent seconds."""
    server = OwnThrift(java, idle=2000)
    server.start()
    yield server
    server.kill()


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


# --- what it holds


def test_random_calls_answer_as_the_table_in_memory_does(store: HBaseTable) -> None:
    """100,000 cells put and asked for, at timestamps in any order, over a split table."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    model = MemoryTable()
    for table in (store, model):
        table.create("random", hashed=True)
    rows = [rng.randbytes(rng.randint(1, 8)) for _ in range(700)]
    columns = [rng.randbytes(rng.randint(0, 5)) for _ in range(40)] + [b"a:b", b":", b"\x00"]

    def keys(count: int) -> list[tuple[bytes, bytes]]:
        return [(rng.choice(rows), rng.choice(columns)) for _ in range(count)]

    done = 0
    while done < 100_000:
        what, count = rng.random(), int(rng.paretovariate(0.4)) % 6000 + 1
        if what < 0.45:
            cells = [(*key, rng.randbytes(rng.randint(0, 50))) for key in keys(count)]
            at = rng.randrange(1, 60)
            store.put("random", cells, at)
            model.put("random", cells, at)
        elif what < 0.75:
            asked = keys(count)
            assert store.get("random", asked) == model.get("random", asked)
        elif what < 0.85:
            some = rng.choices(rows, k=min(count, 300))
            assert store.rows("random", some) == model.rows("random", some)
        elif what < 0.9:
            start, stop = sorted(rng.choices([*rows, b"", b"\xff" * 9], k=2))
            assert list(store.scan("random", start, stop)) == list(model.scan("random", start, stop))
        else:
            key = (rng.choice(rows), b"control")
            held = model.get("random", [key])[0]
            expected, new = rng.choice([held, None, b"other"]), rng.randbytes(9)
            assert store.compare_and_set("random", *key, expected, new) == model.compare_and_set("random", *key, expected, new)
        done += count
    assert list(store.scan("random")) == list(model.scan("random"))


def test_a_scan_of_a_hundred_thousand_rows_gives_each_once(store: HBaseTable) -> None:
    store.create("long", hashed=True)
    keys = [random.Random(n).randbytes(1) + b"%06d" % n for n in range(100_000)]
    store.put("long", [(key, b"c", key[::-1]) for key in keys], 1)
    assert list(store.scan("long")) == [(key, {b"c": key[::-1]}) for key in sorted(keys)]
    middle = sorted(keys)[30_000:70_001]
    assert [row for row, _ in store.scan("long", middle[0], middle[-1])] == middle[:-1]
    assert store.get("long", [(key, b"c") for key in keys[:20_000]]) == [key[::-1] for key in keys[:20_000]]


def test_values_of_a_mebibyte_and_none_larger_than_hbase_takes(store: HBaseTable) -> None:
    store.create("big")
    cells = [(b"%02d" % (n // 4), b"%d" % (n % 4), random.Random(n).randbytes(1 << 20)) for n in range(24)]
    store.put("big", cells, 1)
    assert store.get("big", [cell[:2] for cell in cells]) == [cell[2] for cell in cells]
    assert [(row, column, value) for row, columns in store.scan("big") for column, value in columns.items()] == cells
    with pytest.raises(ConfigurationError, match="larger than HBase takes"):
        store.put("big", [(b"r", b"c", b"v" * (11 << 20))], 1)


def test_of_sixteen_threads_that_claim_one_wins(store: HBaseTable) -> None:
    store.create("claims")
    for round_ in range(20):
        cell, ready = (b"r%d" % round_, b"c"), threading.Barrier(16)
        won: list[int] = []

        def claim(me: int, cell: tuple[bytes, bytes] = cell, ready: threading.Barrier = ready, won: list[int] = won) -> None:
            ready.wait()
            if store.compare_and_set("claims", *cell, None, b"%d" % me):
                won.append(me)

        threads = [threading.Thread(target=claim, args=(me,)) for me in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get("claims", [cell]) == [b"%d" % won[0]]


# --- creation and ttl


def test_a_hashed_table_is_split_and_many_may_create_it_at_once(prefixed: dict[str, Any], store: HBaseTable) -> None:
    problems: list[BaseException] = []

    def create() -> None:
        try:
            with_own = HBaseTable(prefixed)
            with_own.create("raced", ttl=HOUR, hashed=True)
            with_own.put("raced", [(b"r", b"c", b"v")], now())
            with_own.close()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert store.get("raced", [(b"r", b"c")]) == [b"v"]
    connection = happybase.Connection(prefixed["host"], prefixed["port"])
    regions = connection.client.getTableRegions(prefixed["prefix"].encode() + b"raced")
    assert [region.startKey for region in regions] == [b"", b"\x40", b"\x80", b"\xc0"]
    store.create("whole", ttl=None)
    assert len(connection.client.getTableRegions(prefixed["prefix"].encode() + b"whole")) == 1
    connection.close()


def test_cells_older_than_their_tables_ttl_are_gone_and_a_longer_ttl_keeps_them(store: HBaseTable) -> None:
    store.create("short", ttl=2_500_000)  # three seconds: it is rounded up
    at = now()
    store.put("short", [(b"r", b"c", b"v")], at)
    store.put("short", [(b"r", b"past", b"v")], at - 10_000)
    store.put("short", [(b"r", b"future", b"v")], at + HOUR // 1000)
    assert store.rows("short", [b"r"]) == [{b"c": b"v", b"future": b"v"}]
    time.sleep(max(0.0, (at + 3200 - now()) / 1000))
    assert store.rows("short", [b"r"]) == [{b"future": b"v"}]
    assert store.expire(at * 1000) == 0
    store.create("short", ttl=HOUR)
    store.put("short", [(b"r", b"past", b"v")], at - 10_000)
    assert store.get("short", [(b"r", b"past")]) == [b"v"]


def test_without_thrift_2_tables_are_made_but_a_ttl_is_only_left_longer(prefixed: dict[str, Any]) -> None:
    store = HBaseTable({key: value for key, value in prefixed.items() if key != "thrift2_port"})
    store.create("thrift1", ttl=HOUR, hashed=True)
    store.create("thrift1", ttl=HOUR, hashed=True)
    with pytest.raises(ConfigurationError, match="'thrift1' has a ttl of 3600 s and is to have no ttl.*\n.*thrift2_port"):
        store.create("thrift1")
    with pytest.warns(UserWarning, match="stay longer"):
        store.create("thrift1", ttl=HOUR // 2)
    store.put("thrift1", [(b"r", b"c", b"v")], now())
    assert store.get("thrift1", [(b"r", b"c")]) == [b"v"]
    store.close()


def test_a_table_of_somebody_else_is_refused(prefixed: dict[str, Any], store: HBaseTable) -> None:
    connection = happybase.Connection(prefixed["host"], prefixed["port"])
    connection.create_table(prefixed["prefix"] + "other_family", {"d": {}})
    connection.create_table(prefixed["prefix"] + "many_versions", {"c": {"max_versions": 3}})
    connection.close()
    for call in (lambda: store.create("other_family"), lambda: store.put("other_family", [(b"r", b"c", b"v")], 1)):
        with pytest.raises(ConfigurationError, match="no column family"):
            call()
    with pytest.raises(ConfigurationError, match="keeps 3 versions"):
        store.create("many_versions")
    with pytest.raises(ConfigurationError, match="namespace"):
        HBaseTable({**prefixed, "prefix": "nowhere:x_"}).create("t")


def test_a_namespace_may_precede_the_prefix(prefixed: dict[str, Any]) -> None:
    store = HBaseTable({**prefixed, "prefix": f"default:{prefixed['prefix']}"})
    store.create("spaced", hashed=True)
    store.put("spaced", [(b"r", b"c", b"v")], 1)
    assert HBaseTable(prefixed).get("spaced", [(b"r", b"c")]) == [b"v"]
    store.close()


def test_the_ports_of_the_two_thrift_servers_are_told_apart(prefixed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="thrift2_port that of Thrift 2"):
        HBaseTable({**prefixed, "port": prefixed["thrift2_port"]}).tables()


# --- outages


class Load:
    """Threads that put, step a counter by compare-and-set, and scan, each repeating what the seam lets it repeat, until `stop`.

    The counter's values are unique (number and step of its thread), so that a lost answer is resolved by reading it back, as a shard does.
    """

    def __init__(self, settings: dict[str, Any], table: str) -> None:
        self.store, self.table = HBaseTable({**settings, "timeout": 5}), table
        self._patient = HBaseTable(settings)
        self.put = self.stepped = self.scans = self.outages = 0
        self.problems: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._put, self._step, self._scan)]

    def __enter__(self) -> Load:
        self._patient.put(self.table, [(b"fixed%04d" % n, b"c", b"%d" % n) for n in range(3000)], 1)
        assert self._patient.compare_and_set(self.table, b"counter", b"n", None, b"0 start")
        self._patient.close()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.store.close()
        assert self.problems == []

    def wait_for_more(self, seconds: float = 60) -> None:
        """Until each thread got something done again."""
        before, until = (self.put, self.stepped, self.scans), time.monotonic() + seconds
        while not all(new >= old + 2 for new, old in zip((self.put, self.stepped, self.scans), before)):
            assert time.monotonic() < until and not self.problems, (before, self.put, self.stepped, self.scans, self.problems)
            time.sleep(0.05)

    def check(self, store: HBaseTable) -> None:
        """Whether all that was acknowledged is there."""
        assert self.put and self.stepped
        rows = [b"put%06d" % n for n in range(self.put)]
        assert store.rows(self.table, rows) == [{b"%d" % c: row for c in range(20)} for row in rows]
        [value] = store.get(self.table, [(b"counter", b"n")])
        assert value is not None and int(value.split()[0]) == self.stepped

    def _run(self, work: Any) -> None:
        while not self._stop.is_set() and not self.problems:
            try:
                work()
            except UnavailableError:
                self.outages += 1
                time.sleep(0.2)
            except BaseException as problem:
                self.problems.append(problem)

    def _put(self) -> None:
        row = b"put%06d" % self.put
        self.store.put(self.table, [(row, b"%d" % c, row) for c in range(20)], self.put + 1)
        self.put += 1

    def _step(self) -> None:
        [old] = self.store.get(self.table, [(b"counter", b"n")])
        assert old is not None and int(old.split()[0]) == self.stepped, (old, self.stepped)
        new = b"%d %s" % (self.stepped + 1, uuid.uuid4().bytes.hex().encode())
        while True:
            try:
                assert self.store.compare_and_set(self.table, b"counter", b"n", old, new)
                break
            except UnavailableError:
                self.outages += 1
                while (held := self._read()) not in (old, new):
                    raise AssertionError(f"{held!r} is neither {old!r} nor {new!r}") from None
                if held == new:
                    break
        self.stepped += 1

    def _read(self) -> bytes | None:
        while True:
            try:
                return self.store.get(self.table, [(b"counter", b"n")])[0]
            except UnavailableError:
                time.sleep(0.2)

    def _scan(self) -> None:
        seen = []
        for row, cells in self.store.scan(self.table, b"fixed", b"fixee"):
            seen.append((row, cells))
            if len(seen) % 300 == 0:
                time.sleep(0.05)  # a reader slow enough for a server to die in the middle
        assert seen == [(b"fixed%04d" % n, {b"c": b"%d" % n}) for n in range(3000)]
        self.scans += 1


def test_a_thrift_server_killed_and_restarted_loses_nothing_and_repeats_nothing(
    prefixed: dict[str, Any], store: HBaseTable, own: OwnThrift
) -> None:
    store.create("killed", hashed=True)
    with Load({**prefixed, "port": own.port}, "killed") as load:
        for _ in range(2):
            load.wait_for_more()
            own.kill()
            time.sleep(0.5)
            own.start()
        load.wait_for_more()
    print(f"{load.put} puts, {load.stepped} steps, {load.scans} scans, {load.outages} outages")
    load.check(store)


def test_regions_that_go_offline_and_split_lose_nothing(prefixed: dict[str, Any], store: HBaseTable, java: Java) -> None:
    store.create("moved")
    with Load(prefixed, "moved") as load:
        load.wait_for_more()
        mover = java.start(str(Path(__file__).with_name("Regions.java")), prefixed["prefix"] + "moved", "1500", output=subprocess.PIPE)
        said, _ = mover.communicate(timeout=180)
        assert "regions 2" in said, said
        load.wait_for_more(120)
    print(f"{load.put} puts, {load.stepped} steps, {load.scans} scans, {load.outages} outages")
    load.check(store)


def test_a_connection_that_the_server_closed_when_idle_is_no_outage(prefixed: dict[str, Any], store: HBaseTable, own: OwnThrift) -> None:
    store.create("idle")
    table = HBaseTable({**prefixed, "port": own.port})
    for number in range(3):
        held = None if number == 0 else b"%d" % number
        assert table.compare_and_set("idle", b"r", b"c", held, b"%d" % (number + 1))  # which is never sent twice
        time.sleep(2.6)
    assert table.get("idle", [(b"r", b"c")]) == [b"3"]
    table.close()


def test_a_table_that_is_disabled_is_an_outage_in_time_and_one_dropped_is_not_found(prefixed: dict[str, Any], store: HBaseTable) -> None:
    store.create("off")
    store.put("off", [(b"r", b"c", b"v")], 1)
    name = prefixed["prefix"].encode() + b"off"
    connection = happybase.Connection(prefixed["host"], prefixed["port"])
    connection.disable_table(name)
    quick = HBaseTable({**prefixed, "timeout": 2})
    for call in (
        lambda: quick.get("off", [(b"r", b"c")]),
        lambda: quick.put("off", [(b"r", b"c", b"v")], 2),
        lambda: quick.compare_and_set("off", b"r", b"d", None, b"v"),
    ):
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            call()
        assert time.monotonic() - began < 4
    connection.enable_table(name)
    assert store.get("off", [(b"r", b"c")]) == [b"v"]
    connection.delete_table(name, disable=True)
    connection.close()
    with pytest.raises(NotFoundError):
        store.get("off", [(b"r", b"c")])
    quick.close()


# --- through a tunnel


def test_it_works_through_a_tls_tunnel(prefixed: dict[str, Any], store: HBaseTable, tmp_path: Path) -> None:
    """Plain text to a relay on this machine, TLS with a checked certificate to the relay beside the server, as stunnel does it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
        check=True,
        capture_output=True,
    )
    at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    at_client = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    cells = [(b"%05d" % n, b"c", b"v" * 100) for n in range(20_000)]
    with relay(prefixed["port"], listen=at_server) as middle, relay(middle, connect=at_client) as near:
        tunnelled = HBaseTable({**prefixed, "port": near})
        tunnelled.create("tunnel")
        tunnelled.put("tunnel", cells, 1)
        assert tunnelled.compare_and_set("tunnel", b"claim", b"c", None, b"v")
        assert len(list(tunnelled.scan("tunnel"))) == 20_001
        tunnelled.close()
        untrusted = ssl.create_default_context()
        with relay(middle, connect=untrusted) as near_too, pytest.raises(UnavailableError):
            HBaseTable({**prefixed, "port": near_too, "timeout": 2}).tables()
    assert store.get("tunnel", [cell[:2] for cell in cells]) == [cell[2] for cell in cells]


def test_the_interface_that_happybase_brings_has_what_is_called_here() -> None:
    """A happybase whose interface moved would break puts at run time; this names it."""
    assert [field[1] for _, field in sorted(thrift1.Hbase.mutateRowsTs_args.thrift_spec.items())] == [
        "tableName",
        "rowBatches",
        "timestamp",
        "attributes",
    ]
