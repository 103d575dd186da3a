"""Records to Kafka v2 record batches, by the backend that runs (`penstock.kernels.backend`)."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from penstock.kernels import backend
from penstock.kernels.framing import Header, Slices, encode_headers

if backend == "compiled":
    from penstock.kernels._encode import encode_batch, encode_batches, find_elements, find_lines, murmur2, partitions_of, walk_batches
else:
    from penstock.kernels.reference_encode import (
        encode_batch,
        encode_batches,
        find_elements,
        find_lines,
        murmur2,
        partitions_of,
        walk_batches,
    )

__all__ = [
    "Header",
    "Slices",
    "encode_batch",
    "encode_batches",
    "encode_headers",
    "encode_list",
    "find_elements",
    "find_lines",
    "murmur2",
    "partitions_of",
    "walk_batches",
]


def encode_list(
    values: Sequence[bytes | None],
    timestamps: Sequence[int],
    *,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Sequence[Header]] | None = None,
    base_offset: int = 0,
    codec: str = "lz4",
    attributes: int = 0,
) -> bytes:
    """One record batch of Python objects, one a record: convenient, and several times slower than `encode_batch`."""
    return encode_batch(
        Slices.of(values),
        np.array(timestamps, np.int64),
        keys=None if keys is None else Slices.of(keys),
        headers=None if headers is None else Slices.of([encode_headers(h) for h in headers]),
        base_offset=base_offset,
        codec=codec,
        attributes=attributes,
    )
