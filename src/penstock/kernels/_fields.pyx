"""The plan of a decoder: which places of a record are wanted, and the columns that their values go to.

A decoder walks a record once and leaves a `Token` at each wanted place: the shape that it found and where it lies. Only when the whole record proved
well-formed are the tokens turned into values (`accept`), so that the last of duplicate keys wins without anything to undo, a rejected
record leaves nothing behind, and what a value means is said once for both formats.
"""
cimport cython
from libc.stdint cimport INT64_MIN, UINT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

import numpy as np

from penstock.errors import CorruptionError, PenstockError
from penstock.kernels import reasons as _reasons
from penstock.kernels._records import headers_value
from penstock.kernels.columns import Column, Columns
from penstock.model import Timestamp

from penstock.kernels._bytes cimport PAD, POWERS, copy_text, hash_ends, is_utf8, text_ends
from penstock.kernels._places cimport ABSENT, ESCAPED, FLOAT, FRACTION, HUGE, NO, NONE, NUMBER, OTHER, RAW, TEXT, WHOLE, YES, Places, Token, padded
from penstock.kernels._values cimport number_end, parse_instant, parse_long, scale_double, scale_plain_double, scale_text, unescape

cdef int MISSING = _reasons.MISSING
cdef int NULL_VALUE = _reasons.NULL
cdef int WRONG_TYPE = _reasons.WRONG_TYPE
cdef int OUT_OF_RANGE = _reasons.OUT_OF_RANGE
cdef int BAD_TEXT = _reasons.BAD_TEXT
cdef int NOT_IN_ENUM = _reasons.NOT_IN_ENUM
cdef int TOO_LONG = _reasons.TOO_LONG
cdef int64_t INSTANT_LIMIT = Timestamp.LIMIT

cdef enum Kind:
    INT_KIND
    STRING_KIND
    BOOL_KIND
    ENUM_KIND
    TIMESTAMP_KIND
    DECIMAL_KIND

cdef enum Source:
    FROM_VALUE
    FROM_SLICES  # the record's key or a header
    FROM_RECORD

_KINDS = {"int": INT_KIND, "string": STRING_KIND, "bool": BOOL_KIND, "enum": ENUM_KIND, "timestamp": TIMESTAMP_KIND, "decimal": DECIMAL_KIND}
_MICROS = {"s": 6, "ms": 3, "us": 0, "iso8601": 0}  # digits between the unit and a microsecond
_MAX_TEXT = 2**31 - 1  # bytes of a string column: Arrow's offsets are int32


@cython.final
cdef class Plan(Places):
    """The wanted fields, in declared order. Used by one thread at a time."""

    def __cinit__(self):
        self.specs = NULL
        self.width = 0

    def __init__(self, fields):
        self._fields = dict(fields)
        self._kept = []  # the bytes that the structs point to
        self._headers = {}
        self.width = len(self._fields)
        self.specs = <Spec *>calloc(max(self.width, 1), sizeof(Spec))
        if self.specs == NULL:
            raise MemoryError
        wanted = {field.keys(name) for name, field in self._fields.items() if field.source == "value"}
        self.wants_value = bool(wanted)
        places = self.lay_out(wanted)
        cdef int i
        for i, (name, field) in enumerate(self._fields.items()):
            self._specify(&self.specs[i], field, places[field.keys(name)] if field.source == "value" else -1)
            if field.source.startswith("header:"):
                self._headers[i] = field.source[len("header:"):].encode()

    def __dealloc__(self):
        cdef int i
        if self.specs != NULL:
            for i in range(self.width):
                free(self.specs[i].labels)
        free(self.specs)

    cdef _specify(self, Spec *spec, field, int node):
        cdef bytes text
        spec.kind = _KINDS[field.kind]
        spec.source = FROM_VALUE if field.source == "value" else FROM_RECORD if field.source == "record" else FROM_SLICES
        spec.node = node
        spec.nullable = field.nullable
        spec.has_default = field.default is not None
        if spec.kind == STRING_KIND:
            spec.max_bytes = field.max_bytes
        elif spec.kind == ENUM_KIND:
            self._label(spec, field.values)
        elif spec.kind == TIMESTAMP_KIND:
            spec.shift = _MICROS[field.unit]
            spec.iso = field.unit == "iso8601"
        elif spec.kind == DECIMAL_KIND:
            spec.shift = field.scale
        spec.factor = POWERS[spec.shift]
        if spec.kind == INT_KIND:
            spec.lowest, spec.span = INT64_MIN, UINT64_MAX
        elif spec.kind == TIMESTAMP_KIND:
            spec.lowest, spec.span = 0, (INSTANT_LIMIT - 1) // spec.factor
        else:
            spec.lowest, spec.span = 1 - POWERS[18 - spec.shift], 2 * (POWERS[18 - spec.shift] - 1)
        spec.plain = spec.kind == INT_KIND or spec.kind == DECIMAL_KIND or (spec.kind == TIMESTAMP_KIND and not spec.iso)
        if spec.has_default:
            value = field.canonical(field.default)
            if spec.kind == STRING_KIND:
                text = value.encode()
                self._kept.append(text)
                spec.default_text = <const uint8_t *><const char *>text
                spec.default_length = len(text)
            elif spec.kind == ENUM_KIND:
                spec.default_value = field.values.index(value)
            else:
                spec.default_value = value

    cdef _label(self, Spec *spec, values):
        """The enum's texts in an open-addressing table that is at most half full."""
        cdef uint32_t size = 2
        cdef uint32_t at
        cdef uint64_t first, last
        cdef const uint8_t *start
        cdef bytes text
        while size < 2 * len(values):
            size *= 2
        spec.labels = <Label *>calloc(size, sizeof(Label))
        if spec.labels == NULL:
            raise MemoryError
        spec.label_mask = size - 1
        for code, value in enumerate(values):
            text = value.encode() + bytes(PAD)
            self._kept.append(text)
            start = <const uint8_t *><const char *>text
            text_ends(start, len(text) - PAD, &first, &last)
            at = hash_ends(first, last, len(text) - PAD) & spec.label_mask
            while spec.labels[at].start != NULL:
                at = (at + 1) & spec.label_mask
            spec.labels[at] = Label(first, last, start, len(text) - PAD, code)

    cdef int _text(self, Token *token, const uint8_t **start, int64_t *length) noexcept nogil:
        """The text of a token, decoded. WRONG_TYPE where it holds none."""
        start[0] = token.start
        length[0] = token.length
        if token.shape == TEXT:
            return 0
        if token.shape == RAW:
            return 0 if is_utf8(token.start, token.length) else BAD_TEXT
        if token.shape != ESCAPED:
            return WRONG_TYPE
        start[0] = self.scratch
        length[0] = unescape(token.start, token.length, self.scratch)
        return BAD_TEXT if length[0] < 0 else 0

    cdef int _scale(self, Spec *spec, Token *token, int64_t *out) noexcept nogil:
        """A number times 10**shift, rounded half to even."""
        cdef int64_t power
        if token.shape == WHOLE:
            power = POWERS[18 - spec.shift]
            if not -power < token.value < power:
                return OUT_OF_RANGE
            out[0] = token.value * spec.factor
            return 0
        if token.shape == FRACTION:
            if token.places <= spec.shift:
                power = POWERS[18 - spec.shift + token.places]
                if -power < token.value < power:
                    out[0] = token.value * POWERS[spec.shift - token.places]
                    return 0
            return scale_text(token.start, token.length, spec.shift, out)
        if token.shape == NUMBER:
            return scale_text(token.start, token.length, spec.shift, out)
        if token.shape == FLOAT:
            return scale_double(token.real, spec.shift, out)
        return OUT_OF_RANGE if token.shape == HUGE else WRONG_TYPE

    cdef int _whole(self, Token *token, int64_t *out) noexcept nogil:
        if token.shape == WHOLE:
            out[0] = token.value
            return 0
        if token.shape == NUMBER and token.whole:
            return parse_long(token.start, token.length, out)
        return OUT_OF_RANGE if token.shape == HUGE else WRONG_TYPE

    cdef int _instant(self, Spec *spec, Token *token, int64_t *out) noexcept nogil:
        cdef const uint8_t *start
        cdef int64_t length
        cdef int reason
        if spec.iso:
            reason = self._text(token, &start, &length)
            if reason == 0:
                reason = parse_instant(start, length, out)
        else:
            reason = self._scale(spec, token, out)
        if reason == 0 and (out[0] < 0 or out[0] >= INSTANT_LIMIT):
            return OUT_OF_RANGE
        return reason

    cdef int _decimal(self, Spec *spec, Token *token, int64_t *out) noexcept nogil:
        cdef const uint8_t *start
        cdef int64_t length
        cdef int reason
        cdef bint whole
        if token.shape < TEXT or token.shape == OTHER:
            return self._scale(spec, token, out)
        reason = self._text(token, &start, &length)
        if reason:
            return reason
        if number_end(start, start + length, &whole) != start + length:
            return WRONG_TYPE
        return scale_text(start, length, spec.shift, out)

    cdef int _enum(self, Spec *spec, Token *token, int64_t *out) noexcept nogil:
        cdef const uint8_t *start = token.start
        cdef int64_t length = token.length
        cdef uint64_t first, last
        cdef uint32_t at
        cdef Label *label
        if token.shape == ESCAPED:
            start, length = self.scratch, unescape(token.start, token.length, self.scratch)
            if length < 0:
                return BAD_TEXT
        elif token.shape != TEXT and token.shape != RAW:
            return WRONG_TYPE
        text_ends(start, length, &first, &last)
        at = hash_ends(first, last, length) & spec.label_mask
        while True:
            label = &spec.labels[at]
            if label.start == NULL:
                return BAD_TEXT if token.shape == RAW and not is_utf8(start, length) else NOT_IN_ENUM
            if label.length == length and label.first == first and label.last == last and (length <= 16 or memcmp(label.start, start, length) == 0):
                out[0] = label.code
                return 0
            at = (at + 1) & spec.label_mask

    cdef int _string(self, Spec *spec, Token *token) noexcept nogil:
        """Append a text to the column; its capacity is that of all texts together and PAD."""
        cdef uint8_t *to = spec.text + spec.used
        cdef int64_t length = token.length
        if token.shape == ESCAPED:
            length = unescape(token.start, length, to)
            if length < 0:
                return BAD_TEXT
        elif token.shape == RAW:
            if not is_utf8(token.start, length):
                return BAD_TEXT
        elif token.shape != TEXT:
            return WRONG_TYPE
        if length > spec.max_bytes:
            return TOO_LONG
        if token.shape != ESCAPED:
            copy_text(to, token.start, length)
        spec.used += length
        return 0

    cdef void _slice(self, Spec *spec, int64_t row, Token *token) noexcept nogil:
        """The token of a field that comes from the record's key or a header."""
        cdef const uint8_t *end
        token.shape = ABSENT
        if spec.lengths[row] < 0:
            return
        token.shape = RAW
        token.length = spec.lengths[row]
        token.start = padded(self, 1, self.buffer + spec.starts[row], token.length)
        if spec.kind == BOOL_KIND:
            if token.length == 4 and memcmp(token.start, b"true", 4) == 0:
                token.shape = YES
            elif token.length == 5 and memcmp(token.start, b"false", 5) == 0:
                token.shape = NO
        elif spec.kind == INT_KIND or (spec.kind == TIMESTAMP_KIND and not spec.iso):
            end = token.start + token.length
            if number_end(token.start, end, &token.whole) == end:
                token.shape = NUMBER

    cdef int _missing(self, Spec *spec, Token *token, int64_t row) noexcept nogil:
        """A default, a null or the reason why there is none, for a token that holds nothing."""
        cdef int64_t value = 0
        if token.shape == ABSENT and spec.has_default:
            value = spec.default_value
            if spec.kind == STRING_KIND:
                memcpy(spec.text + spec.used, spec.default_text, spec.default_length)
                spec.used += spec.default_length
        elif not spec.nullable:
            return MISSING if token.shape == ABSENT else NULL_VALUE
        else:
            spec.nulls += 1
            spec.valid[row] = False
        if spec.longs != NULL:
            spec.longs[row] = value
        elif spec.offsets != NULL:
            spec.offsets[row + 1] = <int32_t>spec.used
        elif spec.codes != NULL:
            spec.codes[row] = <int16_t>value
        else:
            spec.flags[row] = <uint8_t>value
        return 0

    cdef int _take(self, Spec *spec, Token *token, int64_t row) noexcept nogil:
        """One value into its column. 0 or a reason; what stands in the column then is for `_clear`."""
        cdef int64_t value = 0
        cdef int reason
        if token.shape <= NONE:
            return self._missing(spec, token, row)
        if spec.kind == INT_KIND:
            return self._whole(token, &spec.longs[row])
        if spec.kind == TIMESTAMP_KIND:
            return self._instant(spec, token, &spec.longs[row])
        if spec.kind == DECIMAL_KIND:
            return self._decimal(spec, token, &spec.longs[row])
        if spec.kind == ENUM_KIND:
            reason = self._enum(spec, token, &value)
            spec.codes[row] = <int16_t>value
            return reason
        if spec.kind == STRING_KIND:
            reason = self._string(spec, token)
            spec.offsets[row + 1] = <int32_t>spec.used
            return reason
        spec.flags[row] = token.shape == YES
        return 0 if token.shape == YES or token.shape == NO else WRONG_TYPE

    cdef void accept(self, int64_t row) noexcept nogil:
        """Turn the tokens of a well-formed record into the values of a row, or refuse it for the first field that does not fit."""
        cdef Token slice
        cdef Token *tokens = self.tokens
        cdef Token *token
        cdef Spec *spec
        cdef int64_t power
        cdef int i, reason
        for i in range(self.width):
            spec = &self.specs[i]
            if spec.source == FROM_VALUE:
                token = &tokens[spec.node]
                if token.shape == WHOLE:
                    if spec.plain and <uint64_t>token.value - <uint64_t>spec.lowest <= spec.span:
                        spec.longs[row] = token.value * spec.factor
                        continue
                elif token.shape == FRACTION and spec.kind == DECIMAL_KIND and token.places <= spec.shift:
                    power = POWERS[18 - spec.shift + token.places]
                    if -power < token.value < power:
                        spec.longs[row] = token.value * POWERS[spec.shift - token.places]
                        continue
                elif token.shape == FLOAT and spec.kind == DECIMAL_KIND:
                    if scale_plain_double(token.real, <double>spec.factor, &spec.longs[row]):
                        continue
                reason = self._take(spec, token, row)
            elif spec.source == FROM_SLICES:
                self._slice(spec, row, &slice)
                reason = self._take(spec, &slice, row)
            else:
                reason = 0 if 0 <= spec.starts[row] < INSTANT_LIMIT else OUT_OF_RANGE
                spec.longs[row] = spec.starts[row]
            if reason:
                self._clear(row, i)
                self.reject[row] = reason | (i + 1) << 8
                return

    cdef void refuse(self, int64_t row, int reason) noexcept nogil:
        """Reject a record as a whole."""
        self._clear(row, 0)
        self.reject[row] = reason

    cdef void _clear(self, int64_t row, int taken) noexcept nogil:
        """Leave nothing in a row. taken: how many of its fields were taken already."""
        cdef Spec *spec
        cdef int i
        for i in range(self.width):
            spec = &self.specs[i]
            if spec.valid != NULL:
                spec.nulls -= i < taken and not spec.valid[row]
                spec.valid[row] = True
            if spec.longs != NULL:
                spec.longs[row] = 0
            elif spec.offsets != NULL:
                spec.used = spec.offsets[row]
                spec.offsets[row + 1] = <int32_t>spec.used
            elif spec.codes != NULL:
                spec.codes[row] = 0
            else:
                spec.flags[row] = 0

    cdef begin(self, records):
        """Make room for the columns of a batch. Raises CorruptionError if the records do not lie in their buffer."""
        cdef int64_t count = len(records), size = len(records.buffer), text
        cdef int i
        cdef const int64_t[::1] starts, timestamps
        cdef const int32_t[::1] lengths
        cdef int64_t[::1] longs
        cdef int16_t[::1] codes
        cdef int32_t[::1] offsets
        cdef uint8_t[::1] flags
        cdef Spec *spec
        cdef bytes buffer = records.buffer
        cdef int64_t longest = 0
        self.buffer = <const uint8_t *><const char *>buffer
        self.inner, self.inner_end = self.buffer + PAD, self.buffer + (size - PAD)
        self._arrays = []
        rejects = np.zeros(count, np.int32)
        self._arrays.append((rejects, None, None, records))
        if count == 0:
            return
        value_bytes = _check(records.value_start, records.value_length, count, size, &longest)
        key_bytes = _check(records.key_start, records.key_length, count, size, &longest)
        offsets = rejects
        self.reject = &offsets[0]
        for i, field in enumerate(self._fields.values()):
            spec = &self.specs[i]
            spec.used = spec.nulls = 0
            text = value_bytes
            slices = None
            if spec.source == FROM_RECORD:
                slices = (records.timestamps, None)
                timestamps = slices[0]
                spec.starts = &timestamps[0]
            elif spec.source == FROM_SLICES:
                slices = (records.key_start, records.key_length)
                text = key_bytes
                if i in self._headers:
                    slices = headers_value(records, self._headers[i])
                    text = _check(slices[0], slices[1], count, size, &longest)
                starts, lengths = slices
                spec.starts, spec.lengths = &starts[0], &lengths[0]
            valid = data = ends = None
            spec.longs, spec.codes, spec.flags, spec.offsets, spec.valid = NULL, NULL, NULL, NULL, NULL
            if field.nullable:
                valid = np.ones(count, np.uint8)
                flags = valid
                spec.valid = &flags[0]
            if spec.kind == STRING_KIND:
                text += count * spec.default_length
                if text > _MAX_TEXT:
                    raise PenstockError(f"{count} records may hold {text} bytes of text in one column", hint="decode fewer records at once")
                data = np.empty(text + PAD, np.uint8)
                ends = np.empty(count + 1, np.int32)
                flags, offsets = data, ends
                spec.text, spec.offsets = &flags[0], &offsets[0]
                spec.offsets[0] = 0
            elif spec.kind == ENUM_KIND:
                data = np.empty(count, np.int16)
                codes = data
                spec.codes = &codes[0]
            elif spec.kind == BOOL_KIND:
                data = np.empty(count, np.uint8)
                flags = data
                spec.flags = &flags[0]
            else:
                data = np.empty(count, np.int64)
                longs = data
                spec.longs = &longs[0]
            self._arrays.append((data, ends, valid, slices))
        self.make_room(longest)

    cdef end(self):
        """The finished columns."""
        cdef int i
        arrays, self._arrays = self._arrays, None
        rejects = arrays[0][0]
        if len(rejects) == 0:
            return Columns({name: _empty(field) for name, field in self._fields.items()}, rejects)
        columns = {}
        for i, (name, field) in enumerate(self._fields.items()):
            data, ends, valid, _ = arrays[i + 1]
            if ends is not None:
                data = data[:self.specs[i].used].copy()
            columns[name] = Column(field, data, ends, valid if self.specs[i].nulls else None)
        return Columns(columns, rejects)


def _empty(field):
    kind = {"enum": np.int16, "bool": np.uint8, "string": np.uint8}.get(field.kind, np.int64)
    return Column(field, np.empty(0, kind), np.zeros(1, np.int32) if field.kind == "string" else None)


cdef int64_t _check(starts, lengths, int64_t count, int64_t size, int64_t *longest) except -1:
    """The bytes of all slices together. Raises CorruptionError where one is not inside the buffer."""
    cdef const int64_t[::1] start = starts
    cdef const int32_t[::1] length = lengths
    cdef int64_t i, n, total = 0, most = longest[0]
    cdef bint inside = start.shape[0] == count and length.shape[0] == count
    if inside:
        for i in range(count):
            n = length[i]
            inside &= (n < 0) | ((start[i] >= 0) & (start[i] <= size - n))
            n = max(n, 0)
            total += n
            most = max(most, n)
    if not inside:
        raise CorruptionError("records do not lie inside their buffer")
    longest[0] = most
    return total
