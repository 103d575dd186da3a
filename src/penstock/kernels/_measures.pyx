"""Passes over a block of rows, one for each measure: see _measures.pxd. found: the record of each row's group. words: of a record's key."""
from penstock.kernels._cell cimport COUNT, MIN, SUM, UNIQUES, add_to_sum
from penstock.kernels._hll cimport hll_add, hll_t, hll_target

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil


cdef void count_rows(int64_t **found, int slot, int rows, const uint8_t *taken) noexcept nogil:
    cdef int row
    if taken == NULL:
        for row in range(rows):
            found[row][slot] += 1
    else:
        for row in range(rows):
            found[row][slot] += taken[row]


cdef void sum_rows(int64_t **found, int slot, int rows, const int64_t *values) noexcept nogil:
    cdef int row
    for row in range(rows):
        add_to_sum(found[row] + slot, values[row])


cdef void extreme_rows(int64_t **found, int slot, int rows, const uint8_t *taken, const int64_t *values, bint least) noexcept nogil:
    cdef int row
    cdef int64_t *state
    for row in range(rows):
        if taken == NULL or taken[row]:
            state = found[row] + slot
            if state[1] == 0 or (values[row] < state[0] if least else values[row] > state[0]):
                state[0] = values[row]
                state[1] = 1


cdef int sketch_rows(int64_t **found, int slot, int rows, const uint32_t *entries, int precision, arena_t *arena) noexcept nogil:
    """-1: no memory."""
    cdef int row
    for row in range(rows):
        prefetch(hll_target(<hll_t *>(found[row] + slot), entries[row]))
    for row in range(rows):
        if entries[row] and hll_add(<hll_t *>(found[row] + slot), entries[row], precision, arena) < 0:
            return -1
    return 0


cdef int take_rows(input_t *one, int64_t **found, int words, Py_ssize_t begin, int rows, arena_t *arena) noexcept nogil:
    """Let a measure take the rows [begin, begin + rows). -1: no memory for its sketches."""
    cdef int slot = words + one.slot
    cdef const uint8_t *taken = one.taken + begin if one.taken != NULL else NULL
    if one.kind == COUNT:
        count_rows(found, slot, rows, taken)
    elif one.kind == SUM:
        sum_rows(found, slot, rows, one.values + begin)
    elif one.kind == UNIQUES:
        return sketch_rows(found, slot, rows, one.entries + begin, one.precision, arena)
    else:
        extreme_rows(found, slot, rows, taken, one.values + begin, one.kind == MIN)
    return 0
