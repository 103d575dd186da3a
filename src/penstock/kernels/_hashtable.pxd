"""Hash tables of texts and of groups."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from penstock.kernels._cell cimport Layout


cdef class Texts:
    """Numbers texts in the order in which they were first seen."""
    cdef uint64_t *slots  # open addressing: the upper half of the hash, then the number + 1; 0 is free
    cdef uint64_t mask
    cdef uint8_t *bytes
    cdef size_t *ends  # of each text in `bytes`
    cdef size_t used, room, longest
    cdef int64_t count, capacity

    cdef int64_t number(self, const uint8_t *text, size_t length) noexcept nogil
    cdef int make_room(self, size_t length) noexcept nogil


cdef class Groups:
    """The groups of one breakdown, in the order in which they were first seen.

    A group is `stride` words: its key (the window with the null bits, then a word each for the entity and the dimensions), then its state.
    """
    cdef Layout layout
    cdef uint64_t *slots  # as in Texts
    cdef uint64_t mask
    cdef int64_t *records
    cdef int64_t count, capacity, sketched  # sketched: bytes that sketches hold
    cdef int words, stride

    cdef int place(self, int64_t **keys, uint64_t *hashes, Py_ssize_t rows, uint32_t *places) noexcept nogil
    cdef int64_t append(self, int64_t **keys, Py_ssize_t row) noexcept nogil
