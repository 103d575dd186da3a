"""The bounds of a partition: which of its bytes are durable, in a file of 40 bytes that appenders write and any process reads."""

from __future__ import annotations

import dataclasses
import os
import struct
import time

from crc32c import crc32c

_FORM = struct.Struct(">4sqqqq")
_MAGIC = b"PSB1"
_SIZE = _FORM.size + 4
_PATIENCE = 50  # looks at a file that is being written


@dataclasses.dataclass(frozen=True)
class Bounds:
    """start: the first offset that can be read. end: the one behind the last durable record, which ends at byte `position` of the segment that
    begins with offset `segment`."""

    start: int
    end: int
    segment: int
    position: int

    def write(self, descriptor: int) -> None:
        """Publish. Not synced: recovery finds what a power loss leaves out of date."""
        form = _FORM.pack(_MAGIC, self.start, self.end, self.segment, self.position)
        os.pwrite(descriptor, form + crc32c(form).to_bytes(4, "big"), 0)

    @classmethod
    def read(cls, descriptor: int) -> Bounds | None:
        """What was published last; None for a file that is empty or damaged. A write seen half done is read again."""
        for attempt in range(_PATIENCE):
            raw = os.pread(descriptor, _SIZE, 0)
            if len(raw) == _SIZE and crc32c(raw[:-4]) == int.from_bytes(raw[-4:], "big") and raw[:4] == _MAGIC:
                return cls(*_FORM.unpack(raw[:-4])[1:])
            if not raw:
                return None
            time.sleep(0.0002 * (attempt > 3))
        return None
