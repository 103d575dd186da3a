"""A put as bytes of Thrift's binary protocol, made in one go.

A roll-up puts more than it does anything else. Building one Python object a cell and having each written costs 1.5 µs a cell, joining the bytes
half of that; the layout is fixed by the interface (`mutateRowsTs` in happybase's Hbase.thrift), and a test reads it back with thriftpy2.
"""

from __future__ import annotations

import struct
from typing import Iterator, Sequence

from penstock.table import Cell

_METHOD = b"mutateRowsTs"
_CALL = b"\x80\x01\x00\x01"  # protocol version 1, a call
_STRING, _LIST, _I64, _STRUCT, _END = 11, 15, 10, 12, b"\x00"
_length = struct.Struct(">i").pack
_timestamp = struct.Struct(">q").pack
_CELLS = 5000  # of one message: more are not put faster, and fewer are
_BYTES = 2 << 20  # of one message: the server holds a message several times over, for each connection


def _field(kind: int, number: int) -> bytes:
    return struct.pack(">bh", kind, number)


_HEAD = b"".join([_CALL, _length(len(_METHOD)), _METHOD, _length(0), _field(_STRING, 1)])
_BATCHES = _field(_LIST, 2) + bytes([_STRUCT])
_AT = _field(_I64, 3)
_ROW = _field(_STRING, 1)
_MUTATIONS = _field(_LIST, 2) + bytes([_STRUCT])
_COLUMN = _field(_STRING, 2)
_VALUE = _field(_STRING, 3)


def put_messages(table: bytes, family: bytes, cells: Sequence[Cell], timestamp: int) -> Iterator[bytes]:
    """Calls of `mutateRowsTs` that together put the cells, each call of bounded size. Of two values for a cell, the last is put.

    A message holds whole rows, unless a row alone is too large. Fields that keep their defaults are left out: isDelete = false, and
    writeToWAL = true, without which a put would not be durable. timestamp: milliseconds.
    """
    head = b"".join([_HEAD, _length(len(table)), table, _BATCHES])
    tail = b"".join([_AT, _timestamp(timestamp), _END])
    batches: list[bytes] = []
    cells_in, bytes_in = 0, 0
    for batch, count in _batches(family, cells):
        if batches and (cells_in + count > _CELLS or bytes_in + len(batch) > _BYTES):
            yield b"".join([head, _length(len(batches)), *batches, tail])
            batches, cells_in, bytes_in = [], 0, 0
        batches.append(batch)
        cells_in += count
        bytes_in += len(batch)
    if batches:
        yield b"".join([head, _length(len(batches)), *batches, tail])


def _batches(family: bytes, cells: Sequence[Cell]) -> Iterator[tuple[bytes, int]]:
    """A `BatchMutation` for each row, and how many cells it has; more than one for a row that is too large for a message."""
    rows: dict[bytes, dict[bytes, bytes]] = {}
    for row, column, value in cells:
        rows.setdefault(row, {})[column] = value
    extra = len(family) + 1
    mutation = b"%b%%b%b:%%b%b%%b%%b%b" % (_COLUMN, family, _VALUE, _END)
    for row, columns in rows.items():
        start = b"".join([_ROW, _length(len(row)), row, _MUTATIONS])
        mutations: list[bytes] = []
        size = 0
        for column, value in columns.items():
            if mutations and (size + len(value) > _BYTES or len(mutations) == _CELLS):
                yield b"".join([start, _length(len(mutations)), *mutations, _END]), len(mutations)
                mutations, size = [], 0
            mutations.append(mutation % (_length(extra + len(column)), column, _length(len(value)), value))
            size += len(mutations[-1])
        yield b"".join([start, _length(len(mutations)), *mutations, _END]), len(mutations)
