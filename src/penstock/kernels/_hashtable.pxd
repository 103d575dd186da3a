"""Hash tables of texts and of groups."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from penstock.kernels._arena cimport arena_t
from penstock.kernels._cell cimport Layout

cdef enum:
    BLOCK = 256  # rows that are placed at a time: what they touch stays in the nearest cache until all measures have taken them


cdef class Texts:
    """Numbers texts in the order in which they were first seen."""
    cdef uint64_t *slots  # open addressing: half of the mixed fingerprint, then the number + 1; 0 is free
    cdef uint64_t mask
    cdef uint64_t *prints  # the fingerprint of each text: a short one itself, else its hash
    cdef uint8_t *bytes
    cdef size_t *ends  # of each text in `bytes`
    cdef size_t used, room, longest
    cdef int64_t count, capacity

    cdef int64_t number(self, const uint8_t *text, size_t length, size_t readable) noexcept nogil
    cdef int64_t append(self, const uint8_t *text, size_t length, uint64_t fingerprint, uint64_t tag) noexcept nogil
    cdef int make_room(self, size_t length) noexcept nogil


cdef struct bucket_t:
    uint32_t tags[4]  # the upper halves of the groups' hashes
    uint32_t numbers[4]  # the groups, from the first on; 0 is free


cdef class Groups:
    """The groups of one breakdown, in the order in which they were first seen: from 1 on, for number 0 is no group and its key that of none.

    A group is `stride` words: its key (the window with the null bits, then a word each for the entity and the dimensions), then its state, whose
    sketches lie in `arena`.
    """
    cdef Layout layout
    cdef bucket_t *buckets
    cdef uint64_t mask
    cdef int64_t *records
    cdef int64_t count, capacity
    cdef arena_t arena
    cdef int words, stride

    cdef int64_t *record(self, int64_t group) noexcept nogil
    cdef int place(self, int64_t **keys, Py_ssize_t begin, int rows, int64_t **found) noexcept nogil
    cdef int reserve(self, int rows) noexcept nogil
    cdef int widen(self) noexcept nogil
    cdef uint32_t find(self, int64_t **keys, Py_ssize_t row, uint32_t tag) noexcept nogil
