"""Hash tables of texts and of groups, open addressing with linear probing. See _hashtable.pxd for the memory.

They are hashed with a seed of the process, so that nobody can choose keys that collide; no order and nothing else that is seen outside depends on it.
"""
import os

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from penstock.kernels._arena cimport arena_drop
from penstock.kernels._hash cimport load64, xxh64_bytes

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    typedef uint32_t penstock_four __attribute__((vector_size(16)));
    /* The numbers in a bucket whose tags are `tag`, or'ed: 0 for none, and for one that one; more than one is as rare as 32 bits that are equal by chance.
       Four comparisons at once and no branch, for which of the four it is cannot be predicted. */
    static inline uint32_t penstock_match(const void *bucket, uint32_t tag) {
        penstock_four tags, numbers; uint64_t halves[2];
        memcpy(&tags, bucket, 16);
        memcpy(&numbers, (const char *)bucket + 16, 16);
        numbers &= (penstock_four)(tags == (penstock_four){tag, tag, tag, tag});
        memcpy(halves, &numbers, 16);
        halves[0] |= halves[1];
        return (uint32_t)(halves[0] | halves[0] >> 32);
    }
    /* Fold a word into a hash: the two halves of a 128-bit product, as wyhash does. */
    static inline uint64_t penstock_mix(uint64_t hashed, uint64_t word) {
        unsigned __int128 product = (unsigned __int128)(hashed ^ word) * 0x9E3779B97F4A7C15ULL;
        return (uint64_t)(product ^ product >> 64);
    }
    static inline void *penstock_lines(size_t size) { void *made; return posix_memalign(&made, 64, size) ? NULL : memset(made, 0, size); }
    """
    uint64_t mix "penstock_mix"(uint64_t, uint64_t) noexcept nogil
    uint32_t match "penstock_match"(const void *, uint32_t) noexcept nogil
    void *zeroed_lines "penstock_lines"(size_t) noexcept nogil
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    SHORT = 7  # bytes of a text that is its own fingerprint
    MOST = 0x7FFFFFFF  # groups or texts: a slot has 32 bits for their number

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little")


cdef inline uint64_t fingerprint_of(const uint8_t *text, size_t length, size_t readable) noexcept nogil:
    """64 bits of a text: below 2**59, its length and its bytes, where it is short; else its hash, above."""
    cdef uint64_t word = 0
    cdef size_t index
    if length > SHORT:
        return xxh64_bytes(text, length, SEED) | <uint64_t>1 << 63
    if readable >= 8:
        word = load64(text) & (<uint64_t>1 << 8 * length) - 1
    else:
        for index in range(length):
            word |= <uint64_t>text[index] << 8 * index
    return <uint64_t>length << 56 | word


cdef class Texts:

    def __cinit__(self):
        self.mask = 63
        self.slots = <uint64_t *>calloc(self.mask + 1, sizeof(uint64_t))
        if self.slots == NULL or self.make_room(0) < 0:
            raise MemoryError()

    def __dealloc__(self):
        free(self.slots)
        free(self.prints)
        free(self.bytes)
        free(self.ends)

    cdef int make_room(self, size_t length) noexcept nogil:
        """Make sure that one more text fits, and that half of the slots are free. -1: no memory."""
        cdef size_t room = 2 * (self.used + length) + 512
        cdef int64_t capacity = 2 * self.count + 32
        cdef uint64_t wider = 2 * self.mask + 1, at, index
        cdef void *memory
        cdef uint64_t *slots
        if self.used + length > self.room or self.bytes == NULL:
            memory = realloc(self.bytes, room)
            if memory == NULL:
                return -1
            self.bytes, self.room = <uint8_t *>memory, room
        if self.count >= self.capacity:
            memory = realloc(self.ends, capacity * sizeof(size_t))
            if memory == NULL:
                return -1
            self.ends = <size_t *>memory
            memory = realloc(self.prints, capacity * sizeof(uint64_t))
            if memory == NULL:
                return -1
            self.prints, self.capacity = <uint64_t *>memory, capacity
        if 2 * <uint64_t>self.count >= self.mask:
            slots = <uint64_t *>calloc(wider + 1, sizeof(uint64_t))
            if slots == NULL:
                return -1
            for index in range(self.mask + 1):
                if self.slots[index] != 0:
                    at = self.slots[index] >> 32 & wider
                    while slots[at] != 0:
                        at = at + 1 & wider
                    slots[at] = self.slots[index]
            free(self.slots)
            self.slots, self.mask = slots, wider
        return 0

    cdef int64_t number(self, const uint8_t *text, size_t length, size_t readable) noexcept nogil:
        """The number of a text, a new one if it was not seen before. readable: bytes from `text` on that may be read. -1: no memory."""
        cdef uint64_t fingerprint = fingerprint_of(text, length, readable), tag = mix(SEED, fingerprint) >> 32, at = tag & self.mask
        cdef int64_t found
        cdef size_t begin
        while self.slots[at] != 0:
            found = <int64_t><uint32_t>self.slots[at] - 1
            if self.slots[at] >> 32 == tag and self.prints[found] == fingerprint:
                if length <= SHORT:
                    return found
                begin = self.ends[found - 1] if found else 0
                if self.ends[found] - begin == length and memcmp(self.bytes + begin, text, length) == 0:
                    return found
            at = at + 1 & self.mask
        return self.append(text, length, fingerprint, tag)

    cdef int64_t append(self, const uint8_t *text, size_t length, uint64_t fingerprint, uint64_t tag) noexcept nogil:
        """Add a text that is not there; its number. -1: no memory."""
        cdef uint64_t at
        if self.count == MOST or self.make_room(length) < 0:
            return -1
        at = tag & self.mask
        while self.slots[at] != 0:
            at = at + 1 & self.mask
        if length:
            memcpy(self.bytes + self.used, text, length)
        self.used += length
        self.longest = max(self.longest, length)
        self.ends[self.count] = self.used
        self.prints[self.count] = fingerprint
        self.count += 1
        self.slots[at] = tag << 32 | <uint64_t>self.count
        return self.count - 1


cdef class Groups:

    def __cinit__(self, Layout layout not None, int words):
        self.layout, self.words, self.stride = layout, words, words + layout.slots
        self.mask = 255
        self.buckets = <bucket_t *>zeroed_lines((self.mask + 1) * sizeof(bucket_t))
        if self.buckets == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.buckets)
        free(self.records)
        arena_drop(&self.arena)

    cdef int64_t *record(self, int64_t group) noexcept nogil:
        """A group's words; 0 <= group < count, in the order in which they were first seen."""
        return self.records + (group + 1) * self.stride

    cdef int widen(self) noexcept nogil:
        """Twice as many buckets with the same in them. -1, and nothing changed: no memory."""
        cdef uint64_t wider = 2 * self.mask + 1, at, index
        cdef int place, free_
        cdef bucket_t *made = <bucket_t *>zeroed_lines((wider + 1) * sizeof(bucket_t))
        cdef bucket_t *old
        if made == NULL:
            return -1
        for index in range(self.mask + 1):
            old = self.buckets + index
            for place in range(4):
                if old.numbers[place] == 0:
                    break
                at = old.tags[place] & wider
                free_ = 0
                while made[at].numbers[free_] != 0:
                    free_ += 1
                    if free_ == 4:
                        at, free_ = at + 1 & wider, 0
                made[at].tags[free_], made[at].numbers[free_] = old.tags[place], old.numbers[place]
        free(self.buckets)
        self.buckets, self.mask = made, wider
        return 0

    cdef int reserve(self, int rows) noexcept nogil:
        """Make sure that as many groups as rows can be added, and buckets are half full at most. -1: no memory."""
        cdef int64_t wanted = self.count + rows, capacity = max(2 * self.count, wanted) + 512
        cdef int64_t *records
        if wanted > MOST:
            return -1
        if wanted > self.capacity:
            records = <int64_t *>realloc(self.records, (capacity + 1) * self.stride * sizeof(int64_t))
            if records == NULL:
                return -1
            if self.records == NULL:
                records[0] = -1  # no key begins so: the window is not negative
            self.records, self.capacity = records, capacity
        while <uint64_t>wanted > 2 * (self.mask + 1):
            if self.widen() < 0:
                return -1
        return 0

    cdef uint32_t find(self, int64_t **keys, Py_ssize_t row, uint32_t tag) noexcept nogil:
        """The number of a row's group, which is added if there is none; there is room."""
        cdef uint64_t at = tag & self.mask
        cdef bucket_t *bucket = self.buckets + at
        cdef int64_t *record
        cdef int place = 0, word
        cdef bint same
        while bucket.numbers[place] != 0:
            if bucket.tags[place] == tag:
                record = self.records + <int64_t>bucket.numbers[place] * self.stride
                same = True
                for word in range(self.words):
                    same = same and record[word] == keys[word][row]
                if same:
                    return bucket.numbers[place]
            place += 1
            if place == 4:
                at, place = at + 1 & self.mask, 0
                bucket = self.buckets + at
        self.count += 1
        bucket.tags[place], bucket.numbers[place] = tag, <uint32_t>self.count
        record = self.records + self.count * self.stride
        for word in range(self.words):
            record[word] = keys[word][row]
        memset(record + self.words, 0, self.layout.slots * sizeof(int64_t))
        return <uint32_t>self.count

    cdef int place(self, int64_t **keys, Py_ssize_t begin, int rows, int64_t **found) noexcept nogil:
        """Find or make the groups of the rows [begin, begin + rows), at most BLOCK. keys: a column for each word. found: their records, written; they
        stay where they are until the next call. -1: no memory.

        In passes, so that memory is asked for long before it is needed and a pass has hardly a branch that could be predicted wrong.
        """
        cdef uint64_t hashes[BLOCK]
        cdef int64_t differs[BLOCK]
        cdef uint64_t mask, seed = SEED
        cdef bucket_t *buckets
        cdef int64_t *key
        cdef int64_t *record
        cdef int64_t *records
        cdef int64_t number, count
        cdef int row, word, stride = self.stride
        if self.reserve(rows) < 0:
            return -1
        mask, buckets, records, count = self.mask, self.buckets, self.records, self.count
        key = keys[0] + begin
        for row in range(rows):
            hashes[row] = mix(seed, <uint64_t>key[row])
        for word in range(1, self.words):
            key = keys[word] + begin
            for row in range(rows):
                hashes[row] = mix(hashes[row], <uint64_t>key[row])
        for row in range(rows):
            prefetch(buckets + (hashes[row] >> 32 & mask))
        for row in range(rows):
            number = match(buckets + (hashes[row] >> 32 & mask), <uint32_t>(hashes[row] >> 32))
            record = records + (number if number <= count else 0) * stride
            prefetch(record)
            prefetch(record + stride - 1)
            found[row] = record
        key = keys[0] + begin
        for row in range(rows):
            differs[row] = found[row][0] ^ key[row]
        for word in range(1, self.words):
            key = keys[word] + begin
            for row in range(rows):
                differs[row] |= found[row][word] ^ key[row]
        for row in range(rows):
            if differs[row] != 0:
                found[row] = records + <int64_t>self.find(keys, begin + row, <uint32_t>(hashes[row] >> 32)) * stride
        return 0
