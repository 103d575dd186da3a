"""Group-by: what the records of one shard add to cells, a pass a column over each batch, then a pass a measure over each block of rows.

Keys are int64 words: a number is itself, an enum its code, a text its number among those that the delta has seen.
"""
import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from penstock.errors import InternalError
from penstock.kernels._arena cimport arena_taken
from penstock.kernels._cell cimport (Layout, State, check_stamp, layout_of, open_bytes, problem_of, put_number, put_text, state_clear, state_merge, state_read,
                                     state_write)
from penstock.kernels._cell import column_key
from penstock.kernels._hash cimport xxh64_bytes
from penstock.kernels._hash import xxh64
from penstock.kernels._hashtable cimport BLOCK, Groups, Texts, bucket_t
from penstock.kernels._inputs cimport NULL_BITS, Rows, Words
from penstock.kernels._measures cimport input_t, take_rows
from penstock.kernels._varint cimport reader_t
from penstock.kernels.plan import BreakdownKeys

cdef enum:
    WORDS = 18  # of a key at most: the window, the entity, MAX_DIMENSIONS dimensions


cdef Texts texts_of(values):
    """Texts that have numbers already: of an enum, whose codes are the places of its values."""
    cdef Texts made = Texts()
    cdef bytes text
    for value in values:
        text = value.encode()
        if made.number(<const uint8_t *>PyBytes_AS_STRING(text), len(text), len(text)) < 0:
            raise MemoryError()
    return made


cdef void fill(input_t *one, Layout layout, int index, Words taken, Words values):
    """What a measure takes of a batch."""
    one.kind, one.slot, one.precision = layout.measures[index].kind, layout.measures[index].slot, layout.measures[index].precision
    one.taken = NULL if taken is None else <uint8_t *>taken.memory
    one.values = NULL if values is None else <int64_t *>values.memory
    one.entries = NULL if values is None else <uint32_t *>values.memory


cdef int take_all(Groups groups, int64_t **words, input_t *inputs, int measures, Py_ssize_t count) noexcept nogil:
    """Add rows to the groups of one breakdown. -1: no memory."""
    cdef int64_t *found[BLOCK]
    cdef Py_ssize_t begin = 0
    cdef int rows, index
    while begin < count:
        rows = <int>min(count - begin, <Py_ssize_t>BLOCK)
        if groups.place(words, begin, rows, found) < 0:
            return -1
        for index in range(measures):
            if take_rows(inputs + index, found, groups.words, begin, rows, &groups.arena) < 0:
                return -1
        begin += rows
    return 0


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
            total += sizeof(bucket_t) * (groups.mask + 1) + 8 * groups.capacity * groups.stride + arena_taken(&groups.arena)
        for texts in self.texts.values():
            total += 8 * (texts.mask + 1) + texts.room + 16 * texts.capacity
        return total

    def freeze(self):
        """Let nothing more be added."""
        self.frozen = True

    def add(self, columns, verdict not None, Py_ssize_t start, Py_ssize_t stop):
        """Add the records of [start, stop) whose verdict (uint8[n]) is 0, that pass the roll-up's filter and that some measure counts.

        Raises InternalError if the delta is frozen, or the rows or a column are not what they should be; then nothing was added.
        """
        cdef Py_ssize_t size = len(columns)
        cdef Rows rows
        if self.frozen:
            raise InternalError("records are added to a frozen delta")
        if not 0 <= start <= stop <= min(size, len(verdict)):
            raise InternalError(f"rows [{start}, {stop}) are not within a batch of {size} and {len(verdict)} verdicts")
        counted, passed = self.plan.masks(columns)
        rows = Rows(columns, self.plan.time, self.texts, self.hashed, verdict, counted, start, stop)
        if rows.count:
            keys = [rows.keys(one) for one in self.plan.breakdowns]
            inputs = [rows.measure(one, passed) for one in self.plan.measures]
            self.take(keys, inputs, rows.count)

    cdef int take(self, list keys, list inputs, Py_ssize_t count) except -1:
        """Add rows to the groups of every breakdown. keys and inputs: of each breakdown and each measure, as Rows gives them."""
        cdef int64_t *words[WORDS]
        cdef input_t *ready = <input_t *>calloc(len(inputs), sizeof(input_t))
        cdef Groups groups
        cdef Words word
        cdef int index, failed = 0
        if ready == NULL:
            raise MemoryError()
        try:
            for index, (taken, values) in enumerate(inputs):
                fill(ready + index, self.layout, index, taken, values)
            for groups, columns in zip(self.groups, keys):
                for index, word in enumerate(columns):
                    words[index] = <int64_t *>word.memory
                with nogil:
                    failed = take_all(groups, words, ready, self.layout.count, count)
                if failed < 0:
                    raise MemoryError()
        finally:
            free(ready)
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
            record = groups.record(group)
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
        cdef const uint8_t *begin
        cdef Groups groups
        cdef list made
        if not 0 <= breakdown < len(self.groups):
            raise InternalError(f"there is no breakdown {breakdown}")
        groups = self.groups[breakdown]
        if len(stored) != groups.count:
            raise InternalError(f"{len(stored)} stored cells for {groups.count} keys of breakdown {breakdown}")
        made = [None] * groups.count
        for group in range(groups.count):
            state = groups.record(group) + groups.words
            cell = stored[group]
            if cell is not None:
                begin = open_bytes(cell, &reader, &found)
                if found >= checked:
                    continue
                state_clear(self.layout, total.slots)
                if state_read(self.layout, total.slots, &reader) < 0 or state_merge(self.layout, total.slots, state, &reader.problem) < 0:
                    raise problem_of(begin, &reader)
                state = total.slots
            made[group] = PyBytes_FromStringAndSize(<char *>out, state_write(self.layout, state, checked, out))
        return made
