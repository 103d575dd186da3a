"""The slow way round: record batches made again of the records that kafka-python decoded, for where its private part is not as `raw` knows it."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from penstock.kernels.encode import encode_list
from penstock.log.batches import walk
from penstock.log.kafka.segments import Segment


def segment_of(records: Sequence[Any], start: int, end: int) -> Segment:
    """The records that a consumer found in [start, end), as if they had been fetched raw. Offsets that are missing hold none for the reader.

    records: kafka-python's ConsumerRecords, in order.
    """
    batches, run = [], list[Any]()
    for record in records:
        if run and record.offset != run[-1].offset + 1:
            batches.append(_batch(run))
            run = []
        run.append(record)
    if run:
        batches.append(_batch(run))
    data = b"".join(batches)
    rows = walk(data, 0, len(data), "records") if data else np.empty((0, 6), np.int64)
    return Segment(start, end, rows, data)


def _batch(run: Sequence[Any]) -> bytes:
    return encode_list(
        [record.value for record in run],
        [record.timestamp * 1000 for record in run],
        keys=[record.key for record in run],
        headers=[record.headers for record in run],
        base_offset=run[0].offset,
        codec="none",
    )
