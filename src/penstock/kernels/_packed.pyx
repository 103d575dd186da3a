"""The cells of a row in one piece: nothing for each of them but its bytes, which a row that is kept in memory, or asked for by the thousand, is made of.

One cell after the other, as the table orders columns: the column's length in two bytes, the column, the value's length in four, the value; lengths with the
highest byte first.
"""
from libc.stdint cimport uint8_t
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from penstock.errors import InternalError


cdef object bad_cells():
    return InternalError("the bytes are no packed cells")


def pack_cells(dict cells not None):
    """A row's values by column, in one piece. Raises InternalError for a column of 64 KiB and more, and for a value of 4 GiB."""
    cdef bytes column, value, out
    cdef Py_ssize_t size = 0
    cdef uint8_t *at
    for column, value in cells.items():
        if PyBytes_GET_SIZE(column) > LONGEST or PyBytes_GET_SIZE(value) >= <Py_ssize_t>1 << 32:
            raise InternalError("a cell is too large to be packed")
        size += CELL + PyBytes_GET_SIZE(column) + PyBytes_GET_SIZE(value)
    out = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t *>PyBytes_AS_STRING(out)
    for column, value in cells.items():
        at = put_cell(at, <const uint8_t *>PyBytes_AS_STRING(column), PyBytes_GET_SIZE(column),
                      <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
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
