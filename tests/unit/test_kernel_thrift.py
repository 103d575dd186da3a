"""Rows of HBase's Thrift answers: what thriftpy2 writes is read back, however it is cut, and other bytes are told from it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.thrift import TMessageType
from thriftpy2.transport import TMemoryBuffer

from penstock.kernels import reference_thrift, unpack_cells
from penstock.table.hbase.interfaces import thrift1

MODULES = ["reference_thrift", *([] if os.environ.get("PENSTOCK_KERNELS") == "reference" else ["_thrift"])]
BOTH = pytest.mark.parametrize("module", MODULES)
SKIP = len(b"c:")
some = st.binary(max_size=12)
results = st.lists(st.tuples(some, st.dictionaries(some, some, max_size=5)), max_size=6)


def reply_of(module: str, method: bytes = b"getRows") -> Any:
    return importlib.import_module(f"penstock.kernels.{module}").RowsReply(method, SKIP)


def answered(name: str, **result: Any) -> bytes:
    """The bytes of an answer, by thriftpy2."""
    memory = TMemoryBuffer()
    protocol = TBinaryProtocol(memory)
    protocol.write_message_begin(name, TMessageType.REPLY, 0)
    getattr(thrift1.Hbase, f"{name}_result")(**result).write(protocol)
    protocol.write_message_end()
    return bytes(memory.getvalue())


def bytes_of(rows: list[tuple[bytes, dict[bytes, bytes]]], name: str = "getRows") -> bytes:
    made = [
        thrift1.TRowResult(row=row, columns={b"c:" + column: thrift1.TCell(value=value, timestamp=7) for column, value in cells.items()})
        for row, cells in rows
    ]
    return answered(name, success=made)


def fed(reply: Any, data: bytes, step: int) -> bool:
    """Whether it is whole after all of it, in pieces."""
    whole = False
    for at in range(0, len(data), step):
        assert not whole
        whole = reply.feed(data[at : at + step])
    return whole


@BOTH
@given(results, st.integers(1, 60), st.binary(max_size=5))
@settings(deadline=None)
def test_rows_are_read_however_they_are_cut(module: str, rows: list[tuple[bytes, dict[bytes, bytes]]], step: int, behind: bytes) -> None:
    data = bytes_of(rows, "scannerGetList")
    reply = reply_of(module, b"scannerGetList")
    assert fed(reply, data, step)
    found = [(row, unpack_cells(cells)) for row, cells in reply.rows]
    assert found == rows and [list(cells) for _, cells in found] == [sorted(cells) for _, cells in rows]
    assert (reply.rest, reply.size, reply.begun) == (b"", len(data), True)
    together = reply_of(module, b"scannerGetList")
    assert together.feed(data + behind) and together.rest == behind and together.rows == reply.rows


@BOTH
def test_an_answer_of_another_kind_is_kept_whole(module: str) -> None:
    others = [answered("getRows", io=thrift1.IOError(message=b"no")), bytes_of([(b"r", {})], "getRow"), b"HTTP/1.1 400 Bad Request"]
    for data in others:
        reply = reply_of(module)
        with pytest.raises(ValueError):
            fed(reply, data, 5)
        assert not reply.begun and data.startswith(reply.rest) and len(reply.rest) == reply.size


@BOTH
@given(results, st.data())
@settings(deadline=None)
def test_damaged_bytes_never_read_beyond_them(module: str, rows: list[tuple[bytes, dict[bytes, bytes]]], data: st.DataObject) -> None:
    damaged = bytearray(bytes_of(rows))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    found = []
    for reply in (reply_of(module), reference_thrift.RowsReply(b"getRows", SKIP)):
        try:
            found.append((reply.feed(bytes(damaged)), reply.rows, reply.rest))
        except ValueError:
            found.append((None, reply.begun, None))
    assert found[0] == found[1]
