"""What a fetch brought: record batches as they came, and which of their offsets hold nothing for the reader."""

from __future__ import annotations

import dataclasses
from typing import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigurationError, CorruptionError, PenstockError
from penstock.kernels.encode import walk_batches
from penstock.kernels.framing import CONTROL
from penstock.log import Chunk, Range
from penstock.log.batches import ATTRIBUTES, FIRST, NEXT, POSITION, Walk, chunk_of, fitting, merged

TRANSACTIONAL = 0x10  # attribute bit
PRODUCER_AT, COUNT_AT, MAGIC_AT = 43, 57, 16  # in a batch's header
Aborted = tuple[int, int]  # a producer id and the first offset of a transaction of its that was aborted


@dataclasses.dataclass(frozen=True)
class Segment:
    """Offsets [start, next) of a partition. rows: `walk_batches` of data; batches that are not for the reader have the CONTROL bit.

    Offsets between batches, and behind the last, hold no record.
    """

    start: int
    next: int
    rows: Walk
    data: bytes

    def chunk(self, offset: int, max_bytes: int, max_offsets: int) -> Chunk:
        """What a read at `offset`, which lies in here, answers."""
        first = int(np.searchsorted(self.rows[:, NEXT], offset, "right"))
        if first == len(self.rows):
            return Chunk(offset, self.next, ((offset, self.next),), (), b"")
        count = fitting(self.rows[first:], offset, max_bytes, max_offsets)
        rows = self.rows[first : first + count]
        chunk = chunk_of(offset, rows, self.data, 0)
        end = self.next if first + count == len(self.rows) else chunk.next
        before = np.concatenate(([offset], rows[:, NEXT]))
        after = np.concatenate((rows[:, FIRST], [end]))
        gaps = after > before
        if not gaps.any():
            return chunk
        empty = [(int(start), int(stop)) for start, stop in zip(before[gaps], after[gaps])]
        return dataclasses.replace(chunk, next=end, skipped=merged(sorted([*chunk.skipped, *empty])))


def parse(what: str, start: int, data: bytes, aborted: Iterable[Aborted] = ()) -> Segment | PenstockError | None:
    """The whole batches of a fetch at `start`; None if there are none.

    Where one that cannot be read comes first, the error to raise, naming the partition `what`; where it comes later, what is before it.
    """
    rows, broken = walk_batches(data, 0, len(data))
    problem: PenstockError | None = None
    if broken >= 0:
        problem = _unreadable(what, data[broken + MAGIC_AT])
    if len(rows):
        holes = np.flatnonzero((_field(data, rows, COUNT_AT, 4) != rows[:, NEXT] - rows[:, FIRST]) & (rows[:, ATTRIBUTES] & CONTROL == 0))
        if len(holes):
            rows = rows[: holes[0]]
            problem = ConfigurationError(
                f"{what} was compacted at or behind offset {int(rows[-1, NEXT]) if len(rows) else start}: records are missing inside a batch",
                hint="a log that was compacted cannot be replayed exactly: copy the topic to one with cleanup.policy=delete",
            )
    if not len(rows):
        return problem
    if (rows[:, ATTRIBUTES] & TRANSACTIONAL).any():
        rows[_aborted(data, rows, aborted), ATTRIBUTES] |= CONTROL
    return Segment(start, int(rows[-1, NEXT]), rows, data)


def _unreadable(what: str, magic: int) -> PenstockError:
    if magic < 2:
        return ConfigurationError(
            f"{what} holds records in the old message format {magic}", hint="copy the topic with a current producer: format 2 is read"
        )
    return CorruptionError(f"{what}: the broker sent what is no record batch", hint="run Kafka's own DumpLogSegments over that partition")


def _field(data: bytes, rows: Walk, at: int, width: int) -> npt.NDArray[np.int64]:
    """A big-endian field of each batch's header."""
    where = rows[:, POSITION][:, None] + np.arange(at, at + width)
    found: npt.NDArray[np.int64] = np.frombuffer(data, np.uint8)[where].view(f">i{width}")[:, 0].astype(np.int64)
    return found


def _aborted(data: bytes, rows: Walk, aborted: Iterable[Aborted]) -> list[int]:
    """Which batches belong to transactions that were aborted: from a transaction's first offset to the producer's next marker."""
    waiting = sorted(aborted, key=lambda one: one[1], reverse=True)
    if not waiting:
        return []
    found, gone = [], set[int]()
    chosen = np.flatnonzero(rows[:, ATTRIBUTES] & TRANSACTIONAL)
    for row, producer in zip(chosen.tolist(), _field(data, rows[chosen], PRODUCER_AT, 8).tolist()):
        while waiting and waiting[-1][1] < rows[row, NEXT]:
            gone.add(waiting.pop()[0])
        if rows[row, ATTRIBUTES] & CONTROL:
            gone.discard(producer)
        elif producer in gone:
            found.append(row)
    return found


def packed(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks that follow one another as one."""
    if len(chunks) == 1:
        return chunks[0]
    skipped: list[Range] = [one for chunk in chunks for one in chunk.skipped]
    return Chunk(chunks[0].previous, chunks[-1].next, merged(skipped), (), b"".join(chunk.data for chunk in chunks))
