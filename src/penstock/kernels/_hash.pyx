"""XXH64, own implementation."""


cdef inline uint64_t fold_in(uint64_t lane, uint64_t word) noexcept nogil:
    return rotate(lane + word * P2, 31) * P1


cdef uint64_t xxh64_bytes(const uint8_t *data, size_t length, uint64_t seed) noexcept nogil:
    """XXH64 of `length` bytes."""
    cdef const uint8_t *at = data
    cdef size_t left = length
    cdef uint64_t hashed, a, b, c, d
    if left >= 32:
        a, b, c, d = seed + P1 + P2, seed + P2, seed, seed - P1
        while left >= 32:
            a = fold_in(a, load64(at))
            b = fold_in(b, load64(at + 8))
            c = fold_in(c, load64(at + 16))
            d = fold_in(d, load64(at + 24))
            at += 32
            left -= 32
        hashed = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)
        hashed = (hashed ^ fold_in(0, a)) * P1 + P4
        hashed = (hashed ^ fold_in(0, b)) * P1 + P4
        hashed = (hashed ^ fold_in(0, c)) * P1 + P4
        hashed = (hashed ^ fold_in(0, d)) * P1 + P4
    else:
        hashed = seed + P5
    hashed += length
    while left >= 8:
        hashed = rotate(hashed ^ fold_in(0, load64(at)), 27) * P1 + P4
        at += 8
        left -= 8
    if left >= 4:
        hashed = rotate(hashed ^ load32(at) * P1, 23) * P2 + P3
        at += 4
        left -= 4
    while left > 0:
        hashed = rotate(hashed ^ at[0] * P5, 11) * P1
        at += 1
        left -= 1
    return finish(hashed)


def xxh64(const uint8_t[::1] data not None, uint64_t seed=0):
    """XXH64 of a bytes-like object, as an int of 64 bits, unsigned."""
    if data.shape[0] == 0:
        return xxh64_bytes(NULL, 0, seed)
    return xxh64_bytes(&data[0], data.shape[0], seed)
