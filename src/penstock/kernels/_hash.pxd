"""XXH64, little-endian words, from its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), revision 0.2.0."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t penstock_load64(const void *from) {
        uint64_t word; memcpy(&word, from, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }
    static inline uint32_t penstock_load32(const void *from) {
        uint32_t word; memcpy(&word, from, 4);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap32(word);
    #endif
        return word;
    }
    #define PENSTOCK_P1 0x9E3779B185EBCA87ULL
    #define PENSTOCK_P2 0xC2B2AE3D27D4EB4FULL
    #define PENSTOCK_P3 0x165667B19E3779F9ULL
    #define PENSTOCK_P4 0x85EBCA77C2B2AE63ULL
    #define PENSTOCK_P5 0x27D4EB2F165667C5ULL
    """
    uint64_t load64 "penstock_load64"(const void *) noexcept nogil
    uint32_t load32 "penstock_load32"(const void *) noexcept nogil
    const uint64_t P1 "PENSTOCK_P1"
    const uint64_t P2 "PENSTOCK_P2"
    const uint64_t P3 "PENSTOCK_P3"
    const uint64_t P4 "PENSTOCK_P4"
    const uint64_t P5 "PENSTOCK_P5"


cdef inline uint64_t rotate(uint64_t value, int by) noexcept nogil:
    return value << by | value >> (64 - by)


cdef inline uint64_t finish(uint64_t hashed) noexcept nogil:
    """The final mix."""
    hashed = (hashed ^ hashed >> 33) * P2
    hashed = (hashed ^ hashed >> 29) * P3
    return hashed ^ hashed >> 32


cdef inline uint64_t xxh64_word(uint64_t word) noexcept nogil:
    """XXH64, seed 0, of a number's 8 bytes, little-endian: `xxh64_bytes` with all that does not apply left out."""
    return finish(rotate((P5 + 8) ^ rotate(word * P2, 31) * P1, 27) * P1 + P4)


cdef uint64_t xxh64_bytes(const uint8_t *data, size_t length, uint64_t seed) noexcept nogil
