"""Records into the payload of Kafka v2 record batches, the walk over batch headers, Kafka's partitioner, and lines of text.

The plain-Python reference is reference_encode.py. Every slice is checked against its buffer: what callers hand in comes from files and sockets.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

import numpy as np

from penstock.kernels import framing

cdef struct Slice:
    const uint8_t *data
    int64_t length                                      # -1: null


cdef class Source:
    """A buffer with its slices, as raw pointers that the memoryviews keep alive."""
    cdef const uint8_t[::1] buffer
    cdef const int64_t[::1] start
    cdef const int32_t[::1] length
    cdef const uint8_t *data
    cdef int64_t size
    cdef Py_ssize_t rows

    def __cinit__(self, slices):
        self.buffer, self.start, self.length = slices.buffer, slices.start, slices.length
        self.rows = self.start.shape[0]
        if self.length.shape[0] != self.rows:
            raise ValueError(f"{self.rows} starts but {self.length.shape[0]} lengths")
        self.size = self.buffer.shape[0]
        self.data = &self.buffer[0] if self.size else NULL

    cdef inline int take(self, int64_t row, Slice *out) except -1 nogil:
        cdef int64_t start, length
        if row < 0 or row >= self.rows:
            with gil:
                raise ValueError(f"row {row} of {self.rows}")
        start, length = self.start[row], self.length[row]
        if length < 0:
            out.data, out.length = NULL, -1
            return 0
        if start < 0 or length > self.size or start > self.size - length:
            with gil:
                raise ValueError(f"row {row} is bytes {start} to {start + length} of a buffer of {self.size}")
        out.data, out.length = self.data + start, length
        return 0


cdef inline uint64_t zigzag(int64_t number) noexcept nogil:
    return (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)


cdef inline int width(uint64_t number) noexcept nogil:
    cdef int size = 1
    while number >= 0x80:
        number >>= 7
        size += 1
    return size


cdef inline uint8_t *put(uint8_t *out, int64_t signed_number) noexcept nogil:
    cdef uint64_t number = zigzag(signed_number)
    while number >= 0x80:
        out[0] = <uint8_t>(number | 0x80)
        out += 1
        number >>= 7
    out[0] = <uint8_t>number
    return out + 1


cdef inline uint8_t *put_slice(uint8_t *out, Slice part) noexcept nogil:
    out = put(out, part.length)
    if part.length > 0:
        memcpy(out, part.data, part.length)
        out += part.length
    return out


cdef inline int64_t to_ms(int64_t micros) noexcept nogil:
    cdef int64_t ms = micros // 1000                    # rounds to zero under cdivision
    return ms - (ms * 1000 > micros)


def encode_records(values, timestamps, rows, Py_ssize_t first, int64_t limit, keys=None, headers=None):
    """See reference_encode.encode_records."""
    cdef Source value = Source(values), key = None, header = None
    cdef const int64_t[::1] micros = timestamps
    cdef const int64_t[::1] order = rows
    cdef bint has_keys = keys is not None, has_headers = headers is not None
    cdef Py_ssize_t at, last, count = order.shape[0]
    cdef int64_t row, base_ms, largest_ms, ms, size, total = 0
    cdef Slice none, k, v, h
    cdef uint8_t *out
    if has_keys:
        key = Source(keys)
    if has_headers:
        header = Source(headers)
    if not 0 <= first < count:
        raise ValueError(f"row {first} of {count}")
    none.data, none.length = NULL, -1
    k = h = none
    sizes_array = np.empty(min(count - first, limit // 7 + 2), np.int64)  # a record takes 7 bytes or more
    cdef int64_t[::1] sizes = sizes_array
    with nogil:
        row = order[first]
        if row < 0 or row >= micros.shape[0]:
            with gil:
                raise ValueError(f"row {row} of {micros.shape[0]} timestamps")
        base_ms = largest_ms = to_ms(micros[row])
        last = first
        while last < count and last - first < sizes.shape[0]:
            row = order[last]
            value.take(row, &v)
            if has_keys:
                key.take(row, &k)
            if has_headers:
                header.take(row, &h)
            if row >= micros.shape[0]:
                with gil:
                    raise ValueError(f"row {row} of {micros.shape[0]} timestamps")
            ms = to_ms(micros[row])
            size = (1 + width(zigzag(ms - base_ms)) + width(zigzag(last - first)) + width(zigzag(k.length)) + max(k.length, <int64_t>0)
                    + width(zigzag(v.length)) + max(v.length, <int64_t>0) + max(h.length, <int64_t>1))
            if last > first and total + size + width(zigzag(size)) > limit:
                break
            sizes[last - first] = size
            total += size + width(zigzag(size))
            largest_ms = max(largest_ms, ms)
            last += 1
    payload = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t *>PyBytes_AS_STRING(payload)
    with nogil:
        for at in range(first, last):
            row = order[at]
            value.take(row, &v)
            if has_keys:
                key.take(row, &k)
            if has_headers:
                header.take(row, &h)
            out = put(out, sizes[at - first])
            out[0] = 0                                  # attributes: none are defined
            out = put(out + 1, to_ms(micros[row]) - base_ms)
            out = put(out, at - first)
            out = put_slice(out, k)
            out = put_slice(out, v)
            if h.length > 0:
                memcpy(out, h.data, h.length)
                out += h.length
            else:
                out[0] = 0                              # no headers
                out += 1
    return payload, last - first, base_ms, largest_ms


def encode_batch(values, timestamps, **options):
    """See framing.encode_batch."""
    return framing.encode_batch(encode_records, values, timestamps, **options)


def encode_batches(values, timestamps, **options):
    """See framing.encode_batches."""
    return framing.encode_batches(encode_records, values, timestamps, **options)


cdef inline int64_t big_endian(const uint8_t *data, int size) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(size):
        number = number << 8 | data[i]
    return <int64_t>number


def walk_batches(const uint8_t[::1] data, int64_t position, int64_t limit):
    """See reference_encode.walk_batches."""
    cdef Py_ssize_t n = 0, room = 64
    found = np.empty((room, 6), np.int64)
    cdef int64_t[:, ::1] rows = found
    cdef const uint8_t *head
    cdef int64_t size
    limit = min(limit, <int64_t>data.shape[0])
    if position < 0:
        raise ValueError(f"position {position}")
    while limit - position >= 61:
        head = &data[position]
        size = <int32_t>big_endian(head + 8, 4) + <int64_t>12
        if size < 61 or head[16] != 2 or <int32_t>big_endian(head + 23, 4) < 0 or big_endian(head, 8) < 0:
            return found[:n], position
        if size > limit - position:
            break
        if n == room:
            room *= 4
            found = np.concatenate([found, np.empty((room - n, 6), np.int64)])
            rows = found
        rows[n, 0] = position
        rows[n, 1] = size
        rows[n, 2] = big_endian(head, 8)
        rows[n, 3] = rows[n, 2] + <int32_t>big_endian(head + 23, 4) + 1
        rows[n, 4] = big_endian(head + 35, 8)
        rows[n, 5] = <int16_t>big_endian(head + 21, 2)
        n += 1
        position += size
    return found[:n], -1


cdef uint32_t murmur(const uint8_t *data, int64_t length) noexcept nogil:
    # Austin Appleby's MurmurHash2 with the seed of Kafka's org.apache.kafka.common.utils.Utils.
    cdef uint32_t m = 0x5bd1e995, k, h = <uint32_t>0x9747b28cU ^ <uint32_t>length
    cdef int64_t at = 0
    while length - at >= 4:
        k = <uint32_t>data[at] | <uint32_t>data[at + 1] << 8 | <uint32_t>data[at + 2] << 16 | <uint32_t>data[at + 3] << 24
        k *= m
        k ^= k >> 24
        h = h * m ^ k * m
        at += 4
    if length - at == 3:
        h ^= <uint32_t>data[at + 2] << 16
    if length - at >= 2:
        h ^= <uint32_t>data[at + 1] << 8
    if length - at >= 1:
        h = (h ^ data[at]) * m
    h ^= h >> 13
    h *= m
    return h ^ h >> 15


def murmur2(const uint8_t[::1] key):
    """See reference_encode.murmur2."""
    return murmur(&key[0] if key.shape[0] else NULL, key.shape[0])


def partitions_of(keys, int count):
    """See reference_encode.partitions_of."""
    cdef Source source = Source(keys)
    cdef Py_ssize_t row
    cdef Slice key
    if count < 1:
        raise ValueError(f"{count} partitions")
    found = np.empty(source.rows, np.int32)
    cdef int32_t[::1] out = found
    with nogil:
        for row in range(source.rows):
            source.take(row, &key)
            out[row] = -1 if key.length < 0 else <int32_t>((murmur(key.data, key.length) & 0x7fffffff) % <uint32_t>count)
    return found


cdef inline bint blank(uint8_t byte) noexcept nogil:
    return byte == 32 or byte == 9 or byte == 10 or byte == 13


def find_lines(const uint8_t[::1] block):
    """See reference_encode.find_lines."""
    cdef const uint8_t *data
    cdef const uint8_t *newline
    cdef int64_t at = 0, end, seen, next_line, size = block.shape[0]
    cdef Py_ssize_t n = 0, room = size // 64 + 16
    starts, lengths = np.empty(room, np.int64), np.empty(room, np.int32)
    cdef int64_t[::1] start = starts
    cdef int32_t[::1] length = lengths
    data = &block[0] if size else NULL
    while at < size:
        newline = <const uint8_t *>memchr(data + at, 10, size - at)
        if newline == NULL:
            break
        end = newline - data
        if n == room:
            room *= 2
            starts, lengths = np.concatenate([starts, np.empty(n, np.int64)]), np.concatenate([lengths, np.empty(n, np.int32)])
            start, length = starts, lengths
        next_line = end + 1
        if end > at and data[end - 1] == 13:
            end -= 1
        seen = at
        while seen < end and (data[seen] == 32 or data[seen] == 9):
            seen += 1
        if seen < end:
            start[n] = at
            length[n] = <int32_t>(end - at)
            n += 1
        at = next_line
    return starts[:n], lengths[:n], at


def find_elements(const uint8_t[::1] block, int64_t most):
    """See reference_encode.find_elements."""
    cdef int64_t at = 0, begin, end, size = block.shape[0], depth = 0
    cdef Py_ssize_t n = 0, room = min(most, size // 64 + 16)
    cdef uint8_t byte
    cdef const uint8_t *data = &block[0] if size else NULL
    starts, lengths = np.empty(room, np.int64), np.empty(room, np.int32)
    cdef int64_t[::1] start = starts
    cdef int32_t[::1] length = lengths
    while size > 0 and blank(data[size - 1]):
        size -= 1
    while at < size and blank(data[at]):
        at += 1
    if at == size or data[at] != c"[":
        raise ValueError("not an array")
    at += 1
    begin = at
    while at < size:
        byte = data[at]
        if byte == c'"':
            at += 1
            while at < size and data[at] != c'"':
                at += 2 if data[at] == c"\\" else 1
        elif byte == c"{" or byte == c"[":
            depth += 1
        elif depth == 0 and (byte == c"," or byte == c"]"):
            end = at
            while begin < end and blank(data[begin]):
                begin += 1
            while begin < end and blank(data[end - 1]):
                end -= 1
            if byte == c"," or n > 0 or begin < end:
                if n == most:
                    raise OverflowError(f"more than {most} elements")
                if n == room:
                    room = min(most, 2 * room)
                    starts, lengths = np.concatenate([starts, np.empty(room - n, np.int64)]), np.concatenate([lengths, np.empty(room - n, np.int32)])
                    start, length = starts, lengths
                start[n] = begin
                length[n] = <int32_t>(end - begin)
                n += 1
            begin = at + 1
            if byte == c"]":
                if begin != size:
                    raise ValueError("something follows the array")
                return starts[:n], lengths[:n]
        elif byte == c"}" or byte == c"]":
            depth -= 1
            if depth < 0:
                raise ValueError("a bracket is closed that was not opened")
        at += 1
    raise ValueError("the array does not end")
