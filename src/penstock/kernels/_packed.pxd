"""The cells of a row in one piece, as `_packed.pyx` describes them, read in place."""
from libc.stdint cimport uint8_t
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef struct cell_t:
    const uint8_t *column
    const uint8_t *value
    Py_ssize_t column_size
    Py_ssize_t size


cdef struct cells_t:
    const uint8_t *at
    const uint8_t *end


cdef object bad_cells()


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
    if left < 6:
        raise bad_cells()
    cell.column_size = cells.at[0] << 8 | cells.at[1]
    if left < 6 + cell.column_size:
        raise bad_cells()
    cell.column = cells.at + 2
    cells.at = cell.column + cell.column_size
    cell.size = <Py_ssize_t>cells.at[0] << 24 | <Py_ssize_t>cells.at[1] << 16 | <Py_ssize_t>cells.at[2] << 8 | cells.at[3]
    cell.value = cells.at + 4
    if left < 6 + cell.column_size + cell.size:
        raise bad_cells()
    cells.at = cell.value + cell.size
    return True
