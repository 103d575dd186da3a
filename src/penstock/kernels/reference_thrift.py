"""Rows of HBase's Thrift interface in plain Python: see `penstock.kernels._thrift`."""

from __future__ import annotations

import struct

from penstock.kernels.reference_packed import pack_cells

_I64, _STRING, _STRUCT, _MAP, _LIST = 10, 11, 12, 13, 15
_REPLY = 0x80010002


class _More(Exception):
    """The bytes end too early."""


class _Source:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size < 0:
            raise ValueError("a length is negative")
        if self.at + size > len(self.data):
            raise _More
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self) -> int:
        return int(struct.unpack(">i", self.take(4))[0])

    def text(self) -> bytes:
        return self.take(self.number())

    def field(self) -> tuple[int, int]:
        kind = self.take(1)[0]
        return (kind, int.from_bytes(self.take(2), "big")) if kind else (0, 0)


class RowsReply:
    """The answer to a call that gives `list<TRowResult>`."""

    def __init__(self, method: bytes, skip: int) -> None:
        self.rows: list[tuple[bytes, bytes]] = []
        self.rest, self.size, self.begun = b"", 0, False
        self._method, self._skip, self._left = method, skip, -1

    def feed(self, data: bytes) -> bool:
        """Read on. True: it is whole. Raises ValueError for other bytes; as long as it has not `begun`, they are an answer of another kind, and all in `rest`."""
        source = _Source(self.rest + data)
        self.rest, self.size, whole, kept = source.data, self.size + len(data), False, 0
        try:
            if not self.begun:
                self._left = self._head(source)
                self.begun, kept = True, source.at
            while self._left > 0:
                self.rows.append(self._row(source))
                self._left, kept = self._left - 1, source.at
            if source.take(1) != b"\0":
                raise ValueError("another field follows the rows")
            whole, kept = True, source.at
        except _More:
            if not self.begun:
                return False
        self.rest = source.data[kept:]
        return whole

    def _head(self, source: _Source) -> int:
        kind, length = source.number() & 0xFFFFFFFF, source.number()
        if kind != _REPLY or length != len(self._method):
            raise ValueError("it is no reply to that call")
        if source.take(length + 4)[:length] != self._method:
            raise ValueError("it is no reply to that call")
        if source.field() != (_LIST, 0):
            raise ValueError("it is no list")
        kind, count = source.take(1)[0], source.number()
        if (kind != _STRUCT and count != 0) or count < 0:
            raise ValueError("it is no list of rows")
        return count

    def _row(self, source: _Source) -> tuple[bytes, bytes]:
        row: bytes = b""
        cells: dict[bytes, bytes] = {}
        while (field := source.field()) != (0, 0):
            if field == (_STRING, 1):
                row = source.text()
            elif field == (_MAP, 2):
                kinds, count, cells = source.take(2), source.number(), {}
                if count != 0 and kinds != bytes((_STRING, _STRUCT)):
                    raise ValueError("a row's columns are no map of cells")
                for _ in range(max(count, 0)):
                    column = source.text()
                    if len(column) < self._skip:
                        raise ValueError("a column has no family")
                    if len(column) - self._skip >= 1 << 16:
                        raise ValueError("a column is too long")
                    value = self._cell(source)
                    if value is not None:
                        cells[column[self._skip :]] = value
            else:
                raise ValueError(f"a row has a field {field[1]} of type {field[0]}")
        return row, pack_cells(dict(sorted(cells.items())))

    @staticmethod
    def _cell(source: _Source) -> bytes | None:
        value = None
        while (field := source.field()) != (0, 0):
            if field == (_STRING, 1):
                value = source.text()
            elif field == (_I64, 2):
                source.take(8)
            else:
                raise ValueError(f"a cell has a field {field[1]} of type {field[0]}")
        return value
