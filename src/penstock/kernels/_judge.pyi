import numpy as np
import numpy.typing as npt

NO_WATERMARK: int
ACCEPTED: int
LATE: int
REJECTED: int

def judge(
    times: npt.NDArray[np.int64],
    log_timestamps: npt.NDArray[np.int64],
    reject: npt.NDArray[np.int32],
    start: int,
    stop: int,
    watermark: int,
    lateness: int,
    ahead: int,
    verdict: npt.NDArray[np.uint8],
) -> tuple[int, int, int, int]:
    """Judge the records [start, stop) in order; returns (watermark, accepted, late, rejected), the watermark as of `stop`."""
