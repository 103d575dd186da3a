class RowsReply:
    """The answer to a call that gives `list<TRowResult>`; see `penstock.kernels._thrift.RowsReply`."""

    rows: list[tuple[bytes, bytes]]
    rest: bytes
    size: int
    begun: bool

    def __init__(self, method: bytes, skip: int) -> None: ...
    def feed(self, data: bytes) -> bool:
        """Read on. True: it is whole. Raises ValueError for other bytes; as long as it has not `begun`, they are an answer of another kind, and all in `rest`."""
