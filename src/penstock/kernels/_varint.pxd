"""Bounds-checked reading, and writing, of the variable-length numbers of a cell: 7 bits a byte, the lowest first, the top bit set on all but the last.

Reading never raises: it returns -1 and leaves the problem in the reader, so that it needs no GIL. Only the shortest form of a number is read.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    typedef __int128 penstock_int128;
    typedef unsigned __int128 penstock_uint128;
    """
    ctypedef long long int128 "penstock_int128"
    ctypedef unsigned long long uint128 "penstock_uint128"

cdef struct reader_t:
    const uint8_t *at
    const uint8_t *end
    const char *problem


cdef inline int fail(reader_t *reader, const char *problem) noexcept nogil:
    reader.problem = problem
    return -1


cdef inline int get_varint(reader_t *reader, int bits, uint64_t *value) noexcept nogil:
    """A number of at most `bits` bits, 64 or fewer."""
    cdef uint8_t byte
    cdef int shift = 0
    value[0] = 0
    while True:
        if reader.at >= reader.end:
            return fail(reader, "it ends within a number")
        byte = reader.at[0]
        reader.at += 1
        if (byte == 0 and shift != 0) or shift >= bits or (bits - shift < 7 and (byte & 0x7F) >> (bits - shift) != 0):
            return fail(reader, "a number is too large or not in its shortest form")
        value[0] |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return 0
        shift += 7


cdef inline int get_varint128(reader_t *reader, int bits, uint128 *value) noexcept nogil:
    """A number of at most `bits` bits, 128 or fewer."""
    cdef uint8_t byte
    cdef int shift = 0
    value[0] = 0
    while True:
        if reader.at >= reader.end:
            return fail(reader, "it ends within a number")
        byte = reader.at[0]
        reader.at += 1
        if (byte == 0 and shift != 0) or shift >= bits or (bits - shift < 7 and (byte & 0x7F) >> (bits - shift) != 0):
            return fail(reader, "a number is too large or not in its shortest form")
        value[0] |= <uint128>(byte & 0x7F) << shift
        if byte < 0x80:
            return 0
        shift += 7


cdef inline uint8_t *put_varint(uint8_t *out, uint64_t value) noexcept nogil:
    """Write a number; the place after it. At most 10 bytes."""
    while value > 0x7F:
        out[0] = <uint8_t>(value & 0x7F) | 0x80
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1


cdef inline uint8_t *put_varint128(uint8_t *out, uint128 value) noexcept nogil:
    """Write a number; the place after it. At most 19 bytes."""
    while value > 0x7F:
        out[0] = <uint8_t>(value & 0x7F) | 0x80
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1
