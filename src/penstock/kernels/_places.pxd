"""The places of a record that somebody wants, what was found there, and the keys seen before."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum Shape:  # what a decoder found at a wanted place
    ABSENT
    NONE  # null
    YES
    NO
    WHOLE  # a whole number: value
    FRACTION  # value * 10**-places; start and length are its text
    NUMBER  # any other JSON number: start, length; whole
    HUGE  # a whole number beyond int64
    FLOAT  # real
    TEXT  # valid UTF-8: start, length
    ESCAPED  # the inside of a well-formed JSON string with escapes: start, length
    RAW  # text that may not be valid UTF-8: start, length
    OTHER  # an object, an array, bytes: nothing that a field can hold

cdef struct Token:
    int shape
    int places
    bint whole
    const uint8_t *start
    int64_t length
    int64_t value
    double real

cdef struct Entry:  # a key as it stood in an earlier record, with what a decoder found around it
    uint8_t raw[32]
    uint32_t mask  # a bit for each byte of raw that counts
    int32_t node  # -1: not wanted
    int64_t length
    Entry *following  # that of the key that came after it, the table's BEGIN where none did

cdef enum:
    KEYS = 64
    RAW_KEY = 32
    BEGIN = 0  # an object begins; as what is expected it matches nothing
    LOST = 1  # behind a key that has no entry
    FIRST_KEY = 2

cdef struct Keys:
    int count
    Entry entries[KEYS]

cdef struct Node:  # a place on the path of a wanted field; nodes[0] is the record's value itself
    int parent
    const uint8_t *name
    int64_t length
    int inner  # index into Plan.keys, -1 where no path leads further
    int last  # descendants are the nodes behind this one, up to and including `last`

cdef class Places:
    cdef Node *nodes
    cdef Token *tokens  # one a node
    cdef int places
    cdef Keys *keys
    cdef uint8_t *scratch
    cdef uint8_t *padded
    cdef int64_t slot
    cdef const uint8_t *inner  # what lies in here is PAD bytes inside of the buffer of the records
    cdef const uint8_t *inner_end
    cdef object _names
    cdef int find(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef int find_escaped(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef Entry *learn(self, int parent, Entry *before, const uint8_t *raw, int64_t raw_length, const uint8_t *name, int64_t length, int *node) noexcept nogil
    cdef const uint8_t *copy(self, int which, const uint8_t *start, int64_t length) noexcept nogil
    cdef void _begin(self, Keys *keys) noexcept nogil
    cdef lay_out(self, wanted)
    cdef make_room(self, int64_t longest)


cdef inline void forget(Token *tokens, int first, int last) noexcept nogil:
    """Nothing was found at these nodes (yet, or any more: an earlier duplicate held it)."""
    cdef int i
    for i in range(first, last + 1):
        tokens[i].shape = ABSENT


cdef inline const uint8_t *padded(Places places, int which, const uint8_t *start, int64_t length) noexcept nogil:
    """What begins at `start` of the buffer; a copy, if less than PAD bytes stand before or behind it. There are two places for copies, 0 and 1."""
    if start >= places.inner and places.inner_end - start >= length:
        return start
    return places.copy(which, start, length)
