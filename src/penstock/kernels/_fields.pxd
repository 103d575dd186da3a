"""What both decoders share: the wanted fields as C structs, the keys seen before, and the columns being built."""
cimport cython
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

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
    bint leaf
    int last  # descendants are the nodes behind this one, up to and including `last`

cdef struct Label:  # a text of an Enum
    const uint8_t *start
    int32_t length
    int16_t code

cdef struct Spec:  # a field and its column
    int kind
    int source
    int node
    bint nullable
    bint has_default
    int64_t default_value
    const uint8_t *default_text
    int64_t default_length
    int shift
    bint iso
    int64_t max_bytes
    Label *labels
    uint32_t label_mask
    const int64_t *starts
    const int32_t *lengths
    int64_t *longs
    int16_t *codes
    uint8_t *flags
    uint8_t *text
    int32_t *offsets
    int64_t used
    uint8_t *valid
    int64_t nulls

@cython.final
cdef class Plan:
    cdef Spec *specs
    cdef int width
    cdef Node *nodes
    cdef Token *tokens  # one a node
    cdef int places
    cdef Keys *keys
    cdef bint wants_value
    cdef int32_t *reject
    cdef const uint8_t *buffer
    cdef uint8_t *scratch
    cdef object _fields, _kept, _arrays, _headers
    cdef int find(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef int find_escaped(self, int parent, const uint8_t *name, int64_t length) noexcept nogil
    cdef Entry *learn(self, int parent, Entry *before, const uint8_t *raw, int64_t raw_length, const uint8_t *name, int64_t length, int *node) noexcept nogil
    cdef void forget(self, int first, int last) noexcept nogil
    cdef void accept(self, int64_t row) noexcept nogil
    cdef void refuse(self, int64_t row, int reason) noexcept nogil
    cdef _specify(self, Spec *spec, field, int node)
    cdef _label(self, Spec *spec, values)
    cdef int _text(self, Token *token, const uint8_t **start, int64_t *length) noexcept nogil
    cdef int _scale(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _whole(self, Token *token, int64_t *out) noexcept nogil
    cdef int _instant(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _decimal(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _label_code(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _string(self, Spec *spec, Token *token) noexcept nogil
    cdef void _slice(self, Spec *spec, int64_t row, Token *token) noexcept nogil
    cdef int _take(self, Spec *spec, Token *token, int64_t row) noexcept nogil
    cdef void _clear(self, int64_t row, int taken) noexcept nogil
    cdef begin(self, records)
    cdef end(self)

cdef int64_t unescape(const uint8_t *p, int64_t n, uint8_t *out) noexcept nogil
