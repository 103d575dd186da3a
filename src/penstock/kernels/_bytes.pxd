"""Reading untrusted bytes: inline helpers that the decoding kernels share.

Conventions: `p` is where to read, `end` where the record ends. A record is *padded*: `PAD` bytes before its start and behind its end may be loaded, and
never change a result, so that a load needs no check of its own as long as it begins at or before `end`. A function that returns a pointer returns NULL
for malformed input.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef PENSTOCK_BYTES
    #define PENSTOCK_BYTES
    #include <math.h>
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    #define PS_PAD 64
    #define PS_ONES(byte) (0x0101010101010101ULL * (uint64_t)(byte))

    /* 8 bytes, the first one lowest. */
    static inline uint64_t ps_load64(const uint8_t *p)
    {
        uint64_t word;
        memcpy(&word, p, 8);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }

    static inline uint32_t ps_load32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

    /* The width of a varint of at most 8 bytes, and its value; 0 if it is longer. */
    static inline int ps_varint(const uint8_t *p, uint64_t *value)
    {
        uint64_t v = ps_load64(p);
        const uint64_t last = ~v & PS_ONES(0x80);
        if (last == 0)
            return 0;
        v &= (last ^ (last - 1)) & PS_ONES(0x7f);  /* then groups of 7 bits together, of 14, of 28 */
        v = (v & 0x007f007f007f007fULL) | (v & 0x7f007f007f007f00ULL) >> 1;
        v = (v & 0x00003fff00003fffULL) | (v & 0x3fff00003fff0000ULL) >> 2;
        *value = (v & 0x000000000fffffffULL) | (v & 0x0fffffff00000000ULL) >> 4;
        return (__builtin_ctzll(last) >> 3) + 1;
    }

    /* The first byte from p on that ends the plain part of a JSON string (a quote, a backslash, a control character, a byte of non-ASCII text), or a byte
       at or behind `end`. p <= end; padded. */
    static inline const uint8_t *ps_plain_end(const uint8_t *p, const uint8_t *end)
    {
    #if defined(__SSE2__)
        const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8(0x5c), space = _mm_set1_epi8(' ');
        do {
            const __m128i v = _mm_loadu_si128((const __m128i *)p);  /* signed: non-ASCII bytes are below a space, too */
            const int hits = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)), _mm_cmplt_epi8(v, space)));
            if (__builtin_expect(hits != 0, 1))
                return p + __builtin_ctz((unsigned)hits);
            p += 16;
        } while (p < end);
    #else
        while (p < end && *p >= ' ' && *p < 0x80 && *p != '"' && *p != 0x5c)
            p++;
    #endif
        return p;
    }

    /* Whether what stands at p begins with the bytes of `raw`, 32 of them, that `mask` has a bit for. 32 bytes can be loaded from p. */
    static inline int ps_starts(const uint8_t *p, const uint8_t *raw, uint32_t mask)
    {
    #if defined(__SSE2__)
        const __m128i low = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), _mm_loadu_si128((const __m128i *)raw));
        const __m128i high = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 16)), _mm_loadu_si128((const __m128i *)(raw + 16)));
        return (mask & ~((uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16)) == 0;
    #else
        return memcmp(p, raw, mask == 0xffffffffu ? 32 : __builtin_ctz(~mask)) == 0;
    #endif
    }

    static const int64_t ps_powers[19] = {
        1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000, 1000000000000, 10000000000000,
        100000000000000, 1000000000000000, 10000000000000000, 100000000000000000, 1000000000000000000};

    /* How many of the 8 bytes at p are digits before the first other one, and their value. */
    static inline int ps_digits(const uint8_t *p, uint64_t *value)
    {
        uint64_t v = ps_load64(p) ^ PS_ONES('0');
        const uint64_t other = (((v & PS_ONES(0x7f)) + PS_ONES(0x76)) | v) & PS_ONES(0x80);
        const int bits = other ? __builtin_ctzll(other) & ~7 : 64;
        if (__builtin_expect(bits == 0, 0)) {
            *value = 0;
            return 0;
        }
        v <<= 64 - bits;  /* zeros in front, then pairs of digits, of pairs, of fours */
        v = (v * 10 + (v >> 8)) & 0x00ff00ff00ff00ffULL;
        v = (v * 100 + (v >> 16)) & 0x0000ffff0000ffffULL;
        *value = (v * 10000 + (v >> 32)) & 0xffffffffULL;
        return bits >> 3;
    }

    /* Digits from p on, appended to `value`, which overflows from 20 of them on; where they end, at or behind `end` only if they reach it. Padded. */
    static inline const uint8_t *ps_number(const uint8_t *p, const uint8_t *end, uint64_t *value)
    {
        uint64_t part;
        int count;
        do {
            count = ps_digits(p, &part);
            *value = *value * (uint64_t)ps_powers[count] + part;
            p += count;
        } while (count == 8 && p < end);
        return p;
    }

    #if defined(__SSE2__)
    /* loadu(ps_last + n): the last n of 16 bytes. */
    static const uint8_t ps_last[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

    static inline uint64_t ps_sixteen(__m128i v)  /* the number whose digits are these bytes, 0 to 9 */
    {
        uint64_t halves;
        v = _mm_add_epi16(_mm_mullo_epi16(_mm_and_si128(v, _mm_set1_epi16(0xff)), _mm_set1_epi16(10)), _mm_srli_epi16(v, 8));
        v = _mm_madd_epi16(v, _mm_set1_epi32(1 << 16 | 100));
        v = _mm_madd_epi16(_mm_packs_epi32(v, v), _mm_set1_epi32(1 << 16 | 10000));
        _mm_storel_epi64((__m128i *)&halves, v);
        return (halves & 0xffffffff) * 100000000 + (halves >> 32);
    }
    #endif

    /* The end of a JSON number of at most 16 characters with neither sign nor exponent, and its digits as a number, of which `places` stand behind the
       point. NULL: it is another one, none, or reaches `end`. Wojciech Mula's way of converting all digits at once, with SSE2 alone. Padded. */
    static inline const uint8_t *ps_short_number(const uint8_t *p, const uint8_t *end, int64_t *value, int *places)
    {
    #if defined(__SSE2__)
        const __m128i zero = _mm_set1_epi8('0');
        const __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), zero);
        unsigned other = 0x10000u | (0xffffu ^ (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v)));
        const int whole = __builtin_ctz(other);
        int length = whole;
        __m128i digits;
        if (whole == 0 || (p[0] == '0' && whole > 1))
            return NULL;
        if (p[whole] == '.') {
            other &= other - 1;
            if (other == 0)
                return NULL;
            length = __builtin_ctz(other);
            *places = length - whole - 1;
            if (*places == 0)
                return NULL;
            /* what stands before the point, moved one on */
            const __m128i behind = _mm_loadu_si128((const __m128i *)(ps_last + *places));
            digits = _mm_or_si128(_mm_and_si128(behind, _mm_loadu_si128((const __m128i *)(p + length - 16))),
                                  _mm_andnot_si128(behind, _mm_loadu_si128((const __m128i *)(p + length - 17))));
            digits = _mm_and_si128(_mm_sub_epi8(digits, zero), _mm_loadu_si128((const __m128i *)(ps_last + length - 1)));
        } else {
            *places = 0;
            digits = _mm_loadu_si128((const __m128i *)(p + length - 16));
            digits = _mm_and_si128(_mm_sub_epi8(digits, zero), _mm_loadu_si128((const __m128i *)(ps_last + length)));
        }
        p += length;
        if (length == 16 || (*p | 0x20) == 'e' || p >= end)
            return NULL;
        *value = (int64_t)ps_sixteen(digits);
        return p;
    #else
        (void)p; (void)end; (void)value; (void)places;
        return NULL;
    #endif
    }

    /* The end of a JSON number of at most 15 digits without anything else. NULL as above. */
    static inline const uint8_t *ps_short_end(const uint8_t *p, const uint8_t *end)
    {
    #if defined(__SSE2__)
        const __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
        const int length = __builtin_ctz(0x10000u | (0xffffu ^ (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v))));
        if (length == 0 || length == 16 || (p[0] == '0' && length > 1))
            return NULL;
        p += length;
        return *p == '.' || (*p | 0x20) == 'e' || p >= end ? NULL : p;
    #else
        (void)p; (void)end;
        return NULL;
    #endif
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

    /* The first and the last 8 bytes of n bytes, zeros behind them where there are fewer: with n all that there is to know of up to 16. Padded. */
    static inline void ps_ends(const uint8_t *p, int64_t n, uint64_t *first, uint64_t *last)
    {
        const uint64_t mask = n < 8 ? ((uint64_t)1 << 8 * n) - 1 : ~(uint64_t)0;
        *first = ps_load64(p) & mask;
        *last = ps_load64(p + (n < 8 ? 0 : n - 8)) & mask;
    }

    static inline uint32_t ps_hash(uint64_t first, uint64_t last, int64_t n)
    {
        uint64_t a = (first ^ (uint64_t)n) * 0x9E3779B97F4A7C15ULL;
        a = (a ^ (a >> 29) ^ last) * 0xBF58476D1CE4E5B9ULL;
        return (uint32_t)(a >> 32);
    }

    /* A number below 2**62 rounded half to even. */
    static inline int64_t ps_nearest(double value)
    {
    #if defined(__SSE2__) && defined(__x86_64__)
        return _mm_cvtsd_si64(_mm_set_sd(value));
    #else
        return (int64_t)rint(value);
    #endif
    }

    /* Copy n bytes that are padded to where there is room for PS_PAD more. Most texts are short. */
    static inline void ps_copy(uint8_t *to, const uint8_t *p, int64_t n)
    {
        if (n <= 32)
            memcpy(to, p, 32);
        else
            memcpy(to, p, (size_t)n);
    }
    #endif
    """
    enum: PAD "PS_PAD"
    const int64_t POWERS "ps_powers"[19]
    uint64_t load64 "ps_load64"(const uint8_t *p) noexcept nogil
    uint64_t swapped "__builtin_bswap64"(uint64_t word) noexcept nogil
    int seven_bits "ps_varint"(const uint8_t *p, uint64_t *value) noexcept nogil
    uint32_t load32 "ps_load32"(const uint8_t *p) noexcept nogil
    const uint8_t *plain_end "ps_plain_end"(const uint8_t *p, const uint8_t *end) noexcept nogil
    bint starts_with "ps_starts"(const uint8_t *p, const uint8_t *raw, uint32_t mask) noexcept nogil
    const uint8_t *digits "ps_number"(const uint8_t *p, const uint8_t *end, uint64_t *value) noexcept nogil
    const uint8_t *short_number "ps_short_number"(const uint8_t *p, const uint8_t *end, int64_t *value, int *places) noexcept nogil
    const uint8_t *short_end "ps_short_end"(const uint8_t *p, const uint8_t *end) noexcept nogil
    bint is_ascii "ps_ascii"(const uint8_t *p, int64_t n) noexcept nogil
    void text_ends "ps_ends"(const uint8_t *p, int64_t n, uint64_t *first, uint64_t *last) noexcept nogil
    uint32_t hash_ends "ps_hash"(uint64_t first, uint64_t last, int64_t n) noexcept nogil
    int64_t nearest "ps_nearest"(double value) noexcept nogil
    void copy_text "ps_copy"(uint8_t *to, const uint8_t *p, int64_t n) noexcept nogil


cdef inline uint16_t big16(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 2 bytes are there."""
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline uint32_t big32(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 4 bytes are there."""
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint64_t big64(const uint8_t *p) noexcept nogil:
    """Big-endian; the caller has checked that 8 bytes are there."""
    return swapped(load64(p))


cdef inline const uint8_t *checked_varint(const uint8_t *p, const uint8_t *end, int64_t *out) noexcept nogil:
    """A zig-zag varint of at most 64 bits (Protocol Buffers' sint64, as Kafka's records have it). NULL: truncated or too long."""
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef bint more = True
    while more:
        if p >= end or shift > 63 or (shift == 63 and p[0] > 1):
            return NULL
        value |= <uint64_t>(p[0] & 0x7F) << shift
        shift += 7
        more = p[0] >= 0x80
        p += 1
    out[0] = <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
    return p


cdef inline const uint8_t *varint(const uint8_t *p, const uint8_t *end, int64_t *out, bint padded) noexcept nogil:
    """A zig-zag varint, which may end up to 8 bytes behind `end` if it is padded: the caller finds out from where it ends. NULL as above."""
    cdef uint64_t value
    cdef int width
    if not padded:
        return checked_varint(p, end, out)
    value = p[0]
    if value < 0x80:
        p += 1
    elif p[1] < 0x80:
        value = (value & 0x7F) | <uint64_t>p[1] << 7
        p += 2
    else:
        width = seven_bits(p, &value)
        if width == 0:
            return checked_varint(p, end, out)
        p += width
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
