"""Kafka record batches (magic 2) to arrays of offsets, timestamps and slices.

The format is that of https://kafka.apache.org/documentation/#recordbatch. Every length in it is checked against what holds it, for a checksum
only says that the bytes are those that somebody wrote.
"""
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

import cramjam
import numpy as np
from crc32c import crc32c

from penstock.errors import CorruptionError
from penstock.kernels import compress
from penstock.kernels.columns import Records

from penstock.kernels._bytes cimport PAD, big16, big32, big64, checked_varint, load32, varint

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **object, Py_ssize_t size) except -1
    void Py_SET_SIZE(PyObject *object, Py_ssize_t size)

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef enum:
    AHEAD = 1024  # bytes: the heads of records lie too far apart for the processor to see that they follow each other
    HEADER = 61  # bytes before the records
    AFTER_LENGTH = 12
    MAGIC = 16
    CRC = 17
    ATTRIBUTES = 21
    LAST_OFFSET_DELTA = 23
    FIRST_TIMESTAMP = 27
    MAX_TIMESTAMP = 35
    COUNT = 57
    SMALLEST = 7  # bytes of a record: each of its seven parts takes one
    CODEC_MASK = 7
    LOG_APPEND_TIME = 8
    CONTROL = 32
    LZ4 = 3
    LZ4_HEAD = 7  # bytes of a frame before its blocks, where it does not say how large they are together
    LZ4_SMALLEST = 23  # bytes of a frame that is looked at: head, size, a block of its own size and 4 bytes, the end's mark
    STEP = 1 << 18
    SMALL_STEP = 1 << 12
    MOST_GROWTH = 16

cdef int64_t MILLIS = 2**63 // 1000 - 1  # timestamps beyond what microseconds can say stay at the end of the range

cdef struct Batch:  # eight int64, a row of an array
    int64_t base
    int64_t last
    int64_t first_timestamp
    int64_t max_timestamp
    int64_t append_time
    int64_t count
    int64_t start  # of the payload in the buffer
    int64_t length

cdef struct Rows:  # the arrays of `Records`
    int64_t *offsets
    int64_t *timestamps
    int64_t *key_start
    int64_t *value_start
    int64_t *headers_start
    int32_t *key_length
    int32_t *value_length
    int32_t *headers_count


def _corrupt(base, what):
    return CorruptionError(f"record batch at offset {base}: {what}",
                           hint="the log or what carried it is damaged: compare with another replica, or skip the batch on purpose")


cdef int64_t _span(const uint8_t *data, int64_t at, int64_t size) except -1:
    """The length of the whole batch at `at`."""
    cdef int64_t length
    if size - at < HEADER:
        raise _corrupt(<int64_t>big64(data + at) if size - at >= 8 else "unknown", f"{size - at} bytes are no whole batch")
    length = <int32_t>big32(data + at + 8) + <int64_t>AFTER_LENGTH
    if length < HEADER or length > size - at:
        raise _corrupt(<int64_t>big64(data + at), f"{length} bytes long where {size - at} are left")
    if data[at + MAGIC] != 2:
        raise _corrupt(<int64_t>big64(data + at), f"magic {data[at + MAGIC]} where 2 is read")
    if <int32_t>big32(data + at + LAST_OFFSET_DELTA) < 0:
        raise _corrupt(<int64_t>big64(data + at), "its last offset lies before its first")
    return length


def batch_spans(bytes data not None):
    """Where the batches of `data` lie: int64[n, 4] of position, length, base offset, next offset. Reads headers only.

    Raises CorruptionError where what is there is no whole batch of magic 2.
    """
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef int64_t at = 0, size = len(data), length, base
    spans = []
    while at < size:
        length = _span(p, at, size)
        base = <int64_t>big64(p + at)
        spans.append((at, length, base, base + <int32_t>big32(p + at + LAST_OFFSET_DELTA) + 1))
        at += length
    return np.array(spans, np.int64).reshape(-1, 4)


cdef bytes _lz4_magic = compress.LZ4_MAGIC
cdef const uint8_t *LZ4_MAGIC = <const uint8_t *><const char *>_lz4_magic
cdef int LZ4_PLAIN = compress.LZ4_PLAIN
cdef int LZ4_VERSION = compress.LZ4_VERSION
cdef int LZ4_SIZED = compress.LZ4_SIZED
_expand_block = cramjam.lz4.decompress_block_into

cdef double _growth = 4  # what payloads decompressed to lately, in their own size: the guess for the next call


cdef int64_t _guess(int64_t size):
    """Room for what `size` bytes of batches probably decompress to, in few different sizes."""
    cdef int64_t likely = <int64_t>(1.125 * _growth * size)
    return (likely | (STEP if likely > STEP else SMALL_STEP) - 1) + 1


cdef _learn(int64_t size, int64_t used):
    """Expect the next payloads to grow like these. A larger factor counts at once, a smaller one gradually."""
    global _growth
    cdef double growth = min(<double>used / size, <double>MOST_GROWTH)
    _growth = max(growth, _growth + (growth - _growth) / 8)


cdef class _Output:
    """A bytes object that grows while payloads are decompressed into it.

    Room that was not used is given back only where it is much. Memory that comes and goes at one size stays with the allocator; pages that the system
    takes back and hands out anew cost as much as the decompression.
    """

    cdef bytes data
    cdef int64_t used, limit

    def __cinit__(self, int64_t size):
        self.limit = compress.LIMIT
        self.data = PyBytes_FromStringAndSize(NULL, min(size, self.limit))
        self.used = 0

    cdef reserve(self, int64_t more):
        cdef bytes wider
        if len(self.data) - self.used < more:
            wider = PyBytes_FromStringAndSize(NULL, max(self.used + more, 2 * self.used))
            memcpy(PyBytes_AS_STRING(wider), PyBytes_AS_STRING(self.data), self.used)
            self.data = wider

    cdef int64_t room(self):
        """The bytes that can be written without reserving more."""
        return max(min(<int64_t>len(self.data), self.limit) - self.used, 0)

    cdef int64_t copy(self, const uint8_t *source, int64_t size) except -1:
        """Append bytes as they are."""
        self.reserve(size)
        memcpy(PyBytes_AS_STRING(self.data) + self.used, source, size)
        self.used += size
        return size

    cdef int64_t expand_lz4(self, view, const uint8_t *data, int64_t start, int64_t size) except -2:
        """Append what the frame in `view`, whose bytes are `data`, at `start` decompresses to, and return its size.

        -1 where it is more than one block with nothing to check, or does not fit: that is for `compress`, whose judgement this must be otherwise.
        """
        cdef const uint8_t *frame = data + start
        cdef int64_t room = self.room(), head = LZ4_HEAD, block
        cdef uint32_t prefix
        if size < LZ4_SMALLEST or memcmp(frame, LZ4_MAGIC, 4) != 0 or frame[4] & ~LZ4_PLAIN != LZ4_VERSION:
            return -1
        if frame[4] & LZ4_SIZED:
            head += 8
        block = load32(frame + head)
        prefix = load32(frame + head + 4)
        if block == 0 or block != size - head - 8 or load32(frame + size - 4) != 0 or prefix <= room:
            return -1
        try:
            room = _expand_block(view[start + head + 4:start + size - 4], PyMemoryView_FromMemory(PyBytes_AS_STRING(self.data) + self.used, room, PyBUF_WRITE))
        except cramjam.DecompressionError:
            return -1
        self.used += room
        return room

    cdef int64_t expand(self, int codec, source, int64_t base) except -1:
        """Append what `source` decompresses to, and return its size."""
        cdef int64_t most = max(min(compress.most(codec, source), self.limit - self.used), 0)
        cdef int64_t room = min(compress.guess(codec, source), most)
        cdef int64_t size
        while True:
            self.reserve(room)
            room = min(self.room(), most)
            try:
                target = PyMemoryView_FromMemory(PyBytes_AS_STRING(self.data) + self.used, room, PyBUF_WRITE)
                size = compress.decompress_into(codec, source, target)
                break
            except cramjam.DecompressionError as problem:
                if room >= most or not compress.too_small(problem):
                    name = compress.NAMES[codec]
                    raise _corrupt(base, f"its {name} payload does not decompress, or to more than {compress.LIMIT} bytes ({problem})") from None
                room = min(4 * room, most)
        self.used += size
        return size

    cdef bytes finish(self):
        """The bytes, cut to what is used, without a copy: nobody else has seen the object yet."""
        cdef bytes data = self.data
        self.data = None
        if self.used > len(data) // 2:
            Py_SET_SIZE(<PyObject *>data, self.used)
            PyBytes_AS_STRING(data)[self.used] = 0
            return data
        Py_INCREF(data)
        cdef PyObject *only = <PyObject *>data
        data = None
        _PyBytes_Resize(&only, self.used)
        data = <bytes>only
        Py_DECREF(data)
        return data


cdef const uint8_t *_headers(const uint8_t *p, const uint8_t *end, int64_t count, const uint8_t *name, int64_t length, const uint8_t **value,
                             int64_t *size) noexcept nogil:
    """Walk over a record's headers. Their end, NULL if they do not fit; the value of the last one called `name`, if it is not NULL."""
    cdef int64_t i, part = 0
    cdef bint same
    for i in range(count):
        p = checked_varint(p, end, &part)
        if p == NULL or part < 0 or part > end - p:
            return NULL
        same = name != NULL and part == length and memcmp(p, name, length) == 0
        p = checked_varint(p + part, end, &part)
        if p == NULL or part < -1 or part > end - p:
            return NULL
        if same:
            value[0] = p
            size[0] = part
        if part > 0:
            p += part
    return p


cdef inline bint _record(const uint8_t *buffer, const Batch *batch, const uint8_t *p, const uint8_t *stop, int64_t row, int64_t *offset, Rows *rows,
                         bint padded) noexcept nogil:
    """Read the record in [p, stop) into a row. Whether it is well-formed. offset: that of the record before, relative to the batch; set to this one's.

    padded: PAD bytes can be loaded from `stop` on. A part that ends behind it is noticed at the end at the latest.
    """
    cdef int64_t part = 0, delta = 0, first = batch.first_timestamp, millis
    p = varint(p + 1, stop, &part, padded)  # behind one byte of attributes, unused
    if p == NULL:
        return False
    if batch.append_time:
        millis = batch.max_timestamp
    elif part > 0 and first > MILLIS - part:
        millis = MILLIS
    elif part < 0 and first < -MILLIS - part:
        millis = -MILLIS
    else:
        millis = first + part
    rows.timestamps[row] = min(max(millis, -MILLIS), MILLIS) * 1000
    p = varint(p, stop, &delta, padded)
    if p == NULL or delta <= offset[0] or delta > batch.last:
        return False
    offset[0] = delta
    rows.offsets[row] = batch.base + delta
    p = varint(p, stop, &part, padded)
    if p == NULL or part < -1 or part > stop - p:
        return False
    rows.key_start[row] = p - buffer
    rows.key_length[row] = <int32_t>part
    p += max(part, 0)
    p = varint(p, stop, &part, padded)
    if p == NULL or part < -1 or part > stop - p:
        return False
    rows.value_start[row] = p - buffer
    rows.value_length[row] = <int32_t>part
    p += max(part, 0)
    p = varint(p, stop, &part, padded)
    if p == NULL or part < 0 or part > stop - p:
        return False
    rows.headers_start[row] = p - buffer
    rows.headers_count[row] = <int32_t>part
    if part:
        p = _headers(p, stop, part, NULL, 0, NULL, NULL)
    return p == stop


cdef int64_t _scan(const uint8_t *buffer, const uint8_t *limit, const Batch *batch, int64_t row, const Rows *into) noexcept nogil:
    """Scan a batch's records into rows from `row` on. How many fit: all of them, unless one does not or bytes are left. limit: where the buffer ends."""
    cdef Rows rows = into[0]
    cdef const uint8_t *p
    cdef const uint8_t *end = buffer + batch.start + batch.length
    cdef const uint8_t *stop
    cdef int64_t at = batch.start  # of the next record, known from the length of this one: the processor need not have read to its end to go on
    cdef int64_t i, part = 0, offset = -1
    for i in range(batch.count):
        p = varint(buffer + at, end, &part, limit - buffer - at >= PAD)
        if p == NULL or part < 1 or part > end - p:
            return i
        stop = p + part
        at = stop - buffer
        prefetch(stop + AHEAD)
        if limit - stop >= PAD:
            if not _record(buffer, batch, p, stop, row + i, &offset, &rows, True):
                return i
        elif not _record(buffer, batch, p, stop, row + i, &offset, &rows, False):
            return i
    return batch.count if buffer + at == end else batch.count - 1


def read_batches(bytes data not None):
    """Read consecutive record batches, raw as fetched. Returns `penstock.kernels.columns.Records`; control batches are left out.

    Checks length, magic, CRC32C and every record. Timestamps are the log's: the record's own with CreateTime, the batch's with LogAppendTime.
    Where no batch is compressed nothing is copied. Raises CorruptionError, naming the base offset, for anything that does not fit, and for more
    than `compress.LIMIT` decompressed bytes.
    """
    found = _found(data)
    cdef bytes buffer = data
    cdef int64_t count = len(found)
    headers = np.empty((count + 1, 8), np.int64)
    cdef int64_t[:, ::1] numbers = headers
    cdef Batch *batches = <Batch *>&numbers[0, 0]
    if any(codec for _, _, codec in found):
        buffer = _unpack(data, found, batches)
    else:
        _describe(data, found, batches)
    cdef int64_t index, done = 0, read = 0, total = 0
    for index in range(count):
        if batches[index].count < 0 or batches[index].count > batches[index].length // SMALLEST or (batches[index].count == 0 and batches[index].length > 0):
            raise _corrupt(batches[index].base, f"{batches[index].count} records in {batches[index].length} bytes")
        total += batches[index].count
    records = Records(buffer, *(np.empty(total, kind) for kind in (np.int64, np.int64, np.int64, np.int32, np.int64, np.int32, np.int64, np.int32)))
    if total == 0:
        return records
    cdef int64_t[::1] offsets = records.offsets, timestamps = records.timestamps
    cdef int64_t[::1] key_start = records.key_start, value_start = records.value_start, headers_start = records.headers_start
    cdef int32_t[::1] key_length = records.key_length, value_length = records.value_length, headers_count = records.headers_count
    cdef Rows rows = Rows(&offsets[0], &timestamps[0], &key_start[0], &value_start[0], &headers_start[0], &key_length[0], &value_length[0], &headers_count[0])
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(buffer)
    cdef const uint8_t *limit = p + len(buffer)
    with nogil:
        for index in range(count):
            if batches[index].count == 0:
                continue
            read = _scan(p, limit, &batches[index], done, &rows)
            if read != batches[index].count:
                break
            done += read
        else:
            index = -1
    if index >= 0:
        raise _corrupt(batches[index].base, f"record {read} of {batches[index].count} does not fit its batch")
    return records


cdef list _found(bytes data):
    """Position, length and codec of the batches that hold records for a reader, their checksums checked."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef int64_t at = 0, size = len(data), length
    cdef int attributes
    cdef list found = []
    view = memoryview(data)
    while at < size:
        length = _span(p, at, size)
        if crc32c(view[at + ATTRIBUTES:at + length]) != big32(p + at + CRC):
            raise _corrupt(<int64_t>big64(p + at), "its CRC32C does not match")
        attributes = big16(p + at + ATTRIBUTES)
        if attributes & CODEC_MASK > 4:
            raise _corrupt(<int64_t>big64(p + at), f"codec {attributes & CODEC_MASK} is unknown")
        if not attributes & CONTROL:
            found.append((at, length, attributes & CODEC_MASK))
        at += length
    return found


cdef _describe(bytes data, list found, Batch *batches):
    """Read the headers of batches. Their payloads are taken to lie in `data`."""
    cdef const uint8_t *p
    cdef int64_t index, at, length
    for index in range(len(found)):
        at, length, _ = found[index]
        p = <const uint8_t *>PyBytes_AS_STRING(data) + at
        batches[index] = Batch(<int64_t>big64(p), <int32_t>big32(p + LAST_OFFSET_DELTA), <int64_t>big64(p + FIRST_TIMESTAMP), <int64_t>big64(p + MAX_TIMESTAMP),
                               big16(p + ATTRIBUTES) & LOG_APPEND_TIME, <int32_t>big32(p + COUNT), at + HEADER, length - HEADER)


cdef bytes _unpack(bytes data, list found, Batch *batches):
    """The payloads of batches, decompressed, one after the other."""
    cdef _Output output = _Output(_guess(len(data)))
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef int64_t index, start
    cdef int codec
    view = memoryview(data)
    _describe(data, found, batches)
    for index in range(len(found)):
        codec = found[index][2]
        start = output.used
        if codec == 0:
            output.copy(p + batches[index].start, batches[index].length)
        elif codec != LZ4 or output.expand_lz4(view, p, batches[index].start, batches[index].length) < 0:
            output.expand(codec, view[batches[index].start:batches[index].start + batches[index].length], batches[index].base)
        batches[index].start, batches[index].length = start, output.used - start
    _learn(len(data), output.used)
    return output.finish()


def headers_value(records, bytes name not None):
    """Where the header `name` lies in the buffer: start (int64[n]) and length (int32[n]).

    The last of that name counts; the length is -1 where a record has none, or a null one. Raises CorruptionError where headers do not lie in the buffer.
    """
    cdef bytes buffer = records.buffer
    cdef int64_t count = len(records), row, length = len(name), part
    starts, lengths = np.zeros(count, np.int64), np.full(count, -1, np.int32)
    cdef const int64_t[::1] from_ = records.headers_start
    cdef const int32_t[::1] counts = records.headers_count
    cdef int64_t[::1] start = starts
    cdef int32_t[::1] size = lengths
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(buffer)
    cdef const uint8_t *end = p + len(buffer)
    cdef const uint8_t *wanted = <const uint8_t *>PyBytes_AS_STRING(name)
    cdef const uint8_t *value
    cdef bint fits = from_.shape[0] == count and counts.shape[0] == count
    if fits:
        with nogil:
            for row in range(count):
                if counts[row] == 0:
                    continue
                value, part = NULL, -1
                if from_[row] < 0 or from_[row] > end - p or _headers(p + from_[row], end, counts[row], wanted, length, &value, &part) == NULL:
                    fits = False
                    break
                if part >= 0:
                    start[row] = value - p
                    size[row] = <int32_t>part
    if not fits:
        raise CorruptionError("headers do not lie inside their records' buffer")
    return starts, lengths
