"""Hash tables of texts and of groups, open addressing with linear probing. See _hashtable.pxd for the memory.

They are hashed with a seed of the process, so that nobody can choose keys that collide; no order and nothing else that is seen outside depends on it.
"""
import os

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from penstock.kernels._cell cimport state_free
from penstock.kernels._hash cimport xxh64_bytes
from penstock.kernels._varint cimport uint128

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    AHEAD = 12  # rows between the prefetch of a slot and its use
    MOST = 0x7FFFFFFF  # groups or texts: a slot has 32 bits for their number

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little")


cdef inline uint64_t mix(uint64_t hashed, uint64_t word) noexcept nogil:
    """Fold a word into a hash: the two halves of a 128-bit product, as wyhash does."""
    cdef uint128 product = <uint128>(hashed ^ word) * <uint128>(<uint64_t>0x9E3779B97F4A7C15)
    return <uint64_t>product ^ <uint64_t>(product >> 64)


cdef uint64_t *doubled(uint64_t *slots, uint64_t *mask) noexcept nogil:
    """Twice as many slots with the same in them; the old ones are gone. NULL, and nothing changed: no memory."""
    cdef uint64_t wider = 2 * mask[0] + 1, at, index
    cdef uint64_t *made = <uint64_t *>calloc(wider + 1, sizeof(uint64_t))
    if made == NULL:
        return NULL
    for index in range(mask[0] + 1):
        if slots[index] != 0:
            at = slots[index] >> 32 & wider
            while made[at] != 0:
                at = at + 1 & wider
            made[at] = slots[index]
    free(slots)
    mask[0] = wider
    return made


cdef class Texts:

    def __cinit__(self):
        self.mask = 63
        self.slots = <uint64_t *>calloc(self.mask + 1, sizeof(uint64_t))
        if self.slots == NULL or self.make_room(0) < 0:
            raise MemoryError()

    def __dealloc__(self):
        free(self.slots)
        free(self.bytes)
        free(self.ends)

    cdef int make_room(self, size_t length) noexcept nogil:
        """Make sure that one more text fits, and that half of the slots are free. -1: no memory."""
        cdef size_t room = 2 * (self.used + length) + 512
        cdef int64_t capacity = 2 * self.count + 32
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
            self.ends, self.capacity = <size_t *>memory, capacity
        if 2 * <uint64_t>self.count >= self.mask:
            slots = doubled(self.slots, &self.mask)
            if slots == NULL:
                return -1
            self.slots = slots
        return 0

    cdef int64_t number(self, const uint8_t *text, size_t length) noexcept nogil:
        """The number of a text, a new one if it was not seen before. -1: no memory."""
        cdef uint64_t tag = xxh64_bytes(text, length, SEED) >> 32, at = tag & self.mask
        cdef int64_t found
        cdef size_t begin
        while self.slots[at] != 0:
            if self.slots[at] >> 32 == tag:
                found = <int64_t><uint32_t>self.slots[at] - 1
                begin = self.ends[found - 1] if found else 0
                if self.ends[found] - begin == length and (length == 0 or memcmp(self.bytes + begin, text, length) == 0):
                    return found
            at = at + 1 & self.mask
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
        self.count += 1
        self.slots[at] = tag << 32 | <uint64_t>self.count
        return self.count - 1


cdef class Groups:

    def __cinit__(self, Layout layout not None, int words):
        self.layout, self.words, self.stride = layout, words, words + layout.slots
        self.mask = 1023
        self.slots = <uint64_t *>calloc(self.mask + 1, sizeof(uint64_t))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef int64_t index
        if self.layout.sketched:
            for index in range(self.count):
                state_free(self.layout, self.records + index * self.stride + self.words)
        free(self.slots)
        free(self.records)

    cdef int64_t append(self, int64_t **keys, Py_ssize_t row) noexcept nogil:
        """Add an empty group with a row's key; its number, or -1: no memory."""
        cdef int64_t capacity = 2 * self.count + 512
        cdef int64_t *record
        cdef int word
        if self.count == self.capacity:
            if self.count > MOST - 1:
                return -1
            record = <int64_t *>realloc(self.records, capacity * self.stride * sizeof(int64_t))
            if record == NULL:
                return -1
            self.records, self.capacity = record, capacity
        record = self.records + self.count * self.stride
        for word in range(self.words):
            record[word] = keys[word][row]
        memset(record + self.words, 0, self.layout.slots * sizeof(int64_t))
        self.count += 1
        return self.count - 1

    cdef int place(self, int64_t **keys, uint64_t *hashes, Py_ssize_t rows, uint32_t *places) noexcept nogil:
        """Find or make each row's group. keys: a column for each word. hashes: scratch. places: written, the groups' numbers. -1: no memory."""
        cdef Py_ssize_t row
        cdef uint64_t tag, at, slot
        cdef uint64_t *slots
        cdef int64_t *record
        cdef int64_t found
        cdef int word
        for row in range(rows):
            hashes[row] = mix(SEED, <uint64_t>keys[0][row])
        for word in range(1, self.words):
            for row in range(rows):
                hashes[row] = mix(hashes[row], <uint64_t>keys[word][row])
        for row in range(rows):
            if row + AHEAD < rows:
                prefetch(&self.slots[hashes[row + AHEAD] >> 32 & self.mask])
            if row + AHEAD // 2 < rows:
                slot = <uint32_t>self.slots[hashes[row + AHEAD // 2] >> 32 & self.mask]
                prefetch(self.records + (slot - 1 if slot else 0) * <uint64_t>self.stride)
            tag = hashes[row] >> 32
            at = tag & self.mask
            found = -1
            while self.slots[at] != 0:
                if self.slots[at] >> 32 == tag:
                    found = <int64_t><uint32_t>self.slots[at] - 1
                    record = self.records + found * self.stride
                    for word in range(self.words):
                        if record[word] != keys[word][row]:
                            found = -1
                            break
                    if found >= 0:
                        break
                at = at + 1 & self.mask
            if found < 0:
                found = self.append(keys, row)
                if found < 0:
                    return -1
                self.slots[at] = tag << 32 | <uint64_t>(found + 1)
                if 2 * <uint64_t>self.count > self.mask:
                    slots = doubled(self.slots, &self.mask)
                    if slots == NULL:
                        return -1
                    self.slots = slots
            places[row] = <uint32_t>found
        return 0
