"""JSON objects (RFC 8259) to columns: one walk over each record, in which only the wanted places are looked at.

The walk checks the whole record, the parts that nobody wants included. It expects the keys in the order of the record before: a key that stands where
it is expected costs one comparison. White space is allowed wherever JSON allows it and never assumed.
"""
import threading

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from penstock.kernels import reasons as _reasons

from penstock.kernels._bytes cimport eight_digits, plain_end, starts_with, utf8_length
from penstock.kernels._fields cimport Plan
from penstock.kernels._places cimport ESCAPED, FRACTION, NO, NONE, NUMBER, OTHER, TEXT, WHOLE, YES, Entry, Keys, Node, Token
from penstock.kernels._values cimport POWERS

cdef int MALFORMED = _reasons.MALFORMED
cdef int TOO_DEEP = _reasons.TOO_DEEP
cdef int NO_VALUE = _reasons.NO_VALUE
cdef int MAX_DEPTH = _reasons.MAX_DEPTH  # at most 64: `_skip` keeps a bit a level

cdef struct Walk:
    const uint8_t *end
    const uint8_t *limit
    int reason


cdef inline const uint8_t *_space(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end and p[0] <= c" " and (p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t"):
        p += 1
    return p


cdef inline bint _is_hex(uint8_t letter) noexcept nogil:
    return c"0" <= letter <= c"9" or c"a" <= letter <= c"f" or c"A" <= letter <= c"F"


cdef const uint8_t *_string_rest(const uint8_t *p, const uint8_t *end, const uint8_t *limit, bint *escaped) noexcept nogil:
    """The closing quote of a string from its first byte on that is not plain."""
    cdef int length
    while p < end:
        if p[0] == c'"':
            return p
        if p[0] == c"\\":
            escaped[0] = True
            if end - p < 2:
                return NULL
            if p[1] == c"u":
                if end - p < 6 or not (_is_hex(p[2]) and _is_hex(p[3]) and _is_hex(p[4]) and _is_hex(p[5])):
                    return NULL
                p += 6
            elif p[1] in (c'"', c"\\", c"/", c"b", c"f", c"n", c"r", c"t"):
                p += 2
            else:
                return NULL
        elif p[0] < c" ":
            return NULL
        else:
            length = utf8_length(p, end)
            if length == 0:
                return NULL
            p += length
        if p < end and p[0] < 0x80:
            p = plain_end(p, end, limit)
    return NULL


cdef inline const uint8_t *_string(const uint8_t *p, const uint8_t *end, const uint8_t *limit, bint *escaped) noexcept nogil:
    """The closing quote of the string whose inside begins at p. escaped: whether there are escapes in it."""
    escaped[0] = False
    p = plain_end(p, end, limit)
    if p < end and p[0] == c'"':
        return p
    return _string_rest(p, end, limit, escaped)


cdef inline const uint8_t *_digits(const uint8_t *p, const uint8_t *end, uint64_t *value) noexcept nogil:
    """Digits, appended to `value`, which overflows from 20 of them on."""
    cdef uint64_t part
    cdef int count
    while end - p >= 8:
        count = eight_digits(p, &part)
        value[0] = value[0] * <uint64_t>POWERS[count] + part
        p += count
        if count < 8:
            return p
    while p < end and c"0" <= p[0] <= c"9":
        value[0] = value[0] * 10 + (p[0] - c"0")
        p += 1
    return p


cdef inline const uint8_t *_number(const uint8_t *p, const uint8_t *end, Token *token) noexcept nogil:
    """A number. p[0] is a minus or a digit."""
    cdef const uint8_t *first
    cdef const uint8_t *point
    cdef uint64_t value = 0
    cdef bint negative = p[0] == c"-"
    cdef int64_t digits
    token.start = p
    token.shape = WHOLE
    token.whole = True
    if negative:
        p += 1
    first = p
    p = _digits(p, end, &value)
    digits = p - first
    if digits == 0 or (first[0] == c"0" and digits > 1):
        return NULL
    if p < end and p[0] == c".":
        p += 1
        point = p
        p = _digits(p, end, &value)
        if p == point:
            return NULL
        token.shape = FRACTION
        token.whole = False
        token.places = <int>(p - point) if p - point < 64 else 64
        digits += p - point
    if p < end and (p[0] == c"e" or p[0] == c"E"):
        p += 1
        if p < end and (p[0] == c"+" or p[0] == c"-"):
            p += 1
        point = p
        while p < end and c"0" <= p[0] <= c"9":
            p += 1
        if p == point:
            return NULL
        token.whole = False
        digits = 99
    if digits > 18:
        token.shape = NUMBER
    token.value = -<int64_t>value if negative else <int64_t>value
    token.length = p - token.start
    return p


cdef inline const uint8_t *_scalar(Walk *walk, const uint8_t *p, Token *token) noexcept nogil:
    """A string, a number, true, false or null. p < end."""
    cdef const uint8_t *end = walk.end
    cdef const uint8_t *close
    cdef bint escaped = False
    cdef uint8_t first = p[0]
    if first == c'"':
        close = _string(p + 1, end, walk.limit, &escaped)
        if close == NULL:
            return NULL
        token.shape = ESCAPED if escaped else TEXT
        token.start = p + 1
        token.length = close - p - 1
        return close + 1
    if c"0" <= first <= c"9" or first == c"-":
        return _number(p, end, token)
    if end - p >= 4:
        if first == c"t" and p[1] == c"r" and p[2] == c"u" and p[3] == c"e":
            token.shape = YES
            return p + 4
        if first == c"n" and p[1] == c"u" and p[2] == c"l" and p[3] == c"l":
            token.shape = NONE
            return p + 4
        if first == c"f" and end - p >= 5 and p[1] == c"a" and p[2] == c"l" and p[3] == c"s" and p[4] == c"e":
            token.shape = NO
            return p + 5
    return NULL


cdef const uint8_t *_key(Walk *walk, const uint8_t *p) noexcept nogil:
    """A key that nobody wants and its colon; where the value begins."""
    cdef bint escaped
    if p >= walk.end or p[0] != c'"':
        return NULL
    p = _string(p + 1, walk.end, walk.limit, &escaped)
    if p == NULL:
        return NULL
    p = _space(p + 1, walk.end)
    if p >= walk.end or p[0] != c":":
        return NULL
    return _space(p + 1, walk.end)


cdef const uint8_t *_skip(Walk *walk, const uint8_t *p, int depth) noexcept nogil:
    """Walk over an object or array that nobody wants, `depth` levels down already."""
    cdef const uint8_t *end = walk.end
    cdef uint64_t objects = 0  # a bit a level, the innermost lowest: whether it is an object
    cdef int level = depth
    cdef Token ignored
    while True:
        if p >= end:
            return NULL
        if p[0] == c"{" or p[0] == c"[":
            if level == MAX_DEPTH:
                walk.reason = TOO_DEEP
                return NULL
            level += 1
            objects = objects << 1 | (p[0] == c"{")
            p = _space(p + 1, end)
            if p >= end:
                return NULL
            if p[0] != (c"}" if objects & 1 else c"]"):
                if objects & 1:
                    p = _key(walk, p)
                    if p == NULL:
                        return NULL
                continue
        else:
            p = _scalar(walk, p, &ignored)
            if p == NULL:
                return NULL
        while level > depth:
            p = _space(p, end)
            if p >= end:
                return NULL
            if p[0] == c",":
                p = _space(p + 1, end)
                if objects & 1:
                    p = _key(walk, p)
                    if p == NULL:
                        return NULL
                break
            if p[0] != (c"}" if objects & 1 else c"]"):
                return NULL
            p += 1
            level -= 1
            objects >>= 1
        else:
            return p


cdef const uint8_t *_object(Plan plan, Walk *walk, const uint8_t *p, int place, int depth) noexcept nogil:
    """Walk over an object that a path leads to or through, from behind its brace. depth: of the object itself, the outermost being 1."""
    cdef const uint8_t *end = walk.end
    cdef const uint8_t *close
    cdef Keys *keys = &plan.keys[plan.nodes[place].inner]
    cdef Entry *before = &keys.entries[0]
    cdef Entry *expected
    cdef Node *node
    cdef Token ignored
    cdef bint escaped
    cdef int target
    p = _space(p, end)
    if p < end and p[0] == c"}":
        return p + 1
    while True:
        expected = &keys.entries[before.following]
        if expected.length and starts_with(p, end, walk.limit, expected.raw, expected.length):
            p += expected.length
            target = expected.node
            before = expected
        else:
            if p >= end or p[0] != c'"':
                return NULL
            close = _string(p + 1, end, walk.limit, &escaped)
            if close == NULL:
                return NULL
            if escaped:
                target = plan.find_escaped(place, p + 1, close - p - 1)
            else:
                before = plan.learn(place, before, p, close + 1 - p, p + 1, close - p - 1, &target)
            p = close + 1
        p = _space(p, end)
        if p >= end or p[0] != c":":
            return NULL
        p = _space(p + 1, end)
        if p >= end:
            return NULL
        if p[0] != c"{" and p[0] != c"[":
            if target < 0:
                p = _scalar(walk, p, &ignored)
            else:
                node = &plan.nodes[target]
                if node.last > target:
                    plan.forget(target + 1, node.last)
                p = _scalar(walk, p, &plan.tokens[target])
        elif target < 0:
            p = _skip(walk, p, depth)
        else:
            node = &plan.nodes[target]
            plan.forget(target, node.last)
            plan.tokens[target].shape = OTHER
            if p[0] == c"[" or node.inner < 0:
                p = _skip(walk, p, depth)
            elif depth == MAX_DEPTH:
                walk.reason = TOO_DEEP
                return NULL
            else:
                p = _object(plan, walk, p + 1, target, depth + 1)
        if p == NULL:
            return NULL
        p = _space(p, end)
        if p >= end:
            return NULL
        if p[0] == c"}":
            return p + 1
        if p[0] != c",":
            return NULL
        p = _space(p + 1, end)


cdef int _record(Plan plan, const uint8_t *p, const uint8_t *end, const uint8_t *limit) noexcept nogil:
    """Walk over a record. 0 or the reason to refuse it."""
    cdef Walk walk
    walk.end, walk.limit, walk.reason = end, limit, MALFORMED
    p = _space(p, end)
    if p >= end or p[0] != c"{":
        return MALFORMED
    p = _object(plan, &walk, p + 1, 0, 1)
    if p == NULL:
        return walk.reason
    return 0 if _space(p, end) == end else MALFORMED


@cython.final
cdef class JsonDecoder:
    """Decodes records whose value is a JSON object. See `penstock.kernels.columns.Decoder`, and `reference_decode` for what is accepted and what is not."""

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
        cdef const uint8_t *limit
        cdef const uint8_t *start
        cdef int reason
        with self._lock:
            plan.begin(records)
            limit = plan.buffer + len(records.buffer)
            with nogil:
                for row in range(count):
                    reason = 0
                    if plan.wants_value:
                        if lengths[row] < 0:
                            reason = NO_VALUE
                        else:
                            plan.forget(0, plan.places - 1)
                            start = plan.buffer + starts[row]
                            reason = _record(plan, start, start + lengths[row], limit)
                    if reason:
                        plan.refuse(row, reason)
                    else:
                        plan.accept(row)
            return plan.end()
