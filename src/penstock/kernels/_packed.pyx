"""The cells of a row in one piece: nothing for each of them but its bytes, which a row that is kept in memory, or asked for by the thousand, is made of.

One cell after the other, as the table orders columns: the column's length in two bytes, the column, the value's length in four, the value; lengths with the
highest byte first.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from penstock.errors import InternalError


cdef object bad_cells():
    return InternalError("the bytes are no packed cells")


def pack_cells(dict cells not None):
    """A row's values by column, in one piece. Raises InternalError for a column of 64 KiB and more, and for a value of 4 GiB."""
    cdef bytes column, value, out
    cdef Py_ssize_t size = 0, length
    cdef uint8_t *at
    for column, value in cells.items():
        if PyBytes_GET_SIZE(column) >= 1 << 16 or PyBytes_GET_SIZE(value) >= <Py_ssize_t>1 << 32:
            raise InternalError("a cell is too large to be packed")
        size += 6 + PyBytes_GET_SIZE(column) + PyBytes_GET_SIZE(value)
    out = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t *>PyBytes_AS_STRING(out)
    for column, value in cells.items():
        length = PyBytes_GET_SIZE(column)
        at[0], at[1] = <uint8_t>(length >> 8), <uint8_t>length
        memcpy(at + 2, PyBytes_AS_STRING(column), length)
        at += 2 + length
        length = PyBytes_GET_SIZE(value)
        at[0], at[1], at[2], at[3] = <uint8_t>(length >> 24), <uint8_t>(length >> 16), <uint8_t>(length >> 8), <uint8_t>length
        memcpy(at + 4, PyBytes_AS_STRING(value), length)
        at += 4 + length
    return out


def unpack_cells(bytes packed not None):
    """The values by column. Raises InternalError for other bytes."""
    cdef cells_t cells = cells_of(packed)
    cdef cell_t cell
    cdef dict found = {}
    while next_cell(&cells, &cell):
        column = PyBytes_FromStringAndSize(<const char *>cell.column, cell.column_size)
        found[column] = PyBytes_FromStringAndSize(<const char *>cell.value, cell.size)
    return found
