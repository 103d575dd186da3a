import numpy as np
import numpy.typing as npt

from penstock.kernels.framing import Slices

def encode_records(
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    first: int,
    limit: int,
    keys: Slices | None = None,
    headers: Slices | None = None,
) -> tuple[bytes, int, int, int]: ...
def encode_batch(
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    *,
    keys: Slices | None = None,
    headers: Slices | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    base_offset: int = 0,
    codec: str = "lz4",
    attributes: int = 0,
) -> bytes: ...
def encode_batches(
    values: Slices,
    timestamps: npt.NDArray[np.int64],
    *,
    keys: Slices | None = None,
    headers: Slices | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    codec: str = "lz4",
    batch_bytes: int = 65536,
) -> list[bytes]: ...
def walk_batches(data: bytes | memoryview, position: int, limit: int) -> tuple[npt.NDArray[np.int64], int]: ...
def murmur2(key: bytes) -> int: ...
def partitions_of(keys: Slices, count: int) -> npt.NDArray[np.int32]: ...
def find_lines(block: bytes | memoryview) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]: ...
def find_elements(block: bytes | memoryview, most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]: ...
