"""A row's cells in one piece, in plain Python: see `penstock.kernels._packed`."""

from __future__ import annotations

import struct

from penstock.errors import InternalError


def pack_cells(cells: dict[bytes, bytes]) -> bytes:
    """A row's values by column, in one piece. Raises InternalError for a column of 64 KiB and more, and for a value of 4 GiB."""
    try:
        return b"".join(struct.pack(">H", len(column)) + column + struct.pack(">I", len(value)) + value for column, value in cells.items())
    except struct.error:
        raise InternalError("a cell is too large to be packed") from None


def unpack_cells(packed: bytes) -> dict[bytes, bytes]:
    """The values by column. Raises InternalError for other bytes."""
    cells, at = {}, 0
    while at < len(packed):
        parts = []
        for size in (2, 4):
            begin = at + size
            at = begin + int.from_bytes(packed[at:begin], "big")
            parts.append(packed[begin:at])
        if at > len(packed):
            raise InternalError("the bytes are no packed cells")
        cells[parts[0]] = parts[1]
    return cells
