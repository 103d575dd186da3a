def pack_cells(cells: dict[bytes, bytes]) -> bytes:
    """A row's values by column, in one piece. Raises InternalError for a column of 64 KiB and more, and for a value of 4 GiB."""

def unpack_cells(packed: bytes) -> dict[bytes, bytes]:
    """The values by column. Raises InternalError for other bytes."""
