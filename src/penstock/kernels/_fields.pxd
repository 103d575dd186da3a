"""What both decoders share: the wanted fields as C structs and the columns being built."""
cimport cython
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from penstock.kernels._places cimport Places, Token

cdef struct Label:  # a text of an Enum
    uint64_t first
    uint64_t last  # see `text_ends`
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
    int64_t factor  # 10**shift
    bint plain  # whether a column takes a whole number as it is, times factor, if it is one of `lowest` and the `span` that follow
    int64_t lowest
    uint64_t span
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
cdef class Plan(Places):
    cdef Spec *specs
    cdef int width
    cdef bint wants_value
    cdef int32_t *reject
    cdef const uint8_t *buffer
    cdef object _fields, _kept, _arrays, _headers
    cdef void accept(self, int64_t row) noexcept nogil
    cdef void refuse(self, int64_t row, int reason) noexcept nogil
    cdef _specify(self, Spec *spec, field, int node)
    cdef _label(self, Spec *spec, values)
    cdef int _text(self, Token *token, const uint8_t **start, int64_t *length) noexcept nogil
    cdef int _scale(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _whole(self, Token *token, int64_t *out) noexcept nogil
    cdef int _instant(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _decimal(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _enum(self, Spec *spec, Token *token, int64_t *out) noexcept nogil
    cdef int _string(self, Spec *spec, Token *token) noexcept nogil
    cdef void _slice(self, Spec *spec, int64_t row, Token *token) noexcept nogil
    cdef int _missing(self, Spec *spec, Token *token, int64_t row) noexcept nogil
    cdef int _take(self, Spec *spec, Token *token, int64_t row) noexcept nogil
    cdef void _clear(self, int64_t row, int taken) noexcept nogil
    cdef begin(self, records)
    cdef end(self)
