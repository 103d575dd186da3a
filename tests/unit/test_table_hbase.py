"""What of the table in HBase can be told without a server: settings, bytes of a put, plans of gets, meanings of errors, and faults of connections."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TBufferedTransport

from penstock.errors import ConfigurationError, InternalError, NotFoundError, UnavailableError
from penstock.table.hbase import HBaseTable, appetite, lookups, wire
from penstock.table.hbase.create import split_points
from penstock.table.hbase.faults import meaning
from penstock.table.hbase.interfaces import thrift1

# --- settings


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"hots": "x"}, "did you mean host"),
        ({"sasl_mechanism": "GSSAPI"}, "Kerberos"),
        ({"kerberos_principal": "p"}, "Kerberos"),
        ({"ssl_cafile": "ca.pem"}, "stunnel"),
        ({"port": 0}, "port = 0"),
        ({"port": "9090"}, "port = '9090'"),
        ({"port": True}, "port = True"),
        ({"thrift2_port": 70000}, "thrift2_port"),
        ({"regions": 257}, "regions"),
        ({"connections": 0}, "connections"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"prefix": "a b"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"host": ""}, "host"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        HBaseTable({"host": "127.0.0.1", "port": 9090, **wrong})


def test_a_table_is_made_without_a_server() -> None:
    HBaseTable({"host": "nowhere.invalid", "port": 1, "thrift2_port": 2, "prefix": "analytics:penstock_"}).close()


# --- the bytes of a put


def read_put(message: bytes) -> tuple[bytes, list[tuple[bytes, bytes, bytes]], int]:
    """Table, cells and timestamp of a `mutateRowsTs`, as thriftpy2 reads it."""
    source = io.BytesIO(message)
    source.close_at = None  # type: ignore[attr-defined]
    protocol = TBinaryProtocol(TBufferedTransport(source), decode_response=False)
    name, kind, _ = protocol.read_message_begin()
    assert (name, kind) == (b"mutateRowsTs", TMessageType.CALL) or (name, kind) == ("mutateRowsTs", TMessageType.CALL)
    call = thrift1.Hbase.mutateRowsTs_args()
    call.read(protocol)
    cells = []
    for batch in call.rowBatches:
        for mutation in batch.mutations:
            assert not mutation.isDelete and mutation.writeToWAL
            cells.append((batch.row, mutation.column, mutation.value))
    return call.tableName, cells, call.timestamp


_bytes = st.binary(max_size=4)
_cells = st.lists(st.tuples(_bytes, _bytes, st.binary(max_size=60)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(cells=_cells, at=st.integers(0, 2**63 - 1), most_cells=st.integers(1, 9), most_bytes=st.integers(1, 400))
def test_a_puts_messages_hold_the_last_value_of_every_cell_once_and_are_bounded(
    cells: list[tuple[bytes, bytes, bytes]], at: int, most_cells: int, most_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_CELLS", most_cells)
        patch.setattr(wire, "_BYTES", most_bytes)
        messages = list(wire.put_messages(b"t", b"c", cells, at))
    found: dict[tuple[bytes, bytes], bytes] = {}
    for message in messages:
        table, some, timestamp = read_put(message)
        assert (table, timestamp) == (b"t", at)
        assert 1 <= len(some) <= most_cells
        assert len(some) == 1 or len(message) <= most_bytes + 300
        for row, column, value in some:
            assert column.startswith(b"c:") and (row, column[2:]) not in found
            found[row, column[2:]] = value
    assert found == {(row, column): value for row, column, value in cells}


def test_messages_of_a_large_put_are_full() -> None:
    cells = [(b"%06d" % (n // 4), b"%d" % (n % 4), b"v" * 50) for n in range(50_000)]
    assert [len(read_put(message)[1]) for message in wire.put_messages(b"t", b"c", cells, 1)] == [5000] * 10
    large = [(b"r%d" % n, b"c", b"v" * (1 << 20)) for n in range(5)]
    assert [len(read_put(message)[1]) for message in wire.put_messages(b"t", b"c", large, 1)] == [1] * 5


# --- plans of gets


@settings(max_examples=300, deadline=None)
@given(
    keys=st.lists(st.tuples(st.binary(max_size=2), st.integers(0, 40).map(lambda n: b"%d" % n)), max_size=120), needless=st.integers(0, 50)
)
def test_a_plan_covers_every_key_with_each_row_once_and_little_that_is_needless(keys: list[tuple[bytes, bytes]], needless: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookups, "_NEEDLESS", needless)
        requests = list(lookups.plan(keys))
    wanted = set(keys)
    rows = [row for some, _ in requests for row in some]
    assert len(rows) == len(set(rows)) and set(rows) == {row for row, _ in wanted}
    covered = set()
    for some, columns in requests:
        asked = {(row, column) for row in some for column in columns}
        assert len(asked - wanted) <= needless
        covered |= asked
    assert wanted <= covered


def test_rows_that_want_the_same_columns_share_one_request() -> None:
    keys = [(b"%04d" % row, b"%d" % column) for row in range(1000) for column in (1, 2)]
    [(rows, columns)] = lookups.plan(keys)
    assert (len(rows), columns) == (1000, [b"1", b"2"])
    assert len(list(lookups.plan([(b"%04d" % n, b"%d" % (n % 5)) for n in range(1000)]))) == 5


def test_an_appetite_grows_with_small_answers_and_falls_at_once_with_a_large_one() -> None:
    hunger = appetite.Appetite(start=10, limit=500)
    seen = []
    for size in (100, 100, 100, 100):
        hunger.took(hunger.next, size)
        seen.append(hunger.next)
    assert seen == [40, 160, 500, 500]
    hunger.took(500, 500 << 20)
    assert hunger.next == 4
    hunger.took(4, 1 << 40)
    assert hunger.next == 1


def test_split_points_cut_the_first_byte_evenly() -> None:
    assert split_points(1) == []
    assert split_points(4) == [b"\x40", b"\x80", b"\xc0"]
    assert split_points(256) == [bytes([n]) for n in range(1, 256)]
    assert split_points(3) == [b"\x55", b"\xaa"]


# --- meanings of errors


def _io_error(text: str) -> Any:
    return thrift1.IOError(message=text.encode())


@pytest.mark.parametrize(
    "problem, kind, says",
    [
        (_io_error("org.apache.hadoop.hbase.TableNotFoundException: p_t\n\tat x"), NotFoundError, "no table 't'"),
        (_io_error("org.apache.hadoop.hbase.TableNotEnabledException: p_t is disabled."), UnavailableError, "disabled"),
        (_io_error("x.NoSuchColumnFamilyException: Column family c does not exist"), ConfigurationError, "prefix"),
        (_io_error("org.apache.hadoop.hbase.NamespaceNotFoundException: ns"), ConfigurationError, "namespace"),
        (_io_error("org.apache.hadoop.hbase.security.AccessDeniedException: no"), ConfigurationError, "grant"),
        (thrift1.IllegalArgument(message=b"java.lang.IllegalArgumentException: KeyValue size too large"), ConfigurationError, "10 MiB"),
        (thrift1.IllegalArgument(message=b"java.lang.IllegalArgumentException: Row length is 0"), InternalError, "Row length"),
        (thrift1.IllegalArgument(message=b"scanner ID is invalid"), UnavailableError, "scanner"),
        (_io_error("org.apache.hadoop.hbase.NotServingRegionException: r\n\tat y"), UnavailableError, "NotServingRegion"),
        (_io_error(""), UnavailableError, "IOError"),
        (TApplicationException(TApplicationException.UNKNOWN_METHOD, "Invalid method name"), ConfigurationError, "thrift2_port"),
        (TApplicationException(TApplicationException.INTERNAL_ERROR, "Internal error"), UnavailableError, "Internal error"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_error_of_the_server_is_a_mistake_a_bug_or_an_outage(problem: Exception, kind: type[Exception], says: str) -> None:
    found = meaning(problem, "the server", "t")
    assert type(found) is kind
    assert says in str(found) and "\tat" not in str(found)


# --- faults of connections


@contextlib.contextmanager
def server(talk: Callable[[socket.socket, int], None]) -> Iterator[tuple[int, list[float]]]:
    """A port where each connection, numbered, meets `talk`; and when each came."""
    listener = socket.create_server(("127.0.0.1", 0))
    came: list[float] = []
    threads: list[threading.Thread] = []

    def met(connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection, number)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                came.append(time.monotonic())
                threads.append(threading.Thread(target=met, args=(connection, len(came) - 1), daemon=True))
                threads[-1].start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], came
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def table_at(port: int, **more: Any) -> HBaseTable:
    """A table that asks a port, with a timeout of half a second."""
    return HBaseTable({"host": "127.0.0.1", "port": port, "timeout": 0.5, **more})


CALLS: dict[str, Callable[[HBaseTable], object]] = {
    "tables": lambda table: table.tables(),
    "create": lambda table: table.create("t"),
    "put": lambda table: table.put("t", [(b"r", b"c", b"v")], 1),
    "get": lambda table: table.get("t", [(b"r", b"c")]),
    "rows": lambda table: table.rows("t", [b"r"]),
    "scan": lambda table: table.scan("t"),
    "compare_and_set": lambda table: table.compare_and_set("t", b"r", b"c", None, b"v"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_does_not_answer_is_unavailable_in_time(call: str) -> None:
    with server(lambda connection, _: time.sleep(5)) as (port, _):
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} has not answered within 0.5 s") as caught:
            CALLS[call](table_at(port))
        assert 0.4 < time.monotonic() - began < 1.5
        assert caught.value.retriable


def test_a_server_that_answers_a_byte_at_a_time_does_not_stretch_the_time() -> None:
    def drip(connection: socket.socket, _: int) -> None:
        for byte in b"\x80\x01\x00\x02" + b"\x00" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.2)

    with server(drip) as (port, _):
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            table_at(port).tables()
        assert time.monotonic() - began < 1.5


def test_an_address_where_nobody_ever_listened_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} cannot be reached .*refused"):
        table_at(port, timeout=30).tables()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("call", [name for name in CALLS if name not in ("create", "compare_and_set")])
def test_a_call_that_may_be_repeated_is_on_a_new_connection_after_a_pause(call: str) -> None:
    with server(lambda connection, _: connection.recv(100) and None) as (port, came):  # hangs up at each request
        with pytest.raises(UnavailableError, match="broken the connection"):
            CALLS[call](table_at(port))
    assert 3 <= len(came) <= 8
    pauses = [later - earlier for earlier, later in zip(came, came[1:])]
    assert pauses[-1] > 2 * pauses[0] > 0.04, pauses


def test_a_compare_and_set_whose_answer_is_lost_is_not_sent_again() -> None:
    sent: list[bytes] = []
    with server(lambda connection, _: sent.append(connection.recv(1000))) as (port, came):
        with pytest.raises(UnavailableError):
            table_at(port).compare_and_set("t", b"r", b"c", None, b"v")
        time.sleep(0.3)
    assert len(came) == 1 and len(sent) == 1 and b"checkAndPut" in sent[0]


def test_a_server_that_speaks_something_else_is_a_mistake() -> None:
    with server(lambda connection, _: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (port, _):
        with pytest.raises(ConfigurationError, match="binary protocol"):
            table_at(port).tables()


def _names(connection: socket.socket) -> None:
    """Answer a `getTableNames` with no names."""
    connection.recv(1000)
    connection.sendall(b"\x80\x01\x00\x02\x00\x00\x00\x0dgetTableNames\x00\x00\x00\x00\x0f\x00\x00\x0b\x00\x00\x00\x00\x00")


def test_a_connection_that_was_closed_while_idle_is_replaced_before_anything_is_sent() -> None:
    late: list[bytes] = []

    def talk(connection: socket.socket, number: int) -> None:
        _names(connection)
        if number == 1:
            late.append(connection.recv(1000))

    with server(talk) as (port, came):
        table = table_at(port)
        assert table.tables() == []
        time.sleep(0.1)
        assert table.tables() == []
        with pytest.raises(UnavailableError):
            table.compare_and_set("t", b"r", b"c", None, b"v")  # on the second connection, which is still open
        assert len(came) == 2 and b"checkAndPut" in late[0]


def test_more_calls_at_once_than_connections_wait_for_one_and_not_for_ever() -> None:
    def slow(connection: socket.socket, _: int) -> None:
        while True:
            time.sleep(0.2)
            _names(connection)

    with server(slow) as (port, came):
        table = table_at(port, connections=1)
        outcomes: list[object] = []

        def call() -> None:
            try:
                outcomes.append(table.tables())
            except UnavailableError as problem:
                outcomes.append(str(problem))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(came) <= 2 and len(outcomes) == 4
    assert all(outcome == [] or "all 1 connections" in str(outcome) or "has not answered" in str(outcome) for outcome in outcomes), outcomes


def test_a_closed_table_keeps_no_connection() -> None:
    ended = threading.Event()

    def talk(connection: socket.socket, _: int) -> None:
        _names(connection)
        connection.recv(1)
        ended.set()

    with server(talk) as (port, _):
        table = table_at(port)
        table.tables()
        assert not ended.is_set()
        table.close()
        assert ended.wait(2)
