"""Kafka record batches (magic 2) to arrays of offsets, timestamps and slices.

The format is that of https://kafka.apache.org/documentation/#recordbatch. Every length in it is checked against what holds it, for a checksum
only says that the bytes are those that somebody wrote.
"""
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcmp, memcpy

import cramjam
import numpy as np
from crc32c import crc32c

from penstock.errors import CorruptionError
from penstock.kernels import compress
from penstock.kernels.columns import Records

from penstock.kernels._bytes cimport big16, big32, big64, varint

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **object, Py_ssize_t size) except -1

cdef enum:
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


cdef class _Output:
    """A bytes object that grows while payloads are decompressed into it."""

    cdef bytes data
    cdef int64_t used

    def __cinit__(self, int64_t size):
        self.data = PyBytes_FromStringAndSize(NULL, size)
        self.used = 0

    cdef reserve(self, int64_t more):
        cdef bytes wider
        if len(self.data) - self.used < more:
            wider = PyBytes_FromStringAndSize(NULL, max(self.used + more, 2 * self.used))
            memcpy(PyBytes_AS_STRING(wider), PyBytes_AS_STRING(self.data), self.used)
            self.data = wider

    cdef int64_t copy(self, const uint8_t *source, int64_t size) except -1:
        """Append bytes as they are."""
        self.reserve(size)
        memcpy(PyBytes_AS_STRING(self.data) + self.used, source, size)
        self.used += size
        return size

    cdef int64_t expand(self, int codec, source, int64_t base) except -1:
        """Append what `source` decompresses to, and return its size."""
        cdef int64_t room = min(compress.guess(codec, source), compress.LIMIT - self.used)
        cdef int64_t size
        while True:
            self.reserve(room)
            room = min(len(self.data) - self.used, compress.LIMIT - self.used)
            try:
                target = PyMemoryView_FromMemory(PyBytes_AS_STRING(self.data) + self.used, room, PyBUF_WRITE)
                size = compress.decompress_into(codec, source, target)
                break
            except cramjam.DecompressionError as problem:
                if room >= compress.LIMIT - self.used or not compress.too_small(problem):
                    name = compress.NAMES[codec]
                    raise _corrupt(base, f"its {name} payload does not decompress, or to more than {compress.LIMIT} bytes ({problem})") from None
                room = min(4 * room, compress.LIMIT - self.used)
        self.used += size
        return size

    cdef bytes finish(self):
        """The bytes, cut to what is used, without a copy: nobody else has seen the object yet."""
        cdef bytes data = self.data
        Py_INCREF(data)
        cdef PyObject *only = <PyObject *>data
        data = self.data = None
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
        p = varint(p, end, &part)
        if p == NULL or part < 0 or part > end - p:
            return NULL
        same = name != NULL and part == length and memcmp(p, name, length) == 0
        p = varint(p + part, end, &part)
        if p == NULL or part < -1 or part > end - p:
            return NULL
        if same:
            value[0] = p
            size[0] = part
        if part > 0:
            p += part
    return p


cdef int64_t _scan(const uint8_t *buffer, Batch *batch, int64_t *offsets, int64_t *timestamps, int64_t *key_start, int32_t *key_length,
                   int64_t *value_start, int32_t *value_length, int64_t *headers_start, int32_t *headers_count) noexcept nogil:
    """Scan a batch's records. How many fit: all of them, unless one does not or bytes are left."""
    cdef const uint8_t *p = buffer + batch.start
    cdef const uint8_t *end = p + batch.length
    cdef const uint8_t *stop
    cdef int64_t i, part = 0, offset = 0, previous = -1, millis, first = batch.first_timestamp
    for i in range(batch.count):
        p = varint(p, end, &part)
        if p == NULL or part < 1 or part > end - p:
            return i
        stop = p + part
        p = varint(p + 1, stop, &part)  # one byte of attributes, unused
        if p == NULL:
            return i
        if batch.append_time:
            millis = batch.max_timestamp
        elif part > 0 and first > MILLIS - part:
            millis = MILLIS
        elif part < 0 and first < -MILLIS - part:
            millis = -MILLIS
        else:
            millis = first + part
        timestamps[i] = (MILLIS if millis > MILLIS else -MILLIS if millis < -MILLIS else millis) * 1000
        p = varint(p, stop, &offset)
        if p == NULL or offset <= previous or offset > batch.last:
            return i
        previous = offset
        offsets[i] = batch.base + offset
        p = varint(p, stop, &part)
        if p == NULL or part < -1 or part > stop - p:
            return i
        key_start[i] = p - buffer
        key_length[i] = <int32_t>part
        if part > 0:
            p += part
        p = varint(p, stop, &part)
        if p == NULL or part < -1 or part > stop - p:
            return i
        value_start[i] = p - buffer
        value_length[i] = <int32_t>part
        if part > 0:
            p += part
        p = varint(p, stop, &part)
        if p == NULL or part < 0 or part > stop - p:
            return i
        headers_start[i] = p - buffer
        headers_count[i] = <int32_t>part
        if part:
            p = _headers(p, stop, part, NULL, 0, NULL, NULL)
        if p != stop:
            return i
    return batch.count if p == end else batch.count - 1


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
    cdef int64_t[:, ::1] rows = headers
    cdef Batch *batches = <Batch *>&rows[0, 0]
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
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(buffer)
    with nogil:
        for index in range(count):
            if batches[index].count == 0:
                continue
            read = _scan(p, &batches[index], &offsets[done], &timestamps[done], &key_start[done], &key_length[done], &value_start[done],
                         &value_length[done], &headers_start[done], &headers_count[done])
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
    cdef _Output output = _Output(4 * len(data) + 4096)
    cdef int64_t index, start
    cdef int codec
    view = memoryview(data)
    _describe(data, found, batches)
    for index in range(len(found)):
        codec = found[index][2]
        start = output.used
        payload = view[batches[index].start:batches[index].start + batches[index].length]
        if codec:
            output.expand(codec, payload, batches[index].base)
        else:
            output.copy(<const uint8_t *>PyBytes_AS_STRING(data) + batches[index].start, batches[index].length)
        batches[index].start, batches[index].length = start, output.used - start
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
