"""Cells: the state of a group in memory, and its bytes; and the row keys that cells lie under. docs/cell-format.md has the layout.

The state of a group is an array of int64 slots, a few a measure: a count has one; a sum two, the low and the high half of 128 bits; an extreme two, the
value and whether there is one; uniques hold a hll_t. All zeros is the empty state.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from penstock.kernels._varint cimport reader_t

cdef enum kind_t:
    COUNT
    SUM
    MIN
    MAX
    UNIQUES

cdef struct measure_t:
    kind_t kind
    int slot
    int precision


cdef class Layout:
    """The compiled form of a RollupPlan. largest: the most bytes that a cell can have."""
    cdef int count, slots
    cdef bint sketched
    cdef size_t largest
    cdef measure_t *measures


cdef class State:
    """A state of its own, outside any group."""
    cdef Layout layout
    cdef int64_t *slots

    cdef int read(self, bytes cell) except -1


cdef Layout layout_of(object plan)
cdef int state_read(Layout layout, int64_t *state, reader_t *reader) noexcept nogil
cdef int state_merge(Layout layout, int64_t *into, int64_t *other, const char **problem) noexcept nogil
cdef size_t state_write(Layout layout, int64_t *state, uint64_t stamp, uint8_t *out) noexcept nogil
cdef void state_clear(Layout layout, int64_t *state) noexcept nogil
cdef void state_free(Layout layout, int64_t *state) noexcept nogil
cdef int open_cell(const uint8_t *cell, Py_ssize_t size, reader_t *reader, uint64_t *stamp) except -1
cdef const uint8_t *open_bytes(bytes cell, reader_t *reader, uint64_t *stamp) except NULL
cdef object problem_of(const uint8_t *cell, reader_t *reader)
cdef object value_at(Layout layout, int64_t *state, int index)
cdef uint64_t check_stamp(object stamp) except? 0xFFFFFFFFFFFFFFFF

cdef uint8_t *put_number(uint8_t *out, int64_t value) noexcept nogil
cdef uint8_t *put_text(uint8_t *out, const uint8_t *text, size_t length) noexcept nogil


cdef inline void add_to_sum(int64_t *slot, int64_t value) noexcept nogil:
    """Add to a sum of 128 bits."""
    cdef uint64_t low = <uint64_t>slot[0] + <uint64_t>value
    slot[1] += (value >> 63) + (low < <uint64_t>value)
    slot[0] = <int64_t>low
