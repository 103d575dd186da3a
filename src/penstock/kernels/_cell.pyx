"""Cells and row keys as bytes: see docs/cell-format.md, and `penstock.kernels.reference_group` for the same in plain Python."""
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from penstock.errors import CorruptionError, InternalError
from penstock.kernels._hash cimport xxh64_bytes
from penstock.kernels._hll cimport Hll, hll_clear, hll_free, hll_merge, hll_read, hll_t, hll_write
from penstock.kernels._varint cimport fail, get_varint, get_varint128, int128, put_varint, put_varint128, uint128
from penstock.model.rollup import CELL_FORMAT

cdef uint8_t FORMAT = CELL_FORMAT
cdef int NO_MEMORY = -2
cdef dict KINDS = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "uniques": UNIQUES}

cdef extern from *:
    bint add_overflow "__builtin_add_overflow"(int128, int128, int128 *) noexcept nogil


cdef class Layout:

    def __cinit__(self, plan):
        cdef int index
        self.count = len(plan.measures)
        self.measures = <measure_t *>calloc(self.count, sizeof(measure_t))
        if self.measures == NULL:
            raise MemoryError()
        self.largest = 1 + 10
        for index, one in enumerate(plan.measures):
            self.measures[index] = measure_t(KINDS[one.kind], self.slots, one.precision)
            self.slots += 1 if one.kind == "count" else 2
            self.sketched |= one.kind == "uniques"
            self.largest += 5 + 3 * (1 << one.precision) // 4 if one.kind == "uniques" else 19

    def __dealloc__(self):
        free(self.measures)


cdef Layout layout_of(plan):
    """The layout of a plan, made once."""
    if plan.compiled is None:
        plan.compiled = Layout(plan)
    return plan.compiled


# States


cdef inline int128 get_sum(const int64_t *slot) noexcept nogil:
    return <int128>(<uint128>slot[1] << 64 | <uint128><uint64_t>slot[0])


cdef inline void set_sum(int64_t *slot, int128 total) noexcept nogil:
    slot[0] = <int64_t><uint64_t>total
    slot[1] = <int64_t>(total >> 64)


cdef inline void take_extreme(int64_t *slot, int64_t value, kind_t kind) noexcept nogil:
    if slot[1] == 0 or (value < slot[0] if kind == MIN else value > slot[0]):
        slot[0] = value
        slot[1] = 1


cdef int add_count(int64_t *slot, uint64_t more, const char **problem) noexcept nogil:
    if more > <uint64_t>INT64_MAX - <uint64_t>slot[0]:
        problem[0] = "a count overflows"
        return -1
    slot[0] += <int64_t>more
    return 0


cdef int add_sum(int64_t *slot, int128 more, const char **problem) noexcept nogil:
    cdef int128 total
    if add_overflow(get_sum(slot), more, &total):
        problem[0] = "a sum overflows"
        return -1
    set_sum(slot, total)
    return 0


cdef int state_read(Layout layout, int64_t *state, reader_t *reader) noexcept nogil:
    """Merge the measures of a cell, from the reader to its end, into a state. -1: corrupt; -2: no memory."""
    cdef int index
    cdef measure_t one
    cdef int64_t *slot
    cdef uint64_t word
    cdef uint128 wide
    for index in range(layout.count):
        one = layout.measures[index]
        slot = state + one.slot
        if one.kind == COUNT:
            if get_varint(reader, 63, &word) < 0 or add_count(slot, word, &reader.problem) < 0:
                return -1
        elif one.kind == UNIQUES:
            if hll_read(<hll_t *>slot, reader, one.precision, NULL) < 0:
                return -1 if reader.problem != NULL else NO_MEMORY
        elif get_varint128(reader, 128 if one.kind == SUM else 65, &wide) < 0:
            return -1
        elif one.kind == SUM:
            if add_sum(slot, <int128>(wide >> 1) ^ -<int128>(wide & 1), &reader.problem) < 0:
                return -1
        elif wide != 0:
            if wide >> 64 != 0 and <uint64_t>wide != 0:
                return fail(reader, "an extreme is beyond 64 bits")
            word = <uint64_t>(wide - 1)
            take_extreme(slot, <int64_t>(word >> 1) ^ -<int64_t>(word & 1), one.kind)
    return fail(reader, "bytes are left over") if reader.at != reader.end else 0


cdef int state_merge(Layout layout, int64_t *into, int64_t *other, const char **problem) noexcept nogil:
    """Merge a state into another. -1: overflow; -2: no memory."""
    cdef int index
    cdef measure_t one
    for index in range(layout.count):
        one = layout.measures[index]
        if one.kind == COUNT:
            if add_count(into + one.slot, <uint64_t>other[one.slot], problem) < 0:
                return -1
        elif one.kind == SUM:
            if add_sum(into + one.slot, get_sum(other + one.slot), problem) < 0:
                return -1
        elif one.kind == UNIQUES:
            if hll_merge(<hll_t *>(into + one.slot), <hll_t *>(other + one.slot), one.precision, NULL) < 0:
                return NO_MEMORY
        elif other[one.slot + 1] != 0:
            take_extreme(into + one.slot, other[one.slot], one.kind)
    return 0


cdef size_t state_write(Layout layout, int64_t *state, uint64_t stamp, uint8_t *out) noexcept nogil:
    """Write a cell, into at least layout.largest bytes; how many it has."""
    cdef uint8_t *begin = out
    cdef int index
    cdef measure_t one
    cdef int64_t *slot
    cdef int128 wide
    out[0] = FORMAT
    out = put_varint(out + 1, stamp)
    for index in range(layout.count):
        one = layout.measures[index]
        slot = state + one.slot
        if one.kind == COUNT:
            out = put_varint(out, <uint64_t>slot[0])
        elif one.kind == UNIQUES:
            out = hll_write(<hll_t *>slot, out, one.precision)
        elif one.kind == SUM:
            wide = get_sum(slot)
            out = put_varint128(out, <uint128>wide << 1 ^ <uint128>(wide >> 127))
        elif slot[1] == 0:
            out = put_varint(out, 0)
        else:
            out = put_varint128(out, <uint128>(<uint64_t>slot[0] << 1 ^ <uint64_t>(slot[0] >> 63)) + 1)
    return out - begin


cdef void state_clear(Layout layout, int64_t *state) noexcept nogil:
    """Make a state empty; sketches keep their memory for what comes."""
    cdef int index
    cdef measure_t one
    for index in range(layout.count):
        one = layout.measures[index]
        if one.kind == UNIQUES:
            hll_clear(<hll_t *>(state + one.slot), one.precision, NULL)
        else:
            state[one.slot] = 0
            if one.kind != COUNT:
                state[one.slot + 1] = 0


cdef void state_free(Layout layout, int64_t *state) noexcept nogil:
    """Give back what the sketches of a state hold."""
    cdef int index
    for index in range(layout.count):
        if layout.measures[index].kind == UNIQUES:
            hll_free(<hll_t *>(state + layout.measures[index].slot), layout.measures[index].precision, NULL)


# Cells


cdef object problem_of(const uint8_t *cell, reader_t *reader):
    """The error for what a reader met in a cell; MemoryError where it met nothing."""
    if reader.problem == NULL:
        return MemoryError()
    return CorruptionError(f"cell is corrupt at byte {reader.at - cell} of {reader.end - cell}: {reader.problem.decode()}",
                           hint="nothing of it is used; rebuild its window from the archive")


cdef int open_cell(const uint8_t *cell, Py_ssize_t size, reader_t *reader, uint64_t *stamp) except -1:
    """Set a reader to a cell's measures; raises CorruptionError."""
    reader.at = cell
    reader.end = cell + size
    reader.problem = NULL
    if size == 0 or cell[0] != FORMAT:
        raise CorruptionError(f"cell has format {cell[0] if size else 'none'}, not {FORMAT}", hint="it was written by another version of Penstock, or damaged")
    reader.at += 1
    if get_varint(reader, 63, stamp) < 0:
        raise problem_of(cell, reader)
    return 0


cdef const uint8_t *open_bytes(bytes cell, reader_t *reader, uint64_t *stamp) except NULL:
    """The same for a cell of its own; where it begins."""
    open_cell(<const uint8_t *>PyBytes_AS_STRING(cell), PyBytes_GET_SIZE(cell), reader, stamp)
    return <const uint8_t *>PyBytes_AS_STRING(cell)


cdef uint64_t check_stamp(stamp) except? 0xFFFFFFFFFFFFFFFF:
    if not 0 <= stamp <= INT64_MAX:
        raise InternalError(f"stamp {stamp} is not an offset")
    return stamp


cdef class State:

    def __cinit__(self, Layout layout not None):
        self.layout = layout
        self.slots = <int64_t *>calloc(layout.slots, sizeof(int64_t))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.slots != NULL:
            state_free(self.layout, self.slots)
            free(self.slots)

    cdef int read(self, bytes cell) except -1:
        """Merge a cell into the state. Raises CorruptionError."""
        cdef reader_t reader
        cdef uint64_t stamp
        cdef const uint8_t *begin = open_bytes(cell, &reader, &stamp)
        if state_read(self.layout, self.slots, &reader) < 0:
            raise problem_of(begin, &reader)
        return 0


def cell_stamp(bytes cell not None):
    """The offset up to which a cell includes its shard's records. Raises CorruptionError."""
    cdef reader_t reader
    cdef uint64_t stamp
    open_bytes(cell, &reader, &stamp)
    return stamp


def strip_stamp(bytes cell not None):
    """The cell without its stamp: the same state gives the same bytes. Raises CorruptionError."""
    cdef reader_t reader
    cdef uint64_t stamp
    open_bytes(cell, &reader, &stamp)
    return cell[:1] + PyBytes_FromStringAndSize(<const char *>reader.at, reader.end - reader.at)


cdef object value_at(Layout layout, int64_t *state, int index):
    """The value of a measure; uniques go from the state into the sketch that is returned."""
    cdef measure_t one = layout.measures[index]
    cdef int64_t *slot = state + one.slot
    cdef Hll sketch
    if one.kind == COUNT:
        return slot[0]
    if one.kind == SUM:
        if slot[1] == slot[0] >> 63:
            return slot[0]
        return (<object>slot[1] << 64) + <uint64_t>slot[0]
    if one.kind == UNIQUES:
        sketch = Hll(one.precision)
        sketch.sketch = (<hll_t *>slot)[0]
        memset(slot, 0, sizeof(hll_t))
        return sketch
    return slot[0] if slot[1] else None


def decode_cell(plan, bytes cell not None):
    """One value a stored measure, in order: int of a count or a sum, int or None of an extreme, Hll of uniques. Raises CorruptionError."""
    cdef State state = State(layout_of(plan))
    cdef int index
    state.read(cell)
    return [value_at(state.layout, state.slots, index) for index in range(state.layout.count)]


def decode_cells(plan, cells not None):
    """For each stored measure, in order, its values in all of some cells, as `decode_cell` has them. Raises CorruptionError."""
    cdef State state = State(layout_of(plan))
    cdef list columns = [[] for _ in range(state.layout.count)]
    cdef bytes cell
    cdef int index
    for cell in cells:
        state_clear(state.layout, state.slots)
        state.read(cell)
        for index in range(state.layout.count):
            (<list>columns[index]).append(value_at(state.layout, state.slots, index))
    return columns


def merge_cells(plan, cells not None, stamp):
    """One cell of several, none of which counts a record that another counts. Raises CorruptionError, and InternalError for none."""
    cdef State state = State(layout_of(plan))
    cdef uint64_t checked = check_stamp(stamp)
    cdef bytes cell, out
    if not cells:
        raise InternalError("there is no cell to merge")
    for cell in cells:
        state.read(cell)
    out = PyBytes_FromStringAndSize(NULL, state.layout.largest)
    return out[:state_write(state.layout, state.slots, checked, <uint8_t *>PyBytes_AS_STRING(out))]


def saturate(total):
    """A sum in 64 bits, and whether it had to be cut to fit."""
    value = min(max(total, INT64_MIN), INT64_MAX)
    return value, value != total


# Row keys


cdef uint8_t *put_number(uint8_t *out, int64_t value) noexcept nogil:
    """Write a number's key form, at most 9 bytes; the place after it."""
    # one's complement turns a negative number's order around, so that its bytes sort as it does
    cdef uint64_t size = <uint64_t>value if value >= 0 else 0 - <uint64_t>value
    cdef uint64_t word = size if value >= 0 else ~size
    cdef int length = 0
    while size > 0:
        length += 1
        size >>= 8
    out[0] = <uint8_t>(128 + length if value >= 0 else 128 - length)
    out += 1
    while length > 0:
        length -= 1
        out[0] = <uint8_t>(word >> 8 * length & 0xFF)
        out += 1
    return out


cdef uint8_t *put_text(uint8_t *out, const uint8_t *text, size_t length) noexcept nogil:
    """Write a text's key form, at most 2 + 2 * length bytes; the place after it."""
    cdef size_t index
    out[0] = 1
    out += 1
    for index in range(length):
        if text[index] <= 1:
            out[0] = 1
            out[1] = text[index] + 1
            out += 2
        else:
            out[0] = text[index]
            out += 1
    out[0] = 0
    return out + 1


cdef bytes encode_key(field, value):
    """A canonical value in its key form."""
    cdef uint8_t number[9]
    cdef bytes text
    cdef int64_t word
    if value is None:
        return b"\0"
    if field.kind == "bool":
        return b"\2" if value else b"\1"
    if field.kind in ("string", "enum"):
        text = value.encode()
        return b"\1" + text.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1") + b"\0"
    if not INT64_MIN <= value <= INT64_MAX:
        raise InternalError(f"{value} does not fit the 64 bits of a key's number")
    word = value
    return PyBytes_FromStringAndSize(<char *>number, put_number(number, word) - number)


cdef object bad_row(bytes row, what):
    return CorruptionError(f"row key {row.hex()} {what}", hint="the table holds rows that this roll-up did not write")


cdef object decode_number(bytes row, Py_ssize_t *at):
    """The number whose tag stands at a place that is there; moves the place behind it."""
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(row)
    cdef uint8_t again[9]
    cdef int tag = data[at[0]], length = tag - 128 if tag >= 128 else 128 - tag, index
    cdef uint64_t word = 0 if tag >= 128 else <uint64_t>-1
    if length > 8 or at[0] + 1 + length > PyBytes_GET_SIZE(row):
        raise bad_row(row, "has no well-formed number")
    for index in range(length):
        word = word << 8 | data[at[0] + 1 + index]
    if tag < 128:
        word += 1
    put_number(again, <int64_t>word)
    if memcmp(again, data + at[0], 1 + length) != 0:
        raise bad_row(row, "has no well-formed number")
    at[0] += 1 + length
    return <int64_t>word


cdef object decode_text(bytes row, Py_ssize_t *at):
    """The text whose tag stands at a place that is there; moves the place behind it."""
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(row)
    cdef Py_ssize_t end = at[0] + 1, size = PyBytes_GET_SIZE(row)
    cdef bint escaped = False
    while end < size and data[end] != 0:
        if data[end] == 1:
            end += 1
            escaped = True
            if end == size or data[end] < 1 or data[end] > 2:
                raise bad_row(row, "has no well-formed text")
        end += 1
    if data[at[0]] != 1 or end >= size:
        raise bad_row(row, "has no well-formed text")
    text = row[at[0] + 1:end]
    if escaped:
        text = text.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1")
    at[0] = end + 1
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise bad_row(row, "holds text that is not UTF-8") from None


cdef object decode_key(field, bytes row, Py_ssize_t *at):
    """The value that begins at a place; moves the place behind it."""
    cdef int tag
    if at[0] >= PyBytes_GET_SIZE(row):
        raise bad_row(row, "ends early")
    tag = (<const uint8_t *>PyBytes_AS_STRING(row))[at[0]]
    if tag == 0:
        at[0] += 1
        return None
    if field.kind == "bool":
        if tag > 2:
            raise bad_row(row, f"has tag {tag} for a bool")
        at[0] += 1
        return tag == 2
    return decode_text(row, at) if field.kind in ("string", "enum") else decode_number(row, at)


def entity_prefix(field, value):
    """What all rows of an entity begin with: a byte of its hash, and its canonical value encoded."""
    cdef bytes encoded = encode_key(field, value)
    return bytes([xxh64_bytes(<const uint8_t *>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), 0) & 0xFF]) + encoded


def row_key(bytes prefix not None, breakdown, bucket, dims):
    """The row of an entity's prefix, a breakdown, a bucket of windows and the dimensions' canonical values."""
    if not (0 <= breakdown < 2**8 and 0 <= bucket < 2**32):
        raise InternalError(f"breakdown {breakdown}, bucket {bucket} do not fit a row key")
    return prefix + bytes([breakdown]) + bucket.to_bytes(4, "big") + b"".join([encode_key(field, value) for field, value in dims])


cdef tuple walk(plan, int breakdown, bytes row, Py_ssize_t *bucket):
    """The entity's value and the dimensions' values; and where the bucket stands."""
    cdef tuple fields = plan.breakdowns[breakdown].fields
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(row)
    cdef Py_ssize_t at = 1, size = PyBytes_GET_SIZE(row)
    entity = decode_key(fields[0], row, &at)
    if xxh64_bytes(data + 1, at - 1, 0) & 0xFF != data[0]:
        raise bad_row(row, "does not begin with its entity's hash")
    if size < at + 5 or data[at] != breakdown:
        raise bad_row(row, f"is not of breakdown {breakdown}")
    bucket[0] = at + 1
    at += 5
    values = [decode_key(field, row, &at) for field in fields[1:]]
    if at != size:
        raise bad_row(row, "has bytes left over")
    return entity, values


def split_row(plan, breakdown, bytes row not None):
    """The entity's value, the bucket and the dimensions' values of a row. Raises CorruptionError."""
    cdef Py_ssize_t at
    entity, values = walk(plan, breakdown, row, &at)
    return entity, int.from_bytes(row[at:at + 4], "big"), values


def row_parts(plan, breakdown, bytes row not None):
    """What stands before a row's bucket, the bucket, and what stands after it. Raises CorruptionError."""
    cdef Py_ssize_t at
    walk(plan, breakdown, row, &at)
    return row[:at], int.from_bytes(row[at:at + 4], "big"), row[at + 4:]


def column_key(bytes generation not None, window_offset, bytes shard not None):
    """The column of a window within its bucket, as one shard of a generation counts it."""
    if len(generation) != 8 or len(shard) != 12 or not 0 <= window_offset < 2**16:
        raise InternalError(f"generation {generation!r}, window offset {window_offset}, shard {shard!r} are not 8 bytes, 16 bits and 12 bytes")
    return generation + window_offset.to_bytes(2, "big") + shard


def split_column(bytes column not None):
    """The generation, the window's offset in its bucket, and the shard of a column. Raises CorruptionError."""
    if len(column) != 22:
        raise CorruptionError(f"column {column.hex()} has {len(column)} bytes, not 22", hint="the table holds columns that no roll-up wrote")
    return column[:8], int.from_bytes(column[8:10], "big"), column[10:]
