"""The columns of a batch, made ready for groups: an array each, with an element for each row that counts, in the rows' order."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from penstock.kernels._hashtable cimport Texts

cdef enum:
    NULL_BITS = 40  # of a key's first word: the window is below, a bit for each null key above


cdef class Words:
    """An array of its own, uninitialised when made."""
    cdef void *memory


cdef class Rows:
    """The rows of a batch that count, and its columns. Raises InternalError for a column that is not as `penstock.kernels.columns` says.

    texts and hashed: as in Delta.
    """
    cdef object columns, time
    cdef dict texts, hashed, memo
    cdef Words picked
    cdef int32_t *rows
    cdef Py_ssize_t count, size

    cdef list keys(self, one)
    cdef tuple measure(self, one, list passed)
    cdef Words words(self)
    cdef object column(self, name)
    cdef Words windows(self, int64_t width)
    cdef Words codes(self, name)
    cdef Words numbers(self, column, name, Words taken)
    cdef Words enum_codes(self, column, name)
    cdef Words text_codes(self, column, name, Texts texts)
    cdef Words with_null(self, Words first, column, int bit)
    cdef Words taken(self, mask)
    cdef Words entries(self, one, Words taken)
