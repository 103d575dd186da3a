"""What a batch gives to the measures of groups: passes over a block of rows, whose groups' records are at hand."""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from penstock.kernels._arena cimport arena_t
from penstock.kernels._cell cimport kind_t

cdef struct input_t:
    kind_t kind
    int slot
    int precision
    const uint8_t *taken  # 0 or 1 a row; NULL: all are taken. Of counts and extremes.
    const int64_t *values  # of sums, 0 where it is not taken, and of extremes
    const uint32_t *entries  # of uniques, 0 where it is not taken


cdef int take_rows(input_t *one, int64_t **found, int words, Py_ssize_t begin, int rows, arena_t *arena) noexcept nogil
