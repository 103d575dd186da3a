"""A segment: one append-only file of record batches, named by its first offset, read through an index of their headers."""

from __future__ import annotations

import bisect
import mmap
import os
from pathlib import Path

from penstock.errors import CorruptionError
from penstock.log.batches import FIRST, NEXT, POSITION, SIZE, TIMESTAMP, Walk, checksum_holds, walk
from penstock.kernels.encode import walk_batches
from penstock.kernels.framing import HEADER_BYTES

WALK_BYTES = 1 << 22  # read at a time to index a segment
GLANCE = 40  # batches whose lengths are looked at before a read; small ones are read first and cut then
INDEX_BYTES = 1 << 18  # one entry of the index a quarter of a MiB
SUFFIX = ".log"


def segment_name(first: int) -> str:
    """The file name of the segment that begins with an offset; names sort as offsets do."""
    return f"{first:020d}{SUFFIX}"


class Segment:
    """Reads one segment. Nothing behind the `limit` that each call is given (a byte position) is looked at: it may not be durable."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.first = path, first
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offsets: list[int] = []  # the index: first offset, position, largest timestamp up to and including that batch
        self._positions: list[int] = []
        self._timestamps: list[int] = []
        self._indexed = 0  # bytes that the index covers
        self._largest = -1

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self.descriptor).st_size

    def position_of(self, offset: int, limit: int) -> int:
        """Where the batch that holds `offset` begins."""
        if offset == self.first:
            return 0  # from the beginning, where most readers start, there is nothing to look up
        self._extend(limit)
        at = self._positions[bisect.bisect_right(self._offsets, offset) - 1]
        while True:
            rows = self.walk(at, limit, INDEX_BYTES)
            holds = int(rows[:, NEXT].searchsorted(offset, "right"))
            if holds < len(rows):
                return int(rows[holds, POSITION])
            at = int(rows[-1, POSITION] + rows[-1, SIZE])

    def position_at(self, timestamp_ms: int, limit: int) -> int | None:
        """Where the first batch begins whose largest timestamp is at or behind `timestamp_ms`; None if there is none."""
        self._extend(limit)
        at = self._positions[max(0, bisect.bisect_left(self._timestamps, timestamp_ms) - 1)] if self._positions else 0
        while at < limit:
            rows = self.walk(at, limit, INDEX_BYTES)
            reached = (rows[:, TIMESTAMP] >= timestamp_ms).nonzero()[0]
            if len(reached):
                return int(rows[reached[0], POSITION])
            at = int(rows[-1, POSITION] + rows[-1, SIZE])
        return None

    def read(self, position: int, limit: int, size: int) -> tuple[bytes, Walk]:
        """Bytes from `position` on, and their whole batches: as many as `size` bytes hold, but one at least. Positions are the file's."""
        size = min(max(size, HEADER_BYTES), limit - position)
        data = os.pread(self.descriptor, self._whole(position, size) or size, position)
        rows = walk(data, 0, len(data), str(self.path))
        if not len(rows) and len(data) >= HEADER_BYTES:
            whole = int.from_bytes(data[8:12], "big") + 12
            if whole <= limit - position:
                data = os.pread(self.descriptor, whole, position)
                rows = walk(data, 0, len(data), str(self.path))
        if not len(rows):
            raise CorruptionError(f"{self.path}: no whole record batch at byte {position}, before the durable end at byte {limit}")
        rows[:, POSITION] += position
        return data, rows

    def _whole(self, position: int, size: int) -> int:
        """How many of the next `size` bytes are whole batches, by their lengths alone, so that what is read need not be cut. 0 if a glance does not tell."""
        used = 0
        for _ in range(GLANCE):
            head = os.pread(self.descriptor, 12, position + used)
            length = int.from_bytes(head[8:], "big") + 12 if len(head) == 12 else size + 1
            if used + length > size:
                return used
            used += length
        return 0

    def walk(self, position: int, limit: int, size: int) -> Walk:
        """Only the headers of what `read` gives."""
        return self.read(position, limit, size)[1]

    def _extend(self, limit: int) -> None:
        while self._indexed < limit:
            for row in self.walk(self._indexed, limit, WALK_BYTES).tolist():
                self._largest = max(self._largest, row[TIMESTAMP])
                if not self._positions or row[POSITION] >= self._positions[-1] + INDEX_BYTES:
                    self._offsets.append(row[FIRST])
                    self._positions.append(row[POSITION])
                    self._timestamps.append(self._largest)
                self._indexed = row[POSITION] + row[SIZE]

    def valid_end(self, position: int, expected: int) -> tuple[int, int]:
        """How far from `position` on the file holds whole batches with right checksums and offsets that go on from `expected`.

        Returns the position and the offset behind the last of them.
        """
        size = self.size()
        if size <= position:
            return position, expected
        with mmap.mmap(self.descriptor, size, prot=mmap.PROT_READ) as view, memoryview(view) as data:
            for row in walk_batches(data, position, size)[0].tolist():
                with data[row[POSITION] : row[POSITION] + row[SIZE]] as batch:
                    if row[FIRST] != expected or not checksum_holds(batch):
                        break
                position, expected = row[POSITION] + row[SIZE], row[NEXT]
        return position, expected

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)
