"""msgpack maps to columns: one walk over each record, in which only the wanted places are looked at.

The walk checks the whole record against the msgpack specification, and expects the keys, header byte included, in the order of the record before.
"""
import threading

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from penstock.kernels import reasons as _reasons

from penstock.kernels._bytes cimport big16, big32, big64, starts_with
from penstock.kernels._fields cimport Plan
from penstock.kernels._places cimport FLOAT, HUGE, NO, NONE, OTHER, RAW, WHOLE, YES, BEGIN, Entry, Node, Token, forget, padded

cdef int MALFORMED = _reasons.MALFORMED
cdef int TOO_DEEP = _reasons.TOO_DEEP
cdef int NO_VALUE = _reasons.NO_VALUE

cdef enum:
    LEVELS = 64  # room for MAX_DEPTH of them

cdef int MAX_DEPTH = _reasons.MAX_DEPTH

cdef struct Walk:
    const uint8_t *end
    int reason

cdef struct Head:  # of a value: how long it is without what a container holds, and what follows
    const uint8_t *body
    int64_t size  # bytes of a text, blob or extension
    int64_t items  # of a container, keys and values counted; -1 for any other

cdef uint8_t _fixed[256]  # bytes of a value whose first byte says it all, 0 for the others


def _measure():
    for first in range(256):
        if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
            _fixed[<int>first] = 1
        elif 0xA0 <= first <= 0xBF:
            _fixed[<int>first] = 1 + (first & 0x1F)
    for first, size in {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
                        0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}.items():
        _fixed[<int>first] = 1 + size


_measure()


cdef const uint8_t *_head(const uint8_t *p, const uint8_t *end, Head *head) noexcept nogil:
    """Read the head of a value that `_fixed` does not cover. Where its body ends (a container's: where its items begin), NULL if malformed."""
    cdef uint8_t first = p[0]
    cdef int64_t left = end - p - 1, size, extra = 0
    cdef int width
    head.items = -1
    if 0x80 <= first <= 0x8F:
        head.items = 2 * (first & 0x0F)
        return p + 1
    if 0x90 <= first <= 0x9F:
        head.items = first & 0x0F
        return p + 1
    if first in (0xC4, 0xC7, 0xD9):
        width = 1
    elif first in (0xC5, 0xC8, 0xDA, 0xDC, 0xDE):
        width = 2
    elif first in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        width = 4
    else:
        return NULL
    if left < width:
        return NULL
    size = p[1] if width == 1 else big16(p + 1) if width == 2 else big32(p + 1)
    p += 1 + width
    if first >= 0xDC:
        head.items = size if first <= 0xDD else 2 * size
        return p
    if 0xC7 <= first <= 0xC9:
        extra = 1  # the extension's type
    if left - width < size + extra:
        return NULL
    head.body = p + extra
    head.size = size
    return p + extra + size


cdef const uint8_t *_skip(Walk *walk, const uint8_t *p, int depth) noexcept nogil:
    """Walk over a value that nobody wants, `depth` levels down already."""
    cdef const uint8_t *end = walk.end
    cdef int64_t left[LEVELS]  # items still to come, a level
    cdef int level = depth
    cdef uint8_t size
    cdef Head head
    while True:
        if p >= end:
            return NULL
        size = _fixed[p[0]]
        if size:
            if end - p < size:
                return NULL
            p += size
        else:
            p = _head(p, end, &head)
            if p == NULL:
                return NULL
            if head.items >= 0:
                if level == MAX_DEPTH:
                    walk.reason = TOO_DEEP
                    return NULL
                left[level] = head.items
                level += 1
        while level > depth and left[level - 1] == 0:
            level -= 1
        if level == depth:
            return p
        left[level - 1] -= 1


cdef const uint8_t *_nested(Plan plan, Walk *walk, const uint8_t *p, int target, int depth) noexcept nogil:
    """Read a value at a wanted place that `_fixed` does not cover. p < end."""
    cdef Token *token = &plan.tokens[target]
    cdef uint8_t first = p[0]
    cdef Head head
    token.shape = OTHER
    if plan.nodes[target].inner >= 0 and (0x80 <= first <= 0x8F or first >= 0xDE):
        p = _head(p, walk.end, &head)
        if p == NULL:
            return NULL
        if depth == MAX_DEPTH:
            walk.reason = TOO_DEEP
            return NULL
        return _map(plan, walk, p, head.items // 2, target, depth + 1)
    if 0xD9 <= first <= 0xDB:
        p = _head(p, walk.end, &head)
        token.shape = RAW
        token.start, token.length = head.body, head.size
        return p
    return _skip(walk, p, depth)


cdef inline void _fixed_value(Token *token, const uint8_t *p) noexcept nogil:
    """Read a value that `_fixed` covers and that is there as a whole."""
    cdef uint8_t first = p[0]
    cdef uint64_t bits
    cdef uint32_t half
    cdef float single
    cdef int unused
    if 0xA0 <= first <= 0xBF:
        token.shape = RAW
        token.start = p + 1
        token.length = first & 0x1F
    elif 0xCC <= first <= 0xD3:
        token.shape = WHOLE
        unused = 64 - (8 << (first & 3))
        bits = big64(p + 1)  # padded
        if first >= 0xD0:
            token.value = <int64_t>bits >> unused
        else:
            token.value = <int64_t>(bits >> unused)
            if token.value < 0:
                token.shape = HUGE
    elif first < 0x80 or first >= 0xE0:
        token.shape = WHOLE
        token.value = <int8_t>first
    elif first == 0xCB:
        token.shape = FLOAT
        bits = big64(p + 1)
        memcpy(&token.real, &bits, 8)
    elif first == 0xCA:
        token.shape = FLOAT
        half = big32(p + 1)
        memcpy(&single, &half, 4)
        token.real = single
    elif first == 0xC0:
        token.shape = NONE
    elif first == 0xC2:
        token.shape = NO
    elif first == 0xC3:
        token.shape = YES
    else:
        token.shape = OTHER


cdef const uint8_t *_next_key(Plan plan, Walk *walk, const uint8_t *p, int place, int depth, Entry **before, int *target) noexcept nogil:
    """Walk over a key that is not the expected one. target: its node."""
    cdef const uint8_t *end = walk.end
    cdef const uint8_t *body = NULL
    cdef int64_t length = 0
    cdef Head head
    if p >= end:
        return NULL
    if 0xA0 <= p[0] <= 0xBF:
        body, length = p + 1, p[0] & 0x1F
        if end - body < length:
            return NULL
    elif 0xD9 <= p[0] <= 0xDB:
        if _head(p, end, &head) == NULL:
            return NULL
        body, length = head.body, head.size
    if body == NULL:
        target[0] = -1
        return _skip(walk, p, depth)
    before[0] = plan.learn(place, before[0], p, body + length - p, body, length, target)
    return body + length


cdef const uint8_t *_map(Plan plan, Walk *walk, const uint8_t *p, int64_t count, int place, int depth) noexcept nogil:
    """Walk over a map that a path leads to or through, from behind its head. depth: of the map itself, the outermost being 1."""
    cdef const uint8_t *end = walk.end
    cdef Entry *entries = plan.keys[plan.nodes[place].inner].entries
    cdef Token *tokens = plan.tokens
    cdef Node *nodes = plan.nodes
    cdef Entry *before = &entries[BEGIN]
    cdef Entry *expected
    cdef int64_t i
    cdef int target
    cdef uint8_t size
    for i in range(count):
        expected = before.following
        if end - p >= expected.length and starts_with(p, expected.raw, expected.mask):
            p += expected.length
            target = expected.node
            before = expected
        else:
            p = _next_key(plan, walk, p, place, depth, &before, &target)
            if p == NULL:
                return NULL
        if p >= end:
            return NULL
        size = _fixed[p[0]]
        if size > end - p:
            return NULL
        if target >= 0:
            if nodes[target].last > target:
                forget(tokens, target + 1, nodes[target].last)
            if size:
                _fixed_value(&tokens[target], p)
                p += size
            else:
                p = _nested(plan, walk, p, target, depth)
        elif size:
            p += size
        else:
            p = _skip(walk, p, depth)
        if p == NULL:
            return NULL
    return p


cdef int _record(Plan plan, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Walk over a record. 0 or the reason to refuse it."""
    cdef Walk walk
    cdef Head head
    walk.end, walk.reason = end, MALFORMED
    if p >= end or not (0x80 <= p[0] <= 0x8F or 0xDE <= p[0] <= 0xDF):
        return MALFORMED
    p = _head(p, end, &head)
    if p == NULL:
        return MALFORMED
    p = _map(plan, &walk, p, head.items // 2, 0, 1)
    if p == NULL:
        return walk.reason
    return 0 if p == end else MALFORMED


@cython.final
cdef class MsgpackDecoder:
    """Decodes records whose value is a msgpack map. See `penstock.kernels.columns.Decoder`, and `reference_decode` for what is accepted and what is not."""

    cdef Plan _plan
    cdef object _lock

    def __init__(self, fields):
        """fields: name to `penstock.model.Field`, those to decode, in declared order."""
        self._plan = Plan(fields)
        self._lock = threading.Lock()

    def decode(self, records):
        """The columns of `records`, each record decoded or rejected. Other threads run meanwhile; two calls of one decoder take turns.

        Raises CorruptionError where the records do not lie in their buffer.
        """
        cdef Plan plan = self._plan
        cdef int64_t row, count = len(records)
        cdef const int64_t[::1] starts = records.value_start
        cdef const int32_t[::1] lengths = records.value_length
        cdef const uint8_t *start
        cdef int reason
        with self._lock:
            plan.begin(records)
            with nogil:
                for row in range(count):
                    reason = 0
                    if plan.wants_value:
                        if lengths[row] < 0:
                            reason = NO_VALUE
                        else:
                            forget(plan.tokens, 0, plan.places - 1)
                            start = padded(plan, 0, plan.buffer + starts[row], lengths[row])
                            reason = _record(plan, start, start + lengths[row])
                    if reason:
                        plan.refuse(row, reason)
                    else:
                        plan.accept(row)
            return plan.end()
