"""The generator's ad events as JSON or msgpack text: byte for byte what `json.dumps` and `msgpack.packb` make of the same dicts, without the dicts."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from penstock.kernels.framing import Slices

cdef enum:
    ROOM = 320                                          # bytes of one event at most: 9 keys, 9 values, texts of MAX_TEXT
    MAX_TEXT = 24
    KEY_ROOM = 20

cdef const char *HEX = b"0123456789abcdef"


cdef class Texts:
    """Up to 256 short texts that need no escape in JSON."""
    cdef uint8_t[256][MAX_TEXT] text
    cdef int[256] length
    cdef int count

    def __cinit__(self, texts):
        cdef int i, j
        cdef bytes raw
        self.count = len(texts)
        if not 1 <= self.count <= 256:
            raise ValueError(f"{len(texts)} texts")
        for i in range(self.count):
            raw = texts[i].encode("ascii")
            if len(raw) > MAX_TEXT:
                raise ValueError(f"{texts[i]!r} is longer than {MAX_TEXT} bytes")
            self.length[i] = <int>len(raw)
            for j in range(self.length[i]):
                self.text[i][j] = raw[j]


cdef inline uint8_t *raw(uint8_t *out, const char *text, int length) noexcept nogil:
    memcpy(out, text, length)
    return out + length


cdef inline uint8_t *digits(uint8_t *out, uint64_t number) noexcept nogil:
    cdef uint8_t[20] reversed
    cdef int n = 0, i
    while True:
        reversed[n] = <uint8_t>(48 + number % 10)
        number //= 10
        n += 1
        if number == 0:
            break
    for i in range(n):
        out[i] = reversed[n - 1 - i]
    return out + n


cdef inline uint8_t *hexadecimal(uint8_t *out, uint64_t high, uint64_t low) noexcept nogil:
    cdef int i
    for i in range(16):
        out[i] = HEX[high >> (60 - 4 * i) & 15]
    for i in range(8):
        out[16 + i] = HEX[low >> (28 - 4 * i) & 15]
    return out + 24


cdef inline uint8_t *quoted(uint8_t *out, Texts texts, int which) noexcept nogil:
    out[0] = 34
    memcpy(out + 1, texts.text[which], texts.length[which])
    out[1 + texts.length[which]] = 34
    return out + texts.length[which] + 2


cdef inline uint8_t *micros_text(uint8_t *out, int64_t micros) noexcept nogil:
    cdef uint32_t fraction = <uint32_t>(micros % 1000000)
    cdef int i
    out = digits(out, micros // 1000000)
    out[0] = 46
    for i in range(6):
        out[6 - i] = <uint8_t>(48 + fraction % 10)
        fraction //= 10
    i = 6
    while i > 1 and out[i] == 48:
        i -= 1
    return out + i + 1


cdef inline uint8_t *big(uint8_t *out, uint64_t number, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        out[i] = <uint8_t>(number >> (8 * (size - 1 - i)))
    return out + size


cdef inline uint8_t *packed(uint8_t *out, uint64_t number) noexcept nogil:
    if number < 0x80:
        return big(out, number, 1)
    if number < 0x100:
        out[0] = 0xcc
        return big(out + 1, number, 1)
    if number < 0x10000:
        out[0] = 0xcd
        return big(out + 1, number, 2)
    if number < 0x100000000U:
        out[0] = 0xce
        return big(out + 1, number, 4)
    out[0] = 0xcf
    return big(out + 1, number, 8)


cdef inline uint8_t *packed_text(uint8_t *out, Texts texts, int which) noexcept nogil:
    out[0] = <uint8_t>(0xa0 | texts.length[which])
    return raw(out + 1, <const char *>texts.text[which], texts.length[which])


cdef inline uint8_t *packed_micros(uint8_t *out, int64_t micros) noexcept nogil:
    cdef double number = <double>micros / 1e6
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    out[0] = 0xcb
    return big(out + 1, bits, 8)


def write_ads(columns, types, countries, devices, bint as_json):
    """The values and the keys (the advertiser in decimal digits) of a block of events, as two Slices.

    columns: penstock.log.generate.Columns. types, countries, devices: the texts that its codes stand for. Raises ValueError for a code or a number
    out of range.
    """
    cdef const int64_t[::1] ts = columns.ts, advertiser = columns.advertiser, user = columns.user, campaign = columns.campaign, cost = columns.cost
    cdef const uint64_t[::1] high = columns.id_high, low = columns.id_low
    cdef const uint8_t[::1] kind = columns.type, country = columns.country, device = columns.device
    cdef Texts kinds = Texts(types), places = Texts(countries), things = Texts(devices)
    cdef Py_ssize_t row, n = ts.shape[0]
    if not (advertiser.shape[0] == user.shape[0] == campaign.shape[0] == cost.shape[0] == high.shape[0] == low.shape[0] == kind.shape[0] == country.shape[0]
            == device.shape[0] == n):
        raise ValueError("the columns differ in length")
    values, starts, lengths = np.empty(n * ROOM, np.uint8), np.empty(n, np.int64), np.empty(n, np.int32)
    keys, key_starts, key_lengths = np.empty(n * KEY_ROOM, np.uint8), np.empty(n, np.int64), np.empty(n, np.int32)
    cdef uint8_t[::1] value = values, key = keys
    cdef int64_t[::1] start = starts, key_start = key_starts
    cdef int32_t[::1] length = lengths, key_length = key_lengths
    cdef uint8_t *begin
    cdef uint8_t *out
    cdef uint8_t *key_begin
    cdef uint8_t *key_out
    if not n:
        return Slices(b"", starts, lengths), Slices(b"", key_starts, key_lengths)
    begin = out = &value[0]
    key_begin = key_out = &key[0]
    with nogil:
        for row in range(n):
            if kind[row] >= kinds.count or country[row] >= places.count or device[row] >= things.count or ts[row] < 0 or advertiser[row] < 0 or user[row] < 0 or campaign[row] < 0:
                with gil:
                    raise ValueError(f"row {row} holds a code or a number out of range")
            start[row] = out - begin
            key_start[row] = key_out - key_begin
            key_out = digits(key_out, advertiser[row])
            key_length[row] = <int32_t>(key_out - key_begin - key_start[row])
            if as_json:
                out = digits(raw(out, b'{"ts":', 6), ts[row])
                out = hexadecimal(raw(out, b',"event_id":"', 13), high[row], low[row])
                out = digits(raw(out, b'","advertiser_id":', 18), advertiser[row])
                out = digits(raw(out, b',"user_id":', 11), user[row])
                out = quoted(raw(out, b',"type":', 8), kinds, kind[row])
                out = digits(raw(out, b',"campaign_id":', 15), campaign[row])
                out = quoted(raw(out, b',"country":', 11), places, country[row])
                out = quoted(raw(out, b',"device":', 10), things, device[row])
                out = raw(out, b',"cost":', 8)
                out = raw(out, b"null", 4) if cost[row] < 0 else micros_text(out, cost[row])
                out = raw(out, b"}", 1)
            else:
                out = packed(raw(out, b"\x89\xa2ts", 4), ts[row])
                out = hexadecimal(raw(out, b"\xa8event_id\xb8", 10), high[row], low[row])
                out = packed(raw(out, b"\xadadvertiser_id", 14), advertiser[row])
                out = packed(raw(out, b"\xa7user_id", 8), user[row])
                out = packed_text(raw(out, b"\xa4type", 5), kinds, kind[row])
                out = packed(raw(out, b"\xabcampaign_id", 12), campaign[row])
                out = packed_text(raw(out, b"\xa7country", 8), places, country[row])
                out = packed_text(raw(out, b"\xa6device", 7), things, device[row])
                out = raw(out, b"\xa4cost", 5)
                out = raw(out, b"\xc0", 1) if cost[row] < 0 else packed_micros(out, cost[row])
            length[row] = <int32_t>(out - begin - start[row])
    return Slices(values[:out - begin].data, starts, lengths), Slices(keys[:key_out - key_begin].data, key_starts, key_lengths)
