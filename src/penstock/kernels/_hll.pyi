class Hll:
    """A HyperLogLog of 2**precision registers, 4 <= precision <= 16; each holds the greatest rank seen. InternalError for another precision."""

    precision: int
    def __init__(self, precision: int) -> None: ...
    def add(self, hashed: int) -> None:
        """Count a value by its XXH64."""
    def merge(self, other: Hll) -> None:
        """Add what another of the same precision has counted. InternalError if it is of another."""
    def registers(self) -> bytes:
        """All registers, a byte each."""
    def estimate(self) -> float:
        """How many different values (Ertl's improved raw estimator)."""
    def to_bytes(self) -> bytes:
        """Its part of a cell: sparse while that is smaller, else dense."""
    @classmethod
    def from_bytes(cls, data: bytes, precision: int) -> Hll:
        """The sketch of its bytes. Raises CorruptionError."""
