"""Reading untrusted bytes: inline helpers that the decoding kernels share.

Conventions: `p` is where to read, `end` where the record ends, `limit` where the whole buffer ends (limit >= end). Nothing at or beyond `limit`
is loaded; what lies in [end, limit) may be loaded with its neighbours but never changes a result. A function that returns a pointer returns
NULL for malformed input.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef PENSTOCK_BYTES
    #define PENSTOCK_BYTES
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    #define PS_ONES(byte) (0x0101010101010101ULL * (uint64_t)(byte))

    static inline uint64_t ps_load64(const uint8_t *p) { uint64_t word; memcpy(&word, p, 8); return word; }

    /* The first byte of [p, end) that ends the plain part of a JSON string: a quote, a backslash, a control character, a byte of non-ASCII text. */
    static inline const uint8_t *ps_plain_end(const uint8_t *p, const uint8_t *end, const uint8_t *limit)
    {
    #if defined(__SSE2__)
        const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\\\'), space = _mm_set1_epi8(' ');
        while (limit - p >= 16) {
            const __m128i v = _mm_loadu_si128((const __m128i *)p);  /* signed: non-ASCII bytes are below a space, too */
            const int hits = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)), _mm_cmplt_epi8(v, space)));
            if (hits) {
                p += __builtin_ctz((unsigned)hits);
                return p < end ? p : end;
            }
            p += 16;
            if (p >= end)
                return end;
        }
    #else
        (void)limit;
        while (end - p >= 8) {
            const uint64_t v = ps_load64(p), q = v ^ PS_ONES('"'), s = v ^ PS_ONES('\\\\');
            if (((v | (v - PS_ONES(' ')) | (q - PS_ONES(1)) | (s - PS_ONES(1))) & PS_ONES(0x80)) != 0)
                break;  /* a superset of the hits: the loop below finds the byte, or that there is none in this word */
            p += 8;
        }
    #endif
        while (p < end && *p >= ' ' && *p < 0x80 && *p != '"' && *p != '\\\\')
            p++;
        return p;
    }

    /* Whether [p, end) begins with the first `length` bytes of `raw`, which is padded to 32. */
    static inline int ps_starts(const uint8_t *p, const uint8_t *end, const uint8_t *limit, const uint8_t *raw, unsigned length)
    {
        if (end - p < (int64_t)length)
            return 0;
    #if defined(__SSE2__)
        if (limit - p >= 32) {
            unsigned same = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), _mm_loadu_si128((const __m128i *)raw)));
            if (length <= 16)
                return (~same & ((1u << length) - 1)) == 0;
            same |= (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 16)), _mm_loadu_si128((const __m128i *)(raw + 16)))) << 16;
            return (~same & (0xffffffffu >> (32 - length))) == 0;
        }
    #else
        (void)limit;
    #endif
        return memcmp(p, raw, length) == 0;
    }

    /* How many of the 8 bytes at p are digits before the first other one, and their value. The caller has checked that 8 bytes are there. */
    static inline int ps_digits(const uint8_t *p, uint64_t *value)
    {
        uint64_t v = ps_load64(p) ^ PS_ONES('0'), other;
        int count;
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap64(v);
    #endif
        other = (((v & PS_ONES(0x7f)) + PS_ONES(0x76)) | v) & PS_ONES(0x80);
        count = other ? __builtin_ctzll(other) >> 3 : 8;
        if (count == 0) {
            *value = 0;
            return 0;
        }
        v <<= 64 - 8 * count;  /* zeros in front, then pairs of digits, of pairs, of fours */
        v = (v * 10 + (v >> 8)) & 0x00ff00ff00ff00ffULL;
        v = (v * 100 + (v >> 16)) & 0x0000ffff0000ffffULL;
        *value = (v * 10000 + (v >> 32)) & 0xffffffffULL;
        return count;
    }

    /* 1 if none of the n bytes has its high bit set. */
    static inline int ps_ascii(const uint8_t *p, int64_t n)
    {
        uint64_t seen = 0;
        int64_t i = 0;
        for (; i + 8 <= n; i += 8)
            seen |= ps_load64(p + i);
        for (; i < n; i++)
            seen |= p[i];
        return (seen & PS_ONES(0x80)) == 0;
    }

    /* A hash of short text: its length, its first and its last 8 bytes. */
    static inline uint32_t ps_hash(const uint8_t *p, int64_t n)
    {
        uint64_t a = 0, b = 0;
        if (n >= 8) {
            a = ps_load64(p);
            b = ps_load64(p + n - 8);
        } else {
            int64_t i;
            for (i = 0; i < n; i++)
                a = a << 8 | p[i];
        }
        a = (a ^ (uint64_t)n) * 0x9E3779B97F4A7C15ULL;
        a = (a ^ (a >> 29) ^ b) * 0xBF58476D1CE4E5B9ULL;
        return (uint32_t)(a >> 32);
    }
    #endif
    """
    uint64_t load64 "ps_load64"(const uint8_t *p) noexcept nogil
    const uint8_t *plain_end "ps_plain_end"(const uint8_t *p, const uint8_t *end, const uint8_t *limit) noexcept nogil
    bint starts_with "ps_starts"(const uint8_t *p, const uint8_t *end, const uint8_t *limit, const uint8_t *raw, unsigned length) noexcept nogil
    int eight_digits "ps_digits"(const uint8_t *p, uint64_t *value) noexcept nogil
    bint is_ascii "ps_ascii"(const uint8_t *p, int64_t n) noexcept nogil
    uint32_t hash_text "ps_hash"(const uint8_t *p, int64_t n) noexcept nogil


cdef inline uint16_t big16(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 2 bytes are there."""
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline uint32_t big32(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 4 bytes are there."""
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint64_t big64(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 8 bytes are there."""
    return <uint64_t>big32(p) << 32 | big32(p + 4)


cdef inline const uint8_t *varint(const uint8_t *p, const uint8_t *end, int64_t *out) noexcept nogil:
    """A zig-zag varint of at most 64 bits (Protocol Buffers' sint64, as Kafka's records have it). NULL: truncated or too long."""
    cdef uint64_t value
    cdef int shift
    cdef bint more
    if p >= end:
        return NULL
    value = p[0]
    p += 1
    if value >= 0x80:
        value &= 0x7F
        shift = 7
        while True:
            if p >= end or shift > 63 or (shift == 63 and p[0] > 1):
                return NULL
            value |= <uint64_t>(p[0] & 0x7F) << shift
            shift += 7
            more = p[0] >= 0x80
            p += 1
            if not more:
                break
    out[0] = <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
    return p


cdef inline int utf8_length(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The bytes of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 if there is none. p < end."""
    cdef uint8_t first = p[0], low = 0x80, high = 0xBF
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4 or end - p < 2:
        return 0
    if first < 0xE0:
        return 2 if p[1] & 0xC0 == 0x80 else 0
    if first == 0xE0:
        low = 0xA0
    elif first == 0xED:
        high = 0x9F
    elif first == 0xF0:
        low = 0x90
    elif first == 0xF4:
        high = 0x8F
    if p[1] < low or p[1] > high or end - p < 3 or p[2] & 0xC0 != 0x80:
        return 0
    if first < 0xF0:
        return 3
    return 4 if end - p >= 4 and p[3] & 0xC0 == 0x80 else 0


cdef inline bint is_utf8(const uint8_t *p, int64_t n) noexcept nogil:
    """Whether n bytes are well-formed UTF-8."""
    cdef const uint8_t *end = p + n
    cdef int length
    if is_ascii(p, n):
        return True
    while p < end:
        length = utf8_length(p, end)
        if length == 0:
            return False
        p += length
    return True
