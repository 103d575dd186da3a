"""HyperLogLog, sparse then dense, free of order: see _hll.pxd for the memory, docs/cell-format.md for the bytes."""
from libc.math cimport log, sqrt, INFINITY
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from penstock.errors import CorruptionError, InternalError
from penstock.kernels._arena cimport arena_give, arena_take
from penstock.kernels._varint cimport fail, get_varint, put_varint

cdef extern from *:
    int trailing_zeros "__builtin_ctzll"(unsigned long long) noexcept nogil

cdef enum:
    FIRST = 8  # entries of the smallest log
    FEW = 12  # entries that an insertion sort is best for


cdef uint32_t compact_few(uint32_t *entries, uint32_t count) noexcept nogil:
    """Sort entries by insertion and keep the highest rank of each register; how many are left."""
    cdef uint32_t entry, at, read, kept = 0
    for read in range(1, count):
        entry = entries[read]
        at = read
        while at > 0 and entries[at - 1] > entry:
            entries[at] = entries[at - 1]
            at -= 1
        entries[at] = entry
    for read in range(count):
        entries[kept] = entries[read]
        kept += read + 1 == count or entries[read] >> 6 != entries[read + 1] >> 6
    return kept


cdef uint32_t compact_many(uint32_t *entries, uint32_t count, int precision) noexcept nogil:
    """The same by way of registers and a bit for each that is in use: no comparison that cannot be predicted."""
    cdef uint8_t ranks[1 << 16]  # not zeroed: what is not in use is masked
    cdef uint64_t used[1 << 10]
    cdef uint64_t bits
    cdef uint32_t index, at, kept = 0, words = max(<uint32_t>1 << precision >> 6, 1)
    cdef uint8_t old
    memset(used, 0, words * sizeof(uint64_t))
    for index in range(count):
        at = entries[index] >> 6
        old = ranks[at] & <uint8_t>(0 - (used[at >> 6] >> (at & 63) & 1))
        ranks[at] = max(old, <uint8_t>(entries[index] & 63))
        used[at >> 6] |= <uint64_t>1 << (at & 63)
    for index in range(words):
        bits = used[index]
        while bits != 0:
            at = index << 6 | <uint32_t>trailing_zeros(bits)
            entries[kept] = at << 6 | ranks[at]
            kept += 1
            bits &= bits - 1
    return kept


cdef void compact(hll_t *sketch, int precision) noexcept nogil:
    """Sort the log and keep the highest rank of each register."""
    cdef uint32_t *entries = <uint32_t *>sketch.memory
    sketch.count = compact_few(entries, sketch.count) if sketch.count <= FEW else compact_many(entries, sketch.count, precision)


cdef int make_dense(hll_t *sketch, int precision, arena_t *arena) noexcept nogil:
    """Change from a log to registers."""
    cdef uint8_t *registers = <uint8_t *>arena_take(arena, 1 << precision)
    cdef uint32_t *log_ = <uint32_t *>sketch.memory
    cdef uint32_t index
    if registers == NULL:
        return -1
    memset(registers, 0, 1 << precision)
    for index in range(sketch.count):
        registers[log_[index] >> 6] = max(registers[log_[index] >> 6], <uint8_t>(log_[index] & 63))
    arena_give(arena, sketch.memory, 4 * sketch.capacity)
    sketch.count, sketch.capacity, sketch.memory = DENSE, 0, registers
    return 0


cdef int hll_grow(hll_t *sketch, uint32_t entry, int precision, arena_t *arena) noexcept nogil:
    """Count an entry that the log has no room for."""
    cdef uint32_t capacity = 2 * sketch.capacity if sketch.capacity else FIRST
    cdef uint8_t *memory
    if 4 * capacity > <uint32_t>1 << precision:
        return -1 if make_dense(sketch, precision, arena) < 0 else hll_add(sketch, entry, precision, arena)
    memory = <uint8_t *>arena_take(arena, 4 * capacity)
    if memory == NULL:
        return -1
    if sketch.count:
        memcpy(memory, sketch.memory, 4 * sketch.count)
    arena_give(arena, sketch.memory, 4 * sketch.capacity)
    sketch.capacity, sketch.memory = capacity, memory
    return hll_add(sketch, entry, precision, arena)


cdef int hll_merge(hll_t *sketch, hll_t *other, int precision, arena_t *arena) noexcept nogil:
    """Count what another has counted."""
    cdef uint32_t index
    if other.count == DENSE:
        if sketch.count != DENSE and make_dense(sketch, precision, arena) < 0:
            return -1
        for index in range(<uint32_t>1 << precision):
            sketch.memory[index] = max(sketch.memory[index], other.memory[index])
        return 0
    for index in range(other.count):
        if hll_add(sketch, (<uint32_t *>other.memory)[index], precision, arena) < 0:
            return -1
    return 0


cdef inline uint32_t varint_size(uint32_t value) noexcept nogil:
    return 1 if value < 1 << 7 else 2 if value < 1 << 14 else 3 if value < 1 << 21 else 4


cdef inline uint8_t *put_entry(uint8_t *out, uint32_t value) noexcept nogil:
    """put_varint for what mostly takes two bytes and sometimes one, which cannot be predicted. May write a byte beyond."""
    if value >= 1 << 14:
        return put_varint(out, value)
    out[0] = <uint8_t>(value & 0x7F) | <uint8_t>((value > 0x7F) << 7)
    out[1] = <uint8_t>(value >> 7)
    return out + 1 + (value > 0x7F)


cdef uint32_t sparse_size(const uint8_t *registers, int precision, uint32_t *count) noexcept nogil:
    """How many bytes the entries of dense registers would take, or at least as many as dense; and how many entries there are."""
    cdef uint32_t size = 0, index, following = 0, most = 3 * (<uint32_t>1 << precision) // 4
    count[0] = 0
    for index in range(<uint32_t>1 << precision):
        if registers[index] != 0:
            size += varint_size((index - following) << 6 | registers[index])
            following = index + 1
            count[0] += 1
            if size >= most:
                return most
    return size


cdef int hll_read(hll_t *sketch, reader_t *reader, int precision, arena_t *arena) noexcept nogil:
    """Count what a sketch in a cell has counted. Only the canonical bytes of a state pass."""
    cdef uint32_t index, shift, following = 0, registers = <uint32_t>1 << precision, size = 3 * registers // 4, ignored
    cdef uint32_t most = 65 - precision
    cdef uint64_t count, entry, packed, done
    cdef const uint8_t *begin
    cdef hll_t other
    cdef int merged
    if get_varint(reader, 32, &count) < 0:
        return -1
    if count == 0:
        if reader.end - reader.at < size:
            return fail(reader, "it ends within dense registers")
        memset(&other, 0, sizeof(hll_t))
        if make_dense(&other, precision, NULL) < 0:
            return -1
        for index in range(registers // 4):
            packed = reader.at[0] | <uint64_t>reader.at[1] << 8 | <uint64_t>reader.at[2] << 16
            reader.at += 3
            for shift in range(4):
                other.memory[4 * index + shift] = <uint8_t>(packed >> 6 * shift & 63)
                if other.memory[4 * index + shift] > most:
                    hll_free(&other, precision, NULL)
                    return fail(reader, "a rank is too high")
        if sparse_size(other.memory, precision, &ignored) < size:
            hll_free(&other, precision, NULL)
            return fail(reader, "dense registers would be smaller sparse")
        merged = hll_merge(sketch, &other, precision, arena)
        hll_free(&other, precision, NULL)
        return merged
    begin = reader.at
    for done in range(1, count):
        if get_varint(reader, precision + 6, &entry) < 0:
            return -1
        index = following + <uint32_t>(entry >> 6)
        if index >= registers or entry & 63 == 0 or entry & 63 > most:
            return fail(reader, "a register or its rank is out of range")
        if reader.at - begin >= size:
            return fail(reader, "sparse registers would be smaller dense")
        following = index + 1
        if hll_add(sketch, index << 6 | <uint32_t>(entry & 63), precision, arena) < 0:
            return -1
    return 0


cdef uint8_t *hll_write(hll_t *sketch, uint8_t *out, int precision) noexcept nogil:
    """Write the canonical bytes, the smaller form; the place after them. At most 5 + 3/4 * 2**precision bytes.

    A log has at most 2**precision / 4 entries, of two bytes each but for the few that come after a gap of 256 registers: always smaller than dense.
    """
    cdef uint32_t index, count, following = 0, registers = <uint32_t>1 << precision, size = 3 * registers // 4, packed
    cdef uint32_t *log_ = <uint32_t *>sketch.memory
    cdef uint8_t *begin
    if sketch.count != DENSE:
        compact(sketch, precision)
        begin = put_varint(out, sketch.count + 1)
        out = begin
        for index in range(sketch.count):
            out = put_entry(out, ((log_[index] >> 6) - following) << 6 | (log_[index] & 63))
            following = (log_[index] >> 6) + 1
        return out
    if sparse_size(sketch.memory, precision, &count) < size:
        out = put_varint(out, count + 1)
        for index in range(registers):
            if sketch.memory[index] != 0:
                out = put_varint(out, (index - following) << 6 | sketch.memory[index])
                following = index + 1
        return out
    out = put_varint(out, 0)
    for index in range(0, registers, 4):
        packed = sketch.memory[index] | sketch.memory[index + 1] << 6 | sketch.memory[index + 2] << 12 | sketch.memory[index + 3] << 18
        out[0], out[1], out[2] = <uint8_t>(packed & 0xFF), <uint8_t>(packed >> 8 & 0xFF), <uint8_t>(packed >> 16)
        out += 3
    return out


cdef void hll_clear(hll_t *sketch, int precision, arena_t *arena) noexcept nogil:
    """Forget all entries, and keep a log's memory for the next."""
    if sketch.count == DENSE:
        hll_free(sketch, precision, arena)
    sketch.count = 0


cdef void hll_free(hll_t *sketch, int precision, arena_t *arena) noexcept nogil:
    """Give the memory back; the sketch is empty."""
    arena_give(arena, sketch.memory, 1 << precision if sketch.count == DENSE else 4 * sketch.capacity)
    memset(sketch, 0, sizeof(hll_t))


cdef double sigma(double x) noexcept nogil:
    cdef double y = 1, z = x, last = -1
    if x == 1:
        return INFINITY
    while z != last:
        x *= x
        last = z
        z += x * y
        y += y
    return z


cdef double tau(double x) noexcept nogil:
    cdef double y = 1, z = 1 - x, last = -1
    if x == 0 or x == 1:
        return 0
    while z != last:
        x = sqrt(x)
        last = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
    return z / 3


cdef class Hll:
    """A HyperLogLog of 2**precision registers, 4 <= precision <= 16; each holds the greatest rank seen. InternalError for another precision."""

    def __cinit__(self, int precision):
        if not 4 <= precision <= 16:
            raise InternalError(f"a HyperLogLog of precision {precision}; 4 to 16 are possible")
        self.precision = precision

    def __dealloc__(self):
        hll_free(&self.sketch, self.precision, NULL)

    def add(self, uint64_t hashed):
        """Count a value by its XXH64."""
        if hll_add(&self.sketch, hll_entry(hashed, self.precision), self.precision, NULL) < 0:
            raise MemoryError()

    def merge(self, Hll other not None):
        """Add what another of the same precision has counted. InternalError if it is of another."""
        if other.precision != self.precision:
            raise InternalError(f"a HyperLogLog of precision {other.precision} cannot be merged into one of {self.precision}")
        if other is not self and hll_merge(&self.sketch, &other.sketch, self.precision, NULL) < 0:
            raise MemoryError()

    def registers(self):
        """All registers, a byte each."""
        cdef bytes made = PyBytes_FromStringAndSize(NULL, 1 << self.precision)
        cdef uint8_t *registers = <uint8_t *>PyBytes_AS_STRING(made)
        cdef uint32_t index, entry
        memset(registers, 0, 1 << self.precision)
        if self.sketch.count == DENSE:
            for index in range(<uint32_t>1 << self.precision):
                registers[index] = self.sketch.memory[index]
        else:
            for index in range(self.sketch.count):
                entry = (<uint32_t *>self.sketch.memory)[index]
                registers[entry >> 6] = max(registers[entry >> 6], <uint8_t>(entry & 63))
        return made

    def estimate(self):
        """How many different values: the improved raw estimator, Algorithm 6 of O. Ertl, "New cardinality estimation algorithms for
        HyperLogLog sketches", arXiv:1702.01284."""
        cdef int counts[65]
        cdef int most = 64 - self.precision, rank
        cdef double size = 1 << self.precision, total
        cdef uint32_t index
        memset(counts, 0, sizeof(counts))
        if self.sketch.count == 0:
            return 0.0
        if self.sketch.count == DENSE:
            for index in range(<uint32_t>1 << self.precision):
                counts[self.sketch.memory[index]] += 1
        else:
            compact(&self.sketch, self.precision)
            for index in range(self.sketch.count):
                counts[(<uint32_t *>self.sketch.memory)[index] & 63] += 1
            counts[0] = (1 << self.precision) - self.sketch.count
        total = size * tau(1 - counts[most + 1] / size)
        for rank in range(most, 0, -1):
            total = 0.5 * (total + counts[rank])
        return size * size / (2 * log(2) * (total + size * sigma(counts[0] / size)))

    def to_bytes(self):
        """Its part of a cell: sparse while that is smaller, else dense."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, 5 + (1 << self.precision))
        cdef uint8_t *begin = <uint8_t *>PyBytes_AS_STRING(out)
        return out[:hll_write(&self.sketch, begin, self.precision) - begin]

    @classmethod
    def from_bytes(cls, bytes data not None, int precision):
        """The sketch of its bytes. Raises CorruptionError."""
        cdef Hll made = cls(precision)
        cdef reader_t reader
        reader.at = <const uint8_t *>PyBytes_AS_STRING(data)
        reader.end = reader.at + PyBytes_GET_SIZE(data)
        reader.problem = NULL
        if hll_read(&made.sketch, &reader, precision, NULL) < 0:
            if reader.problem == NULL:
                raise MemoryError()
        elif reader.at != reader.end:
            fail(&reader, "bytes are left over")
        if reader.problem != NULL:
            raise CorruptionError(f"sketch of {len(data)} bytes is corrupt: {reader.problem.decode()}",
                                  hint="nothing of it is used; rebuild its window from the archive")
        return made
