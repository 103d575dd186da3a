"""Which records count: accepted, late or rejected."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from penstock.errors import InternalError
from penstock.kernels import reasons

NO_WATERMARK = -(2**62)  # before the first valid record; a lateness taken from it still fits 64 bits
ACCEPTED, LATE, REJECTED = 0, 1, 2
cdef uint64_t WIDEST = 2**64 - 1  # no two numbers of 64 bits are further apart


cdef inline bint exceeds(int64_t time, int64_t other, uint64_t by) noexcept nogil:
    """Whether a time is after another by more than so much. Unsigned, the difference cannot overflow."""
    return time > other and <uint64_t>time - <uint64_t>other > by


def judge(const int64_t[::1] times not None, const int64_t[::1] log_timestamps not None, int32_t[::1] reject not None, Py_ssize_t start, Py_ssize_t stop,
          int64_t watermark, lateness, ahead, uint8_t[::1] verdict not None):
    """Judge the records [start, stop) in order; returns (watermark, accepted, late, rejected), the watermark as of `stop`.

    times and log_timestamps: int64, microseconds. reject: int32 codes; FUTURE is written where a record that fits the schema claims a time more than
    `ahead` after its log timestamp. verdict: uint8, written: 0 accepted; 1 late, by more than `lateness` before the watermark as of the record
    before it; 2 rejected. The watermark is the largest time of accepted and late records. Raises InternalError for rows that are not there.
    """
    cdef int64_t counts[3]
    cdef uint64_t allowed, early
    cdef int64_t time, mark = watermark
    cdef int32_t future = reasons.FUTURE
    cdef Py_ssize_t row, count = min(times.shape[0], log_timestamps.shape[0], reject.shape[0], verdict.shape[0])
    if not 0 <= start <= stop <= count:
        raise InternalError(f"rows [{start}, {stop}) are not within arrays of {count}")
    if lateness < 0 or ahead < 0:
        raise InternalError(f"lateness {lateness} and ahead {ahead} must not be negative")
    allowed, early = min(lateness, WIDEST), min(ahead, WIDEST)
    counts[0] = counts[1] = counts[2] = 0
    with nogil:
        for row in range(start, stop):
            time = times[row]
            if reject[row] == 0 and exceeds(time, log_timestamps[row], early):
                reject[row] = future
            if reject[row] != 0:
                verdict[row] = 2
            else:
                verdict[row] = exceeds(mark, time, allowed)
                mark = max(mark, time)
            counts[verdict[row]] += 1
    return mark, counts[0], counts[1], counts[2]
