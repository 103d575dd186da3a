"""The columns of a batch, made ready for groups: see _inputs.pxd.

All of a batch's columns are made ready, and so checked, before any group changes.
"""
from libc.stdint cimport int16_t, uint64_t
from libc.stdlib cimport free, malloc

from penstock.errors import InternalError
from penstock.kernels._hash cimport xxh64_bytes, xxh64_word
from penstock.kernels._hll cimport hll_entry, leading_zeros
from penstock.kernels._varint cimport uint128
from penstock.model.fields import Timestamp

cdef int64_t TIME_LIMIT = Timestamp.LIMIT


cdef class Words:

    def __dealloc__(self):
        free(self.memory)


cdef Words room_for(Py_ssize_t count, size_t each):
    cdef Words made = Words()
    made.memory = malloc(max(count, 1) * each)
    if made.memory == NULL:
        raise MemoryError()
    return made


cdef object broken(name):
    return InternalError(f"column {name!r} is not laid out as penstock.kernels.columns says", hint="mend the schema's decoder")


cdef bint windows_of(const int64_t *times, const int32_t *rows, Py_ssize_t count, int64_t width, int64_t *windows) noexcept nogil:
    """Divide each row's time by the width of a window, 2 or more. True: a time is out of range.

    By a multiplication, which is exact: T. Granlund, P. Montgomery, "Division by invariant integers using multiplication" (1994), theorem 4.2, for
    dividends below 2**63. With l the bits of width - 1, the multiplier is 2**(63 + l) / width, rounded up.
    """
    cdef int bits = 64 - leading_zeros(width - 1)
    cdef uint64_t multiplier = <uint64_t>((<uint128>1 << 63 + bits) // <uint128>width) + 1
    cdef int64_t time
    cdef Py_ssize_t index
    cdef bint bad = False
    for index in range(count):
        time = times[rows[index]]
        bad |= <uint64_t>time >= <uint64_t>TIME_LIMIT
        windows[index] = <int64_t>(<uint64_t>(<uint128><uint64_t>time * multiplier >> 64) >> bits - 1)
    return bad


cdef class Rows:

    def __cinit__(self, columns, time, dict texts, dict hashed, const uint8_t[::1] verdict, const uint8_t[::1] counted, Py_ssize_t start, Py_ssize_t stop):
        """Pick the rows of [start, stop) whose verdict is 0 and that are counted (None: all are)."""
        cdef int32_t *rows
        cdef Py_ssize_t row, count = 0
        self.columns, self.time, self.texts, self.hashed, self.memo, self.size = columns.columns, time, texts, hashed, {}, len(columns)
        self.picked = room_for(stop - start, sizeof(int32_t))
        rows = self.rows = <int32_t *>self.picked.memory
        with nogil:
            if counted is None:
                for row in range(start, stop):
                    rows[count] = <int32_t>row
                    count += verdict[row] == 0
            else:
                for row in range(start, stop):
                    rows[count] = <int32_t>row
                    count += (verdict[row] == 0) & (counted[row] != 0)
        self.count = count

    cdef Words words(self):
        return room_for(self.count, sizeof(int64_t))

    cdef object column(self, name):
        """A column, which has a value for each record of its batch."""
        column = self.columns[name]
        have = len(column.data) if column.offsets is None else len(column.offsets) - 1
        if have != self.size or (column.valid is not None and len(column.valid) != self.size):
            raise broken(name)
        return column

    cdef list keys(self, one):
        """The key of each row in a breakdown: int64 Words for each word."""
        cdef Words first = self.windows(one.width)
        for bit, name in enumerate(one.keys):
            column = self.column(name)
            if column.valid is not None:
                first = self.with_null(first, column, bit)
        return [first] + [self.codes(name) for name in one.keys]

    cdef Words windows(self, int64_t width):
        """The number of the window that each row's event time lies in."""
        cdef Words made = self.memo.get(width)
        cdef const int64_t[::1] times
        cdef bint bad
        if made is not None:
            return made
        times, made = self.column(self.time).data, self.words()
        with nogil:
            bad = windows_of(&times[0], self.rows, self.count, width, <int64_t *>made.memory)
        if bad:
            raise InternalError(f"column {self.time!r} has an event time out of range in a record that was accepted",
                                hint="the schema's decoder must reject such a record")
        self.memo[width] = made
        return made

    cdef Words with_null(self, Words first, column, int bit):
        """A key's first word with a bit more, where a key is null."""
        cdef Words made = self.words()
        cdef const uint8_t[::1] valid = column.valid
        cdef int64_t *before = <int64_t *>first.memory
        cdef int64_t *after = <int64_t *>made.memory
        cdef Py_ssize_t index
        with nogil:
            for index in range(self.count):
                after[index] = before[index] | <int64_t>(valid[self.rows[index]] == 0) << NULL_BITS + bit
        return made

    cdef Words codes(self, name):
        """Each row's key in one word: a number, the code of an enum, the number of a text; 0 for null."""
        cdef Words made = self.memo.get(name)
        if made is None:
            column = self.column(name)
            if column.field.kind == "string":
                made = self.text_codes(column, name, self.texts[name])
            elif column.field.kind == "enum":
                made = self.enum_codes(column, name)
            else:
                made = self.numbers(column, name, None if column.valid is None else self.taken(column.valid))
            self.memo[name] = made
        return made

    cdef Words text_codes(self, column, name, Texts texts):
        cdef Words made = self.words()
        cdef int64_t *codes = <int64_t *>made.memory
        cdef const uint8_t[::1] data = column.data, valid = column.valid
        cdef const int32_t[::1] offsets = column.offsets
        cdef const uint8_t *base = &data[0] if data.shape[0] else NULL
        cdef bint nullable = column.valid is not None
        cdef Py_ssize_t index
        cdef int32_t row, begin, end
        cdef int64_t code = 0
        with nogil:
            for index in range(self.count):
                row = self.rows[index]
                begin, end = offsets[row], offsets[row + 1]
                if nullable and valid[row] == 0:
                    codes[index] = 0
                    continue
                if not 0 <= begin <= end <= data.shape[0]:
                    code = -2
                    break
                code = texts.number(base + begin, end - begin, data.shape[0] - begin)
                if code < 0:
                    break
                codes[index] = code
        if code == -2:
            raise broken(name)
        if code == -1:
            raise MemoryError()
        return made

    cdef Words enum_codes(self, column, name):
        cdef Words made = self.words()
        cdef int64_t *codes = <int64_t *>made.memory
        cdef const int16_t[::1] data = column.data
        cdef const uint8_t[::1] valid = column.valid
        cdef bint nullable = column.valid is not None, bad = False
        cdef int64_t code, most = len(column.field.values)
        cdef Py_ssize_t index
        with nogil:
            for index in range(self.count):
                code = 0 if nullable and valid[self.rows[index]] == 0 else data[self.rows[index]]
                bad |= <uint64_t>code >= <uint64_t>most
                codes[index] = code
        if bad:
            raise broken(name)
        return made

    cdef Words numbers(self, column, name, Words taken):
        """Each row's number; 0 where it is not taken (None: all are)."""
        cdef Words made = self.words()
        cdef int64_t *numbers = <int64_t *>made.memory
        cdef const int64_t[::1] data
        cdef const uint8_t[::1] flags
        cdef const uint8_t *take = <const uint8_t *>taken.memory if taken is not None else NULL
        cdef Py_ssize_t index
        if column.field.kind == "bool":
            flags = column.data
            for index in range(self.count):
                numbers[index] = flags[self.rows[index]] & (take[index] if take != NULL else 1)
        elif take == NULL:
            data = column.data
            with nogil:
                for index in range(self.count):
                    numbers[index] = data[self.rows[index]]
        else:
            data = column.data
            with nogil:
                for index in range(self.count):
                    numbers[index] = data[self.rows[index]] & -<int64_t>take[index]
        return made

    cdef Words taken(self, mask):
        """A mask of the batch, uint8 0 or 1 a record, for each row."""
        cdef Words made = room_for(self.count, sizeof(uint8_t))
        cdef uint8_t *taken = <uint8_t *>made.memory
        cdef const uint8_t[::1] passed = mask
        cdef Py_ssize_t index
        with nogil:
            for index in range(self.count):
                taken[index] = passed[self.rows[index]] & 1
        return made

    cdef tuple measure(self, one, list passed):
        """What a measure takes: which rows (None: all), and their values (None: of a count). As in input_t."""
        cdef Words taken, values
        key = (one.filter, one.column, one.kind == "uniques", one.precision)
        found = self.memo.get(key)
        if found is not None:
            return found
        mask = None if one.filter < 0 else passed[one.filter]
        if one.column is not None:
            column = self.column(one.column)
            if column.valid is not None:
                mask = column.valid if mask is None else mask & column.valid
            if mask is not None and mask.min() == 1:
                mask = None
        taken = None if mask is None else self.taken(mask)
        values = None if one.column is None else self.entries(one, taken) if one.kind == "uniques" else self.numbers(column, one.column, taken)
        self.memo[key] = found = (taken, values)
        return found

    cdef Words entries(self, one, Words taken):
        """The entry of a sketch that each row's value makes; 0 where it is not taken."""
        cdef Words made = room_for(self.count, sizeof(uint32_t)), codes
        cdef uint32_t *entries = <uint32_t *>made.memory
        cdef const uint8_t *take = <const uint8_t *>taken.memory if taken is not None else NULL
        cdef const uint8_t[::1] data
        cdef const int64_t[::1] numbers
        cdef const uint64_t[::1] hashes
        cdef const int32_t[::1] offsets
        cdef const uint8_t *base
        cdef Py_ssize_t index
        cdef int precision = one.precision
        cdef int32_t begin, end
        cdef bint bad = False
        column = self.columns[one.column]
        if column.field.kind == "string":
            data, offsets = column.data, column.offsets
            base = &data[0] if data.shape[0] else NULL
            with nogil:
                for index in range(self.count):
                    begin, end = offsets[self.rows[index]], offsets[self.rows[index] + 1]
                    if not 0 <= begin <= end <= data.shape[0]:
                        bad = True
                        break
                    entries[index] = hll_entry(xxh64_bytes(base + begin, end - begin, 0), precision)
        elif column.field.kind == "enum":
            codes, hashes = self.enum_codes(column, one.column), self.hashed[one.column]
            for index in range(self.count):
                entries[index] = hll_entry(hashes[(<int64_t *>codes.memory)[index]], precision)
        else:
            numbers = column.data
            with nogil:
                for index in range(self.count):
                    entries[index] = hll_entry(xxh64_word(<uint64_t>numbers[self.rows[index]]), precision)
        if bad:
            raise broken(one.column)
        if take != NULL:
            with nogil:
                for index in range(self.count):
                    entries[index] &= -<uint32_t>take[index]
        return made
