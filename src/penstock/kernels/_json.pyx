"""JSON objects (RFC 8259) to columns: one walk over each record, in which only the wanted places are looked at.

The walk checks the whole record, the parts that nobody wants included. It expects the keys in the order of the record before: a key that stands where
it is expected costs one comparison. White space is allowed wherever JSON allows it and never assumed.
"""
import threading

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from penstock.kernels import reasons as _reasons

from penstock.kernels._bytes cimport digits, plain_end, short_end, short_number, starts_with, utf8_length
from penstock.kernels._fields cimport Plan
from penstock.kernels._places cimport ESCAPED, FRACTION, NO, NONE, NUMBER, OTHER, TEXT, WHOLE, YES, BEGIN, LOST, Entry, Keys, Node, Token, forget, padded

cdef int MALFORMED = _reasons.MALFORMED
cdef int TOO_DEEP = _reasons.TOO_DEEP
cdef int NO_VALUE = _reasons.NO_VALUE
cdef int MAX_DEPTH = _reasons.MAX_DEPTH  # at most 64: `_skip` keeps a bit a level

cdef struct Walk:
    const uint8_t *end
    int reason


cdef inline const uint8_t *_space(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end and p[0] <= c" " and (p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t"):
        p += 1
    return p


cdef inline bint _is_hex(uint8_t letter) noexcept nogil:
    return c"0" <= letter <= c"9" or c"a" <= letter <= c"f" or c"A" <= letter <= c"F"


cdef const uint8_t *_string_rest(const uint8_t *p, const uint8_t *end, bint *escaped) noexcept nogil:
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
            p = plain_end(p, end)
    return NULL


cdef inline const uint8_t *_string(const uint8_t *p, const uint8_t *end, bint *escaped) noexcept nogil:
    """The closing quote of the string whose inside begins at p. escaped: whether there are escapes in it."""
    escaped[0] = False
    p = plain_end(p, end)
    if p < end and p[0] == c'"':
        return p
    return _string_rest(p, end, escaped)


cdef const uint8_t *_exponent(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The end of an exponent, from behind its e."""
    cdef const uint8_t *first
    if p < end and (p[0] == c"+" or p[0] == c"-"):
        p += 1
    first = p
    while p < end and c"0" <= p[0] <= c"9":
        p += 1
    if p == first:
        return NULL
    return p


cdef const uint8_t *_long_number(const uint8_t *p, const uint8_t *end, Token *token) noexcept nogil:
    """Any number, or NULL where it is none or reaches the end, behind which more is to come in any record. p[0] is a minus or a digit."""
    cdef const uint8_t *first
    cdef const uint8_t *point
    cdef uint64_t value = 0
    cdef bint negative = p[0] == c"-"
    cdef int64_t count
    token.start = p
    token.shape = WHOLE
    token.whole = True
    p += negative
    first = p
    p = digits(p, end, &value)
    count = p - first
    if count == 0 or (first[0] == c"0" and count > 1):
        return NULL
    if p[0] == c"." and p < end:
        point = p + 1
        p = digits(point, end, &value)
        if p == point:
            return NULL
        token.shape = FRACTION
        token.whole = False
        token.places = <int>(p - point) if p - point < 64 else 64
        count += p - point
    if p[0] | 0x20 == c"e" and p < end:
        p = _exponent(p + 1, end)
        if p == NULL:
            return NULL
        token.whole = False
        count = 99
    if count > 18:
        token.shape = NUMBER
    if p >= end:
        return NULL
    token.value = <int64_t>(0 - value if negative else value)
    token.length = p - token.start
    return p


cdef const uint8_t *_escaped_text(const uint8_t *p, const uint8_t *end, Token *token) noexcept nogil:
    """A string that goes on behind its plain part. token.start: where it began; p: its first byte that is not plain."""
    cdef bint escaped = False
    p = _string_rest(p, end, &escaped)
    if p == NULL:
        return NULL
    token.shape = ESCAPED if escaped else TEXT
    token.length = p - token.start
    return p + 1


cdef const uint8_t *_word(const uint8_t *p, const uint8_t *end, Token *token) noexcept nogil:
    """true, false or null."""
    if end - p >= 4:
        if p[0] == c"t" and p[1] == c"r" and p[2] == c"u" and p[3] == c"e":
            token.shape = YES
            return p + 4
        if p[0] == c"n" and p[1] == c"u" and p[2] == c"l" and p[3] == c"l":
            token.shape = NONE
            return p + 4
        if p[0] == c"f" and end - p >= 5 and p[1] == c"a" and p[2] == c"l" and p[3] == c"s" and p[4] == c"e":
            token.shape = NO
            return p + 5
    return NULL


cdef inline const uint8_t *_scalar(const uint8_t *p, const uint8_t *end, Token *token) noexcept nogil:
    """A string, a number, true, false or null. p <= end."""
    cdef const uint8_t *stop
    cdef uint8_t first = p[0]
    if first == c'"':
        p += 1
        token.start = p
        stop = plain_end(p, end)
        if stop[0] != c'"' or stop >= end:
            return _escaped_text(stop, end, token)
        token.shape = TEXT
        token.length = stop - p
        return stop + 1
    if c"0" <= first <= c"9":
        stop = short_number(p, end, &token.value, &token.places)
        if stop == NULL:
            return _long_number(p, end, token)
        token.shape = FRACTION if token.places else WHOLE
        token.start = p
        token.length = stop - p
        return stop
    if first == c"-":
        return _long_number(p, end, token)
    return _word(p, end, token)


cdef inline const uint8_t *_ignored(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The end of a string, a number, true, false or null that nobody wants. p <= end."""
    cdef const uint8_t *stop
    cdef Token token
    if p[0] == c'"':
        stop = plain_end(p + 1, end)
        if stop[0] == c'"' and stop < end:
            return stop + 1
    elif c"0" <= p[0] <= c"9":
        stop = short_end(p, end)
        if stop != NULL:
            return stop
    return _scalar(p, end, &token)


cdef const uint8_t *_key(Walk *walk, const uint8_t *p) noexcept nogil:
    """A key that nobody wants and its colon; where the value begins."""
    cdef bint escaped
    if p >= walk.end or p[0] != c'"':
        return NULL
    p = _string(p + 1, walk.end, &escaped)
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
            p = _ignored(p, end)
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


cdef const uint8_t *_next_key(Plan plan, Walk *walk, const uint8_t *p, int place, Entry **before, int *target) noexcept nogil:
    """From behind a brace or a value to behind the next key's colon. target: the key's node. Behind the object's end, with `before` NULL, if there is none."""
    cdef const uint8_t *end = walk.end
    cdef const uint8_t *start = p
    cdef const uint8_t *name
    cdef const uint8_t *close
    cdef Keys *keys = &plan.keys[plan.nodes[place].inner]
    cdef bint escaped
    p = _space(p, end)
    if p < end and p[0] == c"}":
        before[0] = NULL
        return p + 1
    if before[0] != &keys.entries[BEGIN]:
        if p >= end or p[0] != c",":
            return NULL
        p = _space(p + 1, end)
    if p >= end or p[0] != c'"':
        return NULL
    name = p + 1
    close = _string(name, end, &escaped)
    if close == NULL:
        return NULL
    p = _space(close + 1, end)
    if p >= end or p[0] != c":":
        return NULL
    p = _space(p + 1, end)
    if escaped:
        target[0] = plan.find_escaped(place, name, close - name)
        before[0] = &keys.entries[LOST]
    else:
        before[0] = plan.learn(place, before[0], start, p - start, name, close - name, target)
    return p


cdef const uint8_t *_container(Plan plan, Walk *walk, const uint8_t *p, int target, int depth) noexcept nogil:
    """Walk over an object or array that is the value of a key."""
    cdef Node *node
    if target < 0:
        return _skip(walk, p, depth)
    node = &plan.nodes[target]
    forget(plan.tokens, target, node.last)
    plan.tokens[target].shape = OTHER
    if p[0] == c"[" or node.inner < 0:
        return _skip(walk, p, depth)
    if depth == MAX_DEPTH:
        walk.reason = TOO_DEEP
        return NULL
    return _object(plan, walk, p + 1, target, depth + 1)


cdef const uint8_t *_object(Plan plan, Walk *walk, const uint8_t *p, int place, int depth) noexcept nogil:
    """Walk over an object that a path leads to or through, from behind its brace. depth: of the object itself, the outermost being 1.

    What is expected, and compared at once, is all that stands between two values: white space, comma, key and colon.
    """
    cdef const uint8_t *end = walk.end
    cdef Entry *entries = plan.keys[plan.nodes[place].inner].entries
    cdef Token *tokens = plan.tokens
    cdef Node *nodes = plan.nodes
    cdef Entry *before = &entries[BEGIN]
    cdef Entry *expected
    cdef int target
    while True:
        expected = before.following
        if end - p >= expected.length and starts_with(p, expected.raw, expected.mask):
            p += expected.length
            target = expected.node
            before = expected
        else:
            p = _next_key(plan, walk, p, place, &before, &target)
            if before == NULL or p == NULL:
                return p
        if p[0] <= c" ":
            p = _space(p, end)
        if p[0] == c"{" or p[0] == c"[":
            if p >= end:
                return NULL
            p = _container(plan, walk, p, target, depth)
        elif target < 0:
            p = _ignored(p, end)
        else:
            if nodes[target].last > target:
                forget(tokens, target + 1, nodes[target].last)
            p = _scalar(p, end, &tokens[target])
        if p == NULL:
            return NULL


cdef int _record(Plan plan, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Walk over a record. 0 or the reason to refuse it."""
    cdef Walk walk
    walk.end, walk.reason = end, MALFORMED
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
