"""The cells of a row in one piece, as `_packed.pyx` describes them, read in place."""
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef enum:
    CELL = 6  # bytes of a cell beside its column and its value
    LONGEST = 0xFFFF  # of a column


cdef struct cell_t:
    const uint8_t *column
    const uint8_t *value
    Py_ssize_t column_size
    Py_ssize_t size


cdef struct cells_t:
    const uint8_t *at
    const uint8_t *end


cdef object bad_cells()


cdef inline uint8_t *put_cell(uint8_t *out, const uint8_t *column, Py_ssize_t column_size, const uint8_t *value, Py_ssize_t size) noexcept nogil:
    """Write a cell, of CELL bytes and its column's and value's; the place after it."""
    out[0], out[1] = <uint8_t>(column_size >> 8), <uint8_t>column_size
    memcpy(out + 2, column, column_size)
    out += 2 + column_size
    out[0], out[1], out[2], out[3] = <uint8_t>(size >> 24), <uint8_t>(size >> 16), <uint8_t>(size >> 8), <uint8_t>size
    memcpy(out + 4, value, size)
    return out + 4 + size


cdef inline cells_t cells_of(bytes packed) noexcept:
    cdef cells_t cells
    cells.at = <const uint8_t *>PyBytes_AS_STRING(packed)
    cells.end = cells.at + PyBytes_GET_SIZE(packed)
    return cells


cdef inline bint next_cell(cells_t *cells, cell_t *cell) except -1:
    """The next cell, which lies in the row's bytes; False at their end. Raises InternalError for other bytes."""
    cdef Py_ssize_t left = cells.end - cells.at
    if left == 0:
        return False
    if left < CELL:
        raise bad_cells()
    cell.column_size = cells.at[0] << 8 | cells.at[1]
    if left < CELL + cell.column_size:
        raise bad_cells()
    cell.column = cells.at + 2
    cells.at = cell.column + cell.column_size
    cell.size = <Py_ssize_t>cells.at[0] << 24 | <Py_ssize_t>cells.at[1] << 16 | <Py_ssize_t>cells.at[2] << 8 | cells.at[3]
    cell.value = cells.at + 4
    if left < CELL + cell.column_size + cell.size:
        raise bad_cells()
    cells.at = cell.value + cell.size
    return True
