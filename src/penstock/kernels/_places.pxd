"""The places of a record that somebody wants, what was found there, and the keys seen before."""
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t

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

cdef struct Entry:  # a key as it stood in an earlier record
    uint8_t raw[32]
    uint32_t length
    int16_t node  # -1: not wanted
    int16_t following  # the entry of the key that came after it, 0 where none did

cdef enum:
    KEYS = 64
    RAW_KEY = 32

cdef struct Keys:  # entries[0] stands before the first key and matches nothing
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
    cdef object _names
    cdef int find(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef int find_escaped(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef Entry *learn(self, int parent, Entry *before, const uint8_t *raw, int64_t raw_length, const uint8_t *name, int64_t length, int *node) noexcept nogil
    cdef void forget(self, int first, int last) noexcept nogil
    cdef lay_out(self, wanted)
    cdef make_room(self, int64_t longest)
