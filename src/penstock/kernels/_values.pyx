"""Exact numbers, instants and text from what stands in a record.

Numbers are worked on as whole decimal digits, so that a value is the same on every machine. Each function that ends in an int returns 0 or a reason of
`penstock.kernels.reasons`.
"""
from cpython.mem cimport PyMem_Free
from libc.math cimport fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from penstock.kernels import reasons as _reasons

from penstock.kernels._bytes cimport POWERS

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char code, int precision, int flags, int *kind) except NULL

cdef int WRONG_TYPE = _reasons.WRONG_TYPE
cdef int OUT_OF_RANGE = _reasons.OUT_OF_RANGE

cdef int64_t FAR = 1_000_000_000_000  # an exponent further out than any record has digits


cdef inline bint _digit(const uint8_t *p, const uint8_t *end) noexcept nogil:
    return p < end and p[0] >= c"0" and p[0] <= c"9"


cdef const uint8_t *number_end(const uint8_t *p, const uint8_t *end, bint *whole) noexcept nogil:
    """The end of the JSON number (RFC 8259, section 6) at p, NULL if there is none. whole: set to whether it has neither fraction nor exponent."""
    whole[0] = True
    if p < end and p[0] == c"-":
        p += 1
    if not _digit(p, end):
        return NULL
    if p[0] == c"0":
        p += 1
    else:
        while _digit(p, end):
            p += 1
    if p < end and p[0] == c".":
        whole[0] = False
        p += 1
        if not _digit(p, end):
            return NULL
        while _digit(p, end):
            p += 1
    if p < end and (p[0] == c"e" or p[0] == c"E"):
        whole[0] = False
        p += 1
        if p < end and (p[0] == c"+" or p[0] == c"-"):
            p += 1
        if not _digit(p, end):
            return NULL
        while _digit(p, end):
            p += 1
    return p


cdef int scale_text(const uint8_t *p, int64_t n, int shift, int64_t *out) noexcept nogil:
    """A well-formed JSON number times 10**shift, rounded half to even. OUT_OF_RANGE from 10**18 on.

    With the digits as one string and the decimal point moved by exponent and shift: what is left of the point is the result, the digit behind
    it and whether anything but zeros follows decide the rounding. No number is too long or has too large an exponent for that.
    """
    cdef const uint8_t *end = p + n
    cdef const uint8_t *q
    cdef bint negative = False, sticky = False, seen_point = False, minus
    cdef int64_t left = 0, exponent = 0, index = 0, total = 0
    cdef uint64_t scaled = 0, most = <uint64_t>POWERS[18]  # ten times `most` still fits
    cdef int next_digit = 0, digit
    if p < end and p[0] == c"-":
        negative = True
        p += 1
    q = p
    while q < end and q[0] != c"e" and q[0] != c"E":
        if q[0] == c".":
            seen_point = True
        else:
            total += 1
            if not seen_point:
                left += 1
        q += 1
    if q < end:
        q += 1
        minus = q < end and q[0] == c"-"
        if q < end and (q[0] == c"-" or q[0] == c"+"):
            q += 1
        while q < end:
            if exponent < FAR:
                exponent = exponent * 10 + (q[0] - c"0")
            q += 1
        if minus:
            exponent = -exponent
    left += exponent + shift
    while index < total:
        if p[0] != c".":
            digit = p[0] - c"0"
            if index < left:
                scaled = scaled * 10 + <uint64_t>digit
                if scaled >= most:
                    return OUT_OF_RANGE
            elif index == left:
                next_digit = digit
            elif digit:
                sticky = True
            index += 1
        p += 1
    while index < left and scaled:
        scaled *= 10
        if scaled >= most:
            return OUT_OF_RANGE
        index += 1
    if next_digit > 5 or (next_digit == 5 and (sticky or scaled & 1)):
        scaled += 1
        if scaled >= most:
            return OUT_OF_RANGE
    out[0] = -<int64_t>scaled if negative else <int64_t>scaled
    return 0


cdef int _scale_repr(double value, int shift, int64_t *out) noexcept with gil:
    cdef char *text
    cdef int reason
    try:
        text = PyOS_double_to_string(value, c"r", 0, 0, NULL)
    except MemoryError:
        return OUT_OF_RANGE
    reason = scale_text(<const uint8_t *>text, <int64_t>strlen(text), shift, out)
    PyMem_Free(text)
    return reason


cdef int scale_double(double value, int shift, int64_t *out) noexcept nogil:
    """The shortest decimal text that reads back as `value` (Python's repr), times 10**shift, rounded half to even.

    What spares the text, beside `scale_plain_double`: a k of at most 4e15 for which k / 10**shift is the value exactly is the text itself, for neighbours
    on that decimal grid are then more than one unit in the last place apart.
    """
    cdef double product = value * <double>POWERS[shift]
    if scale_plain_double(value, <double>POWERS[shift], out):
        return 0
    if fabs(product) < 4e15:
        if <double>out[0] / <double>POWERS[shift] == value:
            return 0
    elif not isfinite(value) or fabs(product) >= 1.1e18:
        return OUT_OF_RANGE
    return _scale_repr(value, shift, out)


cdef int parse_long(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil:
    """A JSON integer literal as int64."""
    cdef bint negative = p[0] == c"-"
    cdef uint64_t value = 0
    cdef int64_t i = 1 if negative else 0
    if n - i > 19:
        return OUT_OF_RANGE
    while i < n:
        value = value * 10 + <uint64_t>(p[i] - c"0")
        i += 1
    if value > (<uint64_t>1 << 63) - (0 if negative else 1):
        return OUT_OF_RANGE
    out[0] = <int64_t>(0 - value) if negative else <int64_t>value
    return 0


cdef inline int _number(const uint8_t *p, int count) noexcept nogil:
    """`count` digits as a number, -1 if one is none."""
    cdef int i, value = 0
    for i in range(count):
        if p[i] < c"0" or p[i] > c"9":
            return -1
        value = value * 10 + (p[i] - c"0")
    return value


cdef int parse_instant(const uint8_t *p, int64_t n, int64_t *out) noexcept nogil:
    """Microseconds since 1970 of an ISO 8601 text, see `penstock.kernels.reference_decode.instant`. The caller checks the range of years.

    WRONG_TYPE for another shape, OUT_OF_RANGE for a date, time or zone that does not exist. Days are counted as in Howard Hinnant's
    "chrono-Compatible Low-Level Date Algorithms".
    """
    cdef int year, month, day, hour = 0, minute = 0, second = 0, zone_hour = 0, zone_minute = 0, zone = 0, digits = 0, last
    cdef int64_t fraction = 0, at = 10, era, of_era, days
    if n < 10 or p[4] != c"-" or p[7] != c"-":
        return WRONG_TYPE
    year, month, day = _number(p, 4), _number(p + 5, 2), _number(p + 8, 2)
    if year < 0 or month < 0 or day < 0:
        return WRONG_TYPE
    if n > 10:
        if n < 16 or (p[10] != c"T" and p[10] != c" ") or p[13] != c":":
            return WRONG_TYPE
        hour, minute = _number(p + 11, 2), _number(p + 14, 2)
        if hour < 0 or minute < 0:
            return WRONG_TYPE
        at = 16
        if at < n and p[at] == c":":
            second = _number(p + 17, 2) if n >= 19 else -1
            if second < 0:
                return WRONG_TYPE
            at = 19
            if at < n and p[at] == c".":
                at += 1
                while at < n and p[at] >= c"0" and p[at] <= c"9":
                    digits += 1
                    if digits > 9:
                        return WRONG_TYPE
                    fraction = fraction * 10 + (p[at] - c"0")
                    at += 1
                if digits == 0:
                    return WRONG_TYPE
        if at < n and p[at] == c"Z":
            at += 1
        elif at < n and (p[at] == c"+" or p[at] == c"-"):
            zone = 1 if p[at] == c"+" else -1
            at += 1
            if n - at < 4:
                return WRONG_TYPE
            zone_hour = _number(p + at, 2)
            at += 2
            if p[at] == c":":
                at += 1
            zone_minute = _number(p + at, 2) if n - at >= 2 else -1
            if zone_hour < 0 or zone_minute < 0:
                return WRONG_TYPE
            at += 2
        if at != n:
            return WRONG_TYPE
    if month < 1 or month > 12 or day < 1 or hour > 23 or minute > 59 or second > 59 or zone_hour > 23 or zone_minute > 59:
        return OUT_OF_RANGE
    if month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    else:
        last = 30 if month in (4, 6, 9, 11) else 31
    if day > last:
        return OUT_OF_RANGE
    fraction = fraction * POWERS[9 - digits]  # nanoseconds
    last = <int>(fraction % 1000)
    fraction = fraction // 1000
    if last > 500 or (last == 500 and fraction & 1):
        fraction += 1
    if month <= 2:
        year -= 1
        month += 12
    era = (year if year >= 0 else year - 399) // 400
    of_era = year - era * 400
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * (month - 3) + 2) // 5 + day - 1 - 719468
    out[0] = ((days * 1440 + hour * 60 + minute - zone * (zone_hour * 60 + zone_minute)) * 60 + second) * 1_000_000 + fraction
    return 0


cdef inline int _hex4(const uint8_t *p) noexcept nogil:
    """Four hexadecimal digits, which the walk over the string has checked."""
    cdef int i, value = 0
    for i in range(4):
        value = value << 4 | ((p[i] & 15) + (9 if p[i] > c"9" else 0))
    return value


cdef int64_t unescape(const uint8_t *p, int64_t n, uint8_t *out) noexcept nogil:
    """Decode the inside of a well-formed JSON string. The bytes written, never more than n; -1 for a surrogate without its other half."""
    cdef const uint8_t *end = p + n
    cdef uint8_t *to = out
    cdef int code, low
    cdef uint8_t letter
    while p < end:
        if p[0] != c"\\":
            to[0] = p[0]
            to += 1
            p += 1
            continue
        letter = p[1]
        p += 2
        if letter == c"u":
            code = _hex4(p)
            p += 4
            if 0xD800 <= code < 0xE000:
                if code >= 0xDC00 or end - p < 6 or p[0] != c"\\" or p[1] != c"u":
                    return -1
                low = _hex4(p + 2)
                if low < 0xDC00 or low > 0xDFFF:
                    return -1
                p += 6
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            if code < 0x80:
                to[0] = <uint8_t>code
                to += 1
            elif code < 0x800:
                to[0] = <uint8_t>(0xC0 | code >> 6)
                to[1] = <uint8_t>(0x80 | (code & 0x3F))
                to += 2
            elif code < 0x10000:
                to[0] = <uint8_t>(0xE0 | code >> 12)
                to[1] = <uint8_t>(0x80 | (code >> 6 & 0x3F))
                to[2] = <uint8_t>(0x80 | (code & 0x3F))
                to += 3
            else:
                to[0] = <uint8_t>(0xF0 | code >> 18)
                to[1] = <uint8_t>(0x80 | (code >> 12 & 0x3F))
                to[2] = <uint8_t>(0x80 | (code >> 6 & 0x3F))
                to[3] = <uint8_t>(0x80 | (code & 0x3F))
                to += 4
            continue
        if letter == c"n":
            letter = c"\n"
        elif letter == c"t":
            letter = c"\t"
        elif letter == c"r":
            letter = c"\r"
        elif letter == c"b":
            letter = c"\b"
        elif letter == c"f":
            letter = c"\f"
        to[0] = letter
        to += 1
    return to - out
