"""HyperLogLog registers: a log of entries while there are few, then a byte a register.

An entry is `register << 6 | rank`, never 0. The log takes doubles, which costs no more memory than as many other entries would, and no look at it for
each; it is sorted and rid of them when it is written. It gives way to registers once it would take more memory than they. Zeroed memory is an empty
sketch. `arena` is where the memory of the sketch that changes comes from: always the same one. Nothing raises: -1 is no memory, or, of `hll_read`,
corrupt bytes (the reader's problem is set).
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from penstock.kernels._arena cimport arena_t
from penstock.kernels._varint cimport reader_t

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long) noexcept nogil

cdef enum:
    DENSE = 0x7FFFFFFF

cdef struct hll_t:
    uint32_t count  # entries in the log, or DENSE
    uint32_t capacity  # of the log; 0 where dense
    uint8_t *memory


cdef inline uint32_t hll_entry(uint64_t hashed, int precision) noexcept nogil:
    """The entry of a hashed value: the register is its top bits, the rank one more than the zeros that lead the rest."""
    # the bit set below the rest stops the count there, so that a rest of zeros has rank 65 - precision
    return <uint32_t>(hashed >> (64 - precision)) << 6 | <uint32_t>(leading_zeros(hashed << precision | <uint64_t>1 << (precision - 1)) + 1)


cdef inline int hll_add(hll_t *sketch, uint32_t entry, int precision, arena_t *arena) noexcept nogil:
    """Count an entry."""
    if sketch.count < sketch.capacity:
        (<uint32_t *>sketch.memory)[sketch.count] = entry
        sketch.count += 1
        return 0
    if sketch.count == DENSE:
        sketch.memory[entry >> 6] = max(sketch.memory[entry >> 6], <uint8_t>(entry & 63))
        return 0
    return hll_grow(sketch, entry, precision, arena)


cdef inline const void *hll_target(const hll_t *sketch, uint32_t entry) noexcept nogil:
    """The memory that counting an entry would touch."""
    return sketch.memory + (entry >> 6 if sketch.count == DENSE else 4 * sketch.count)


cdef int hll_grow(hll_t *sketch, uint32_t entry, int precision, arena_t *arena) noexcept nogil
cdef int hll_merge(hll_t *sketch, hll_t *other, int precision, arena_t *arena) noexcept nogil
cdef int hll_read(hll_t *sketch, reader_t *reader, int precision, arena_t *arena) noexcept nogil
cdef uint8_t *hll_write(hll_t *sketch, uint8_t *out, int precision) noexcept nogil
cdef void hll_clear(hll_t *sketch, int precision, arena_t *arena) noexcept nogil
cdef void hll_free(hll_t *sketch, int precision, arena_t *arena) noexcept nogil


cdef class Hll:
    cdef hll_t sketch
    cdef readonly int precision
