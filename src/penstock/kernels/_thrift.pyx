"""Rows of HBase's Thrift interface, read from the answer's bytes as they come: a row's cells in one piece, and no object for each of them.

The layout is Thrift's binary protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-binary-protocol.md) and the interface `list<TRowResult>` of
HBase's Hbase.thrift.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from penstock.kernels._packed cimport CELL, LONGEST, put_cell
from penstock.kernels._packed import pack_cells, unpack_cells

cdef enum:
    I64 = 10
    STRING = 11
    STRUCT = 12
    MAP = 13
    LIST = 15

cdef struct bytes_t:
    const uint8_t *at
    const uint8_t *end


cdef inline int32_t big(const uint8_t *at) noexcept nogil:
    return <int32_t>(<uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3])


cdef inline int take(bytes_t *source, Py_ssize_t size, const uint8_t **found) except -1:
    """The next so many bytes. 0: they are not all there yet."""
    if size < 0:
        raise ValueError("a length is negative")
    if source.end - source.at < size:
        return 0
    found[0] = source.at
    source.at += size
    return 1


cdef inline int take_text(bytes_t *source, const uint8_t **found, Py_ssize_t *length) except -1:
    cdef const uint8_t *head
    if not take(source, 4, &head):
        return 0
    length[0] = big(head)
    return take(source, length[0], found)


cdef inline int take_field(bytes_t *source, int *kind, int *number) except -1:
    """A field's type and number; type 0 at a struct's end."""
    cdef const uint8_t *head
    if not take(source, 1, &head):
        return 0
    kind[0] = head[0]
    if kind[0] == 0:
        return 1
    if not take(source, 2, &head):
        return 0
    number[0] = head[0] << 8 | head[1]
    return 1


cdef inline bint less(const uint8_t *one, Py_ssize_t length, const uint8_t *other, Py_ssize_t other_length) noexcept nogil:
    cdef int order = memcmp(one, other, min(length, other_length))
    return order < 0 or (order == 0 and length < other_length)


cdef class RowsReply:
    """The answer to a call that gives `list<TRowResult>`. method: the call's name. skip: bytes that are cut off the front of each column's name ("family:").

    rows: (row, its cells as of `pack_cells`, in the order of the columns' bytes), one a result; so far, until `feed` says that it is whole. rest: what was fed and not
    yet read; once it is whole, what came behind it. size: bytes that were fed.
    """
    cdef readonly list rows
    cdef readonly bytes rest
    cdef readonly Py_ssize_t size
    cdef readonly bint begun
    cdef bytes method
    cdef Py_ssize_t skip
    cdef int64_t left

    def __cinit__(self, bytes method not None, Py_ssize_t skip):
        self.method, self.skip, self.rows, self.rest, self.left = method, skip, [], b"", -1

    def feed(self, bytes data not None):
        """Read on. True: it is whole. Raises ValueError for other bytes; as long as it has not `begun`, they are an answer of another kind, and all in `rest`."""
        cdef bytes buffer = self.rest + data if self.rest else data
        cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(buffer)
        cdef bytes_t source
        cdef const uint8_t *head
        cdef bint whole = False
        source.at, source.end = begin, begin + PyBytes_GET_SIZE(buffer)
        self.rest = buffer
        self.size += PyBytes_GET_SIZE(data)
        if not self.begun:
            if not self.read_head(&source):
                return False
            self.begun = True
        head = source.at
        while self.left > 0 and self.read_row(&source):
            head = source.at
            self.left -= 1
        source.at = head
        if self.left == 0 and take(&source, 1, &head):
            if head[0] != 0:
                raise ValueError("another field follows the rows")
            whole = True
        self.rest = PyBytes_FromStringAndSize(<const char *>source.at, source.end - source.at)
        return whole

    cdef int read_head(self, bytes_t *source) except -1:
        """Up to the first row. 0: it is not all there yet."""
        cdef const uint8_t *head
        cdef const uint8_t *name
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self.method)
        cdef int kind = 0, number = 0
        if not take(source, 8, &head):
            return 0
        if big(head) != <int32_t>0x80010002 or big(head + 4) != length:
            raise ValueError("it is no reply to that call")
        if not take(source, length + 4, &name):
            return 0
        if memcmp(name, PyBytes_AS_STRING(self.method), length) != 0:
            raise ValueError("it is no reply to that call")
        if not take_field(source, &kind, &number):
            return 0
        if kind != LIST or number != 0:
            raise ValueError("it is no list")
        if not take(source, 5, &head):
            return 0
        if head[0] != STRUCT and big(head + 1) != 0 or big(head + 1) < 0:
            raise ValueError("it is no list of rows")
        self.left = big(head + 1)
        return 1

    cdef int read_row(self, bytes_t *source) except -1:
        """A row into `rows`. 0: it is not all there yet."""
        cdef const uint8_t *text
        cdef Py_ssize_t length = 0, size = 0
        cdef int kind = 0, number = 0
        cdef bytes row = b"", packed = b""
        cdef bint ordered = True
        cdef bytes_t columns
        while True:
            if not take_field(source, &kind, &number):
                return 0
            if kind == 0:
                break
            if kind == STRING and number == 1:
                if not take_text(source, &text, &length):
                    return 0
                row = PyBytes_FromStringAndSize(<const char *>text, length)
            elif kind == MAP and number == 2:
                columns, size, ordered = source[0], 0, True
                if not self.read_columns(source, NULL, &size, &ordered):  # once to know how long it gets, once to put it there
                    return 0
                packed = PyBytes_FromStringAndSize(NULL, size)
                self.read_columns(&columns, <uint8_t *>PyBytes_AS_STRING(packed), &size, &ordered)
                if not ordered:
                    packed = pack_cells(dict(sorted(unpack_cells(packed).items())))
            else:
                raise ValueError(f"a row has a field {number} of type {kind}")
        self.rows.append((row, packed))
        return 1

    cdef int read_columns(self, bytes_t *source, uint8_t *out, Py_ssize_t *size, bint *ordered) except -1:
        """A row's cells, packed, where there is a place for them; how long that is, and whether they came in order. 0: they are not all there yet."""
        cdef const uint8_t *column
        cdef const uint8_t *value
        cdef const uint8_t *before = NULL
        cdef Py_ssize_t length = 0, length_before = 0, value_length = 0
        cdef int32_t count
        if not take(source, 6, &column):
            return 0
        count = big(column + 2)
        if count != 0 and (column[0] != STRING or column[1] != STRUCT):
            raise ValueError("a row's columns are no map of cells")
        while count > 0:
            count -= 1
            if not take_text(source, &column, &length):
                return 0
            if length < self.skip:
                raise ValueError("a column has no family")
            column, length = column + self.skip, length - self.skip
            if length > LONGEST:
                raise ValueError("a column is too long")
            value = NULL
            if not self.read_cell(source, &value, &value_length):
                return 0
            if value == NULL:
                continue
            ordered[0] = ordered[0] and (before == NULL or less(before, length_before, column, length))
            before, length_before = column, length
            if out == NULL:
                size[0] += CELL + length + value_length
            else:
                out = put_cell(out, column, length, value, value_length)
        return 1

    cdef int read_cell(self, bytes_t *source, const uint8_t **value, Py_ssize_t *length) except -1:
        """A cell's value, where it has one. 0: it is not all there yet."""
        cdef const uint8_t *text
        cdef int kind = 0, number = 0
        while True:
            if not take_field(source, &kind, &number):
                return 0
            if kind == 0:
                return 1
            if kind == STRING and number == 1:
                if not take_text(source, value, length):
                    return 0
            elif kind == I64 and number == 2:
                if not take(source, 8, &text):
                    return 0
            else:
                raise ValueError(f"a cell has a field {number} of type {kind}")
