"""Group-by: what the records of one shard add to cells, one pass a column and a measure over each batch.

Keys are int64 words: a number is itself, an enum its code, a text its number among those that the delta has seen.
"""
import numpy as np

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from penstock.errors import InternalError
from penstock.kernels._cell cimport (COUNT, MIN, SUM, UNIQUES, Layout, State, add_to_sum, check_stamp, layout_of, measure_t, open_cell, problem_of, put_number,
                                     put_text, state_clear, state_merge, state_read, state_write)
from penstock.kernels._cell import column_key
from penstock.kernels._hash cimport xxh64_bytes, xxh64_word
from penstock.kernels._hash import xxh64
from penstock.kernels._hashtable cimport Groups, Texts
from penstock.kernels._hll cimport hll_add, hll_entry, hll_t
from penstock.kernels._varint cimport reader_t
from penstock.kernels.plan import BreakdownKeys
from penstock.model.fields import Timestamp

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    AHEAD = 12  # rows between the prefetch of a sketch and its use
    NULL_BITS = 40  # of a key's first word: the window is below, a bit for each null key above
    WORDS = 18  # of a key at most: the window, the entity, MAX_DIMENSIONS dimensions

cdef int64_t TIME_LIMIT = Timestamp.LIMIT


# The passes over a batch. rows: the rows of the batch that count, `count` of them; places: the group of each; take (over all of the batch; NULL: all):
# whether a measure takes a row. state: that of the first group, at the measure's slot; stride: words to the next.


cdef void count_rows(int64_t *state, int stride, const int32_t *rows, const uint32_t *places, Py_ssize_t count, const uint8_t *take) noexcept nogil:
    cdef Py_ssize_t index
    if take == NULL:
        for index in range(count):
            state[<int64_t>places[index] * stride] += 1
    else:
        for index in range(count):
            state[<int64_t>places[index] * stride] += take[rows[index]]


cdef void sum_rows(int64_t *state, int stride, const int32_t *rows, const uint32_t *places, Py_ssize_t count, const uint8_t *take,
                   const int64_t *values) noexcept nogil:
    cdef Py_ssize_t index
    if take == NULL:
        for index in range(count):
            add_to_sum(state + <int64_t>places[index] * stride, values[rows[index]])
    else:
        for index in range(count):
            add_to_sum(state + <int64_t>places[index] * stride, values[rows[index]] & -<int64_t>take[rows[index]])


cdef void extreme_rows(int64_t *state, int stride, const int32_t *rows, const uint32_t *places, Py_ssize_t count, const uint8_t *take,
                       const int64_t *values, bint least) noexcept nogil:
    cdef Py_ssize_t index
    cdef int64_t *slot
    cdef int64_t value
    for index in range(count):
        if take == NULL or take[rows[index]]:
            slot = state + <int64_t>places[index] * stride
            value = values[rows[index]]
            if slot[1] == 0 or (value < slot[0] if least else value > slot[0]):
                slot[0] = value
                slot[1] = 1


cdef int64_t sketch_rows(int64_t *state, int stride, const int32_t *rows, const uint32_t *places, Py_ssize_t count, const uint8_t *take,
                         const uint64_t *hashes, int precision) noexcept nogil:
    """hashes: one for each of `rows`. How many bytes of memory that took; -1: there is no more."""
    cdef Py_ssize_t index
    cdef int64_t grown = 0
    cdef long more
    for index in range(count):
        if index + AHEAD < count:
            prefetch((<hll_t *>(state + <int64_t>places[index + AHEAD] * stride)).memory)
        if take == NULL or take[rows[index]]:
            more = hll_add(<hll_t *>(state + <int64_t>places[index] * stride), hll_entry(hashes[index], precision), precision)
            if more < 0:
                return -1
            grown += more
    return grown


cdef object broken(name):
    return InternalError(f"column {name!r} is not laid out as penstock.kernels.columns says", hint="mend the schema's decoder")


# Preparing the columns of a batch


cdef pick(const uint8_t[::1] verdict, const uint8_t[::1] counted, Py_ssize_t start, Py_ssize_t stop):
    """The rows of [start, stop) that are accepted and counted (None: all are)."""
    picked = np.empty(stop - start, np.int32)
    cdef int32_t[::1] rows = picked
    cdef Py_ssize_t row, count = 0
    with nogil:
        if counted is None:
            for row in range(start, stop):
                rows[count] = <int32_t>row
                count += verdict[row] == 0
        else:
            for row in range(start, stop):
                rows[count] = <int32_t>row
                count += (verdict[row] == 0) & (counted[row] != 0)
    return picked[:count]


cdef windows_of(const int64_t[::1] times, const int32_t[::1] rows, int64_t width, name):
    """The number of the window that each row's event time lies in."""
    made = np.empty(rows.shape[0], np.int64)
    cdef int64_t[::1] windows = made
    cdef Py_ssize_t index
    cdef int64_t time, window, rest
    cdef double inverse = 1.0 / <double>width
    cdef bint bad = False
    with nogil:
        for index in range(rows.shape[0]):
            time = times[rows[index]]
            bad |= time < 0 or time >= TIME_LIMIT
            # a product is quicker than a division, and at most one off
            window = <int64_t>(<double>time * inverse)
            rest = time - window * width
            windows[index] = window + (rest >= width) - (rest < 0)
    if bad:
        raise InternalError(f"column {name!r} has an event time out of range in a record that was accepted",
                            hint="the schema's decoder must reject such a record")
    return made


cdef text_codes(column, name, const int32_t[::1] rows, Texts texts):
    """The number of each row's text; 0 for null."""
    made = np.empty(rows.shape[0], np.int64)
    cdef int64_t[::1] codes = made
    cdef const uint8_t[::1] data = column.data, valid = column.valid
    cdef const int32_t[::1] offsets = column.offsets
    cdef const uint8_t *base = &data[0] if data.shape[0] else NULL
    cdef bint nullable = column.valid is not None
    cdef Py_ssize_t index
    cdef int32_t row, begin, end
    cdef int64_t code = 0
    with nogil:
        for index in range(rows.shape[0]):
            row = rows[index]
            begin, end = offsets[row], offsets[row + 1]
            if nullable and valid[row] == 0:
                codes[index] = 0
                continue
            if not 0 <= begin <= end <= data.shape[0]:
                code = -2
                break
            code = texts.number(base + begin, end - begin)
            if code < 0:
                break
            codes[index] = code
    if code == -2:
        raise broken(name)
    if code == -1:
        raise MemoryError()
    return made


cdef enum_codes(column, name, const int32_t[::1] rows):
    """The code of each row's value; 0 for null."""
    made = np.empty(rows.shape[0], np.int64)
    cdef int64_t[::1] codes = made
    cdef const int16_t[::1] data = column.data
    cdef const uint8_t[::1] valid = column.valid
    cdef bint nullable = column.valid is not None, bad = False
    cdef int64_t code, most = len(column.field.values)
    cdef Py_ssize_t index
    with nogil:
        for index in range(rows.shape[0]):
            code = 0 if nullable and valid[rows[index]] == 0 else data[rows[index]]
            bad |= code < 0 or code >= most
            codes[index] = code
    if bad:
        raise broken(name)
    return made


cdef number_codes(column, const int32_t[::1] rows):
    """Each row's number; 0 for null."""
    made = column.data[np.asarray(rows)].astype(np.int64, copy=False)
    if column.valid is not None:
        made *= column.valid[np.asarray(rows)] != 0
    return made


cdef number_hashes(column, const int32_t[::1] rows):
    """The XXH64 of each row's number."""
    made = np.empty(rows.shape[0], np.uint64)
    cdef uint64_t[::1] hashes = made
    cdef const int64_t[::1] data = column.data
    cdef Py_ssize_t index
    with nogil:
        for index in range(rows.shape[0]):
            hashes[index] = xxh64_word(<uint64_t>data[rows[index]])
    return made


cdef text_hashes(column, name, const int32_t[::1] rows):
    """The XXH64 of each row's text."""
    made = np.empty(rows.shape[0], np.uint64)
    cdef uint64_t[::1] hashes = made
    cdef const uint8_t[::1] data = column.data
    cdef const int32_t[::1] offsets = column.offsets
    cdef const uint8_t *base = &data[0] if data.shape[0] else NULL
    cdef Py_ssize_t index
    cdef int32_t begin, end
    cdef bint bad = False
    with nogil:
        for index in range(rows.shape[0]):
            begin, end = offsets[rows[index]], offsets[rows[index] + 1]
            if not 0 <= begin <= end <= data.shape[0]:
                bad = True
                break
            hashes[index] = xxh64_bytes(base + begin, end - begin, 0)
    if bad:
        raise broken(name)
    return made


cdef int check_length(column, name, Py_ssize_t count) except -1:
    """Every column has a value for each record of its batch."""
    have = len(column.data) if column.offsets is None else len(column.offsets) - 1
    if have != count or (column.valid is not None and len(column.valid) != count):
        raise broken(name)
    return 0


cdef Texts texts_of(values):
    """Texts that have numbers already: of an enum, whose codes are the places of its values."""
    cdef Texts made = Texts()
    cdef bytes text
    for value in values:
        text = value.encode()
        if made.number(<const uint8_t *>PyBytes_AS_STRING(text), len(text)) < 0:
            raise MemoryError()
    return made


cdef class Delta:
    """What the accepted records of one shard add to cells, between two flushes.

    plan: RollupPlan. generation: 8 bytes. shard: 12 bytes. Not for several threads at once. After a MemoryError it is not whole: drop it.
    """
    cdef readonly object plan
    cdef Layout layout
    cdef bytes generation, shard
    cdef dict texts, hashed  # of key columns of text and enum: Texts; of enum columns that are counted as uniques: the hash of each value
    cdef list groups
    cdef bint frozen

    def __cinit__(self, plan, bytes generation not None, bytes shard not None):
        column_key(generation, 0, shard)
        self.plan, self.layout, self.generation, self.shard = plan, layout_of(plan), generation, shard
        self.groups = [Groups(self.layout, 1 + len(one.keys)) for one in plan.breakdowns]
        self.texts, self.hashed = {}, {}
        for one in plan.breakdowns:
            for name, field in zip(one.keys, one.fields):
                if field.kind in ("string", "enum") and name not in self.texts:
                    self.texts[name] = texts_of(field.values if field.kind == "enum" else ())
        for one in plan.measures:
            if one.kind == "uniques" and one.field.kind == "enum":
                self.hashed[one.column] = np.array([xxh64(value.encode()) for value in one.field.values], np.uint64)

    @property
    def cells(self):
        """How many cells it changes."""
        cdef Groups groups
        cdef int64_t total = 0
        for groups in self.groups:
            total += groups.count
        return total

    @property
    def nbytes(self):
        """About how many bytes of memory it takes."""
        cdef Groups groups
        cdef Texts texts
        cdef int64_t total = 0
        for groups in self.groups:
            total += 8 * (groups.mask + 1) + 8 * groups.capacity * groups.stride + groups.sketched
        for texts in self.texts.values():
            total += 8 * (texts.mask + 1) + texts.room + 8 * texts.capacity
        return total

    def freeze(self):
        """Let nothing more be added."""
        self.frozen = True

    def add(self, columns, verdict not None, Py_ssize_t start, Py_ssize_t stop):
        """Add the records of [start, stop) whose verdict (uint8[n]) is 0, that pass the roll-up's filter and that some measure counts.

        Raises InternalError if the delta is frozen, or the rows or a column are not what they should be; then nothing was added.
        """
        cdef Py_ssize_t size = len(columns)
        if self.frozen:
            raise InternalError("records are added to a frozen delta")
        if not 0 <= start <= stop <= min(size, len(verdict)):
            raise InternalError(f"rows [{start}, {stop}) are not within a batch of {size} and {len(verdict)} verdicts")
        counted, passed = self.plan.masks(columns)
        rows = pick(verdict, counted, start, stop)
        if not len(rows):
            return
        keys = self.key_words(columns, rows)
        inputs = self.inputs(columns, passed, rows)
        for groups, words in zip(self.groups, keys):
            self.take(groups, words, inputs, rows)

    cdef list key_words(self, columns, rows):
        """A list for each breakdown: its key, a column of int64 for each word."""
        codes, windows, made = {}, {}, []
        for one in self.plan.breakdowns:
            if one.width not in windows:
                column = columns.columns[self.plan.time]
                check_length(column, self.plan.time, len(columns))
                windows[one.width] = windows_of(column.data, rows, one.width, self.plan.time)
            first = windows[one.width]
            for index, (name, field) in enumerate(zip(one.keys, one.fields)):
                column = columns.columns[name]
                if name not in codes:
                    check_length(column, name, len(columns))
                    codes[name] = (text_codes(column, name, rows, self.texts[name]) if field.kind == "string" else
                                   enum_codes(column, name, rows) if field.kind == "enum" else number_codes(column, rows))
                if column.valid is not None:
                    first = first | (column.valid[rows] == 0).astype(np.int64) << NULL_BITS + index
            made.append([first] + [codes[name] for name in one.keys])
        return made

    cdef list inputs(self, columns, list passed, rows):
        """For each measure: which rows of the batch it takes (None: all), and its values: of the batch, or, of uniques, the hashes of `rows`."""
        hashes, made = {}, []
        for one in self.plan.measures:
            take, values = None if one.filter < 0 else passed[one.filter], None
            if one.column is not None:
                column = columns.columns[one.column]
                check_length(column, one.column, len(columns))
                if column.valid is not None:
                    take = column.valid if take is None else take & column.valid
                if one.kind != "uniques":
                    values = column.data
                else:
                    if one.column not in hashes:
                        hashes[one.column] = self.hash_column(column, one.column, rows)
                    values = hashes[one.column]
            made.append((take, values))
        return made

    cdef object hash_column(self, column, name, rows):
        if column.field.kind == "string":
            return text_hashes(column, name, rows)
        if column.field.kind == "enum":
            return self.hashed[name][enum_codes(column, name, rows)]
        return number_hashes(column, rows)

    cdef int take(self, Groups groups, list words, list inputs, const int32_t[::1] rows) except -1:
        """Add rows to the groups of one breakdown."""
        cdef Py_ssize_t count = rows.shape[0]
        cdef int64_t *keys[WORDS]
        cdef int64_t[::1] word
        cdef uint32_t[::1] places = np.empty(count, np.uint32)
        cdef uint64_t[::1] scratch = np.empty(count, np.uint64)
        cdef const uint64_t[::1] hashes
        cdef const int64_t[::1] numbers
        cdef const uint8_t[::1] mask
        cdef const uint8_t *take
        cdef int64_t *state
        cdef measure_t one
        cdef int64_t grown
        cdef int index, failed
        for index, column in enumerate(words):
            word = column
            keys[index] = &word[0]
        with nogil:
            failed = groups.place(keys, &scratch[0], count, &places[0])
        if failed < 0:
            raise MemoryError()
        for index, (taken, values) in enumerate(inputs):
            one = self.layout.measures[index]
            state = groups.records + groups.words + one.slot
            take = NULL
            if taken is not None:
                mask = taken
                take = &mask[0]
            if one.kind == COUNT:
                with nogil:
                    count_rows(state, groups.stride, &rows[0], &places[0], count, take)
            elif one.kind == UNIQUES:
                hashes = values
                with nogil:
                    grown = sketch_rows(state, groups.stride, &rows[0], &places[0], count, take, &hashes[0], one.precision)
                if grown < 0:
                    raise MemoryError()
                groups.sketched += grown
            else:
                numbers = values
                with nogil:
                    if one.kind == SUM:
                        sum_rows(state, groups.stride, &rows[0], &places[0], count, take, &numbers[0])
                    else:
                        extreme_rows(state, groups.stride, &rows[0], &places[0], count, take, &numbers[0], one.kind == MIN)
        return 0

    def keys(self):
        """Where the cells of each breakdown go: a list of BreakdownKeys, the cells in the order in which they were first seen."""
        return [self.keys_of(one, groups) for one, groups in zip(self.plan.breakdowns, self.groups)]

    cdef object keys_of(self, one, Groups groups):
        cdef int index, words = groups.words, nulls
        cdef int64_t group, number, span = one.span, window
        cdef int64_t *record
        cdef uint8_t *out
        cdef uint8_t *begin
        cdef size_t *ends[WORDS]
        cdef uint8_t *text[WORDS]
        cdef bint boolean[WORDS]
        cdef size_t room = 6, before
        cdef uint8_t number_of = one.index
        cdef uint64_t bucket
        cdef Texts texts
        cdef bytes scratch
        cdef list rows = [None] * groups.count, columns = [None] * groups.count, offsets = [None] * one.span
        made = np.empty(groups.count, np.int64)
        cdef int64_t[::1] windows = made
        for index, (name, field) in enumerate(zip(one.keys, one.fields)):
            text[index], boolean[index] = NULL, field.kind == "bool"
            room += 9
            if name in self.texts:
                texts = self.texts[name]
                text[index], ends[index] = texts.bytes, texts.ends
                room += 2 * texts.longest
        for index in range(span):
            offsets[index] = column_key(self.generation, index, self.shard)
        scratch = PyBytes_FromStringAndSize(NULL, room)
        begin = <uint8_t *>PyBytes_AS_STRING(scratch)
        for group in range(groups.count):
            record = groups.records + group * groups.stride
            window = record[0] & (<int64_t>1 << NULL_BITS) - 1
            nulls = <int>(record[0] >> NULL_BITS)
            out = begin + 1
            for index in range(words - 1):
                number = record[1 + index]
                if nulls >> index & 1:
                    out[0] = 0
                    out += 1
                elif text[index] != NULL:
                    before = ends[index][number - 1] if number else 0
                    out = put_text(out, text[index] + before, ends[index][number] - before)
                elif boolean[index]:
                    out[0] = 2 if number else 1
                    out += 1
                else:
                    out = put_number(out, number)
                if index == 0:
                    begin[0] = <uint8_t>(xxh64_bytes(begin + 1, out - begin - 1, 0) & 0xFF)
                    bucket = <uint64_t>(window // span)
                    out[0], out[1], out[2], out[3], out[4] = number_of, bucket >> 24 & 0xFF, bucket >> 16 & 0xFF, bucket >> 8 & 0xFF, bucket & 0xFF
                    out += 5
            windows[group] = window
            rows[group] = PyBytes_FromStringAndSize(<char *>begin, out - begin)
            columns[group] = offsets[window % span]
        return BreakdownKeys(one.index, one.table, one.width, made, rows, columns)

    def merge(self, int breakdown, list stored not None, stamp):
        """The cells of a breakdown, in the order of keys(), with what this delta adds, stamped `stamp`.

        stored: the bytes of each cell in the table, or None. The answer is None where those include this delta already, being stamped at or beyond
        `stamp`. The delta stays as it is. Raises CorruptionError for a cell that does not parse, InternalError for another number of cells.
        """
        cdef uint64_t checked = check_stamp(stamp), found
        cdef int64_t group
        cdef int64_t *state
        cdef State total = State(self.layout)
        cdef reader_t reader
        cdef bytes cell, scratch = PyBytes_FromStringAndSize(NULL, self.layout.largest)
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(scratch)
        cdef Groups groups
        cdef list made
        if not 0 <= breakdown < len(self.groups):
            raise InternalError(f"there is no breakdown {breakdown}")
        groups = self.groups[breakdown]
        if len(stored) != groups.count:
            raise InternalError(f"{len(stored)} stored cells for {groups.count} keys of breakdown {breakdown}")
        made = [None] * groups.count
        for group in range(groups.count):
            state = groups.records + group * groups.stride + groups.words
            cell = stored[group]
            if cell is not None:
                open_cell(cell, &reader, &found)
                if found >= checked:
                    continue
                state_clear(self.layout, total.slots)
                if state_read(self.layout, total.slots, &reader) < 0 or state_merge(self.layout, total.slots, state, &reader.problem) < 0:
                    raise problem_of(cell, &reader)
                state = total.slots
            made[group] = PyBytes_FromStringAndSize(<char *>out, state_write(self.layout, state, checked, out))
        return made
