"""Exact numbers, instants and text from what stands in a record; shared by both decoders."""
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint8_t

from penstock.kernels._bytes cimport nearest

cdef const uint8_t *number_end(const uint8_t *p, const uint8_t *end, bint *whole) noexcept nogil
cdef int scale_text(const uint8_t *p, int64_t n, int shift, int64_t *out) noexcept nogil
cdef int scale_double(double value, int shift, int64_t *out) noexcept nogil
cdef int parse_long(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil
cdef int parse_instant(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil
cdef int64_t unescape(const uint8_t *p, int64_t n, uint8_t *out) noexcept nogil


cdef inline bint scale_plain_double(double value, double factor, int64_t *out) noexcept nogil:
    """`scale_double` without its hard cases: False where the value is one of them, or no number.

    The shortest text differs from the value by at most half a unit in the last place, and the product here by as much again: where the product is
    further from a tie than that, both round to the same.
    """
    cdef double product = value * factor
    if not fabs(product) < 4e15:
        return False
    out[0] = nearest(product)
    return fabs(product - <double>out[0]) <= 0.5 - fabs(product) * 8.9e-16
