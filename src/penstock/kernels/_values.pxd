"""Exact numbers, instants and text from what stands in a record; shared by both decoders."""
from libc.stdint cimport int64_t, uint8_t

cdef const int64_t *POWERS  # 10**0 .. 10**18

cdef const uint8_t *number_end(const uint8_t *p, const uint8_t *end, bint *whole) noexcept nogil
cdef int scale_text(const uint8_t *p, int64_t n, int shift, int64_t *out) noexcept nogil
cdef int scale_double(double value, int shift, int64_t *out) noexcept nogil
cdef int parse_long(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil
cdef int parse_instant(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil
cdef int64_t unescape(const uint8_t *p, int64_t n, uint8_t *out) noexcept nogil
