"""What a query takes of the rows it reads: the cells of its generation, of the windows that it reads of each shard."""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from penstock.errors import CorruptionError, InternalError
from penstock.kernels._cell import split_column
from penstock.kernels._cell cimport Layout, State, layout_of, open_cell, problem_of, state_free, state_merge, state_read, value_at
from penstock.kernels._packed cimport cell_t, cells_of, cells_t, next_cell
from penstock.kernels._varint cimport reader_t

cdef enum:
    GENERATION = 8
    SHARD = 12
    COLUMN = 22  # generation, the window's offset in two bytes, shard


cdef struct span_t:
    int64_t start
    int64_t stop


cdef class Wanted:
    """Which cells a query reads of a granularity.

    generation: whose. ranges: by a shard's 12 bytes, the [start, stop) of event times whose windows are read of it; those of a shard do not overlap.
    """
    cdef uint8_t generation[GENERATION]
    cdef uint8_t *shards
    cdef int *first  # of each shard's spans, and where the last's end
    cdef span_t *spans
    cdef int count, recent

    def __cinit__(self, bytes generation not None, dict ranges not None):
        cdef int at = 0, number
        cdef bytes shard
        if len(generation) != GENERATION or any(len(shard) != SHARD for shard in ranges):
            raise InternalError(f"generation {generation!r} or a shard of {list(ranges)!r} is not 8 bytes, or 12")
        self.count = len(ranges)
        self.shards = <uint8_t *>malloc(SHARD * self.count + 1)
        self.first = <int *>malloc((self.count + 1) * sizeof(int))
        self.spans = <span_t *>malloc(sum(map(len, ranges.values())) * sizeof(span_t) + 1)
        if self.shards == NULL or self.first == NULL or self.spans == NULL:
            raise MemoryError()
        memcpy(self.generation, PyBytes_AS_STRING(generation), GENERATION)
        for number, (shard, spans) in enumerate(ranges.items()):
            memcpy(self.shards + SHARD * number, PyBytes_AS_STRING(shard), SHARD)
            self.first[number] = at
            for start, stop in spans:
                self.spans[at] = span_t(start, stop)
                at += 1
        self.first[self.count] = at

    def __dealloc__(self):
        free(self.shards)
        free(self.first)
        free(self.spans)

    cdef bint takes(self, cell_t *cell, int64_t base, int64_t width, int64_t *time) except -1:
        """Whether a cell is read, and where its window starts. Raises CorruptionError for a column that no roll-up wrote."""
        cdef int tried, number = self.recent, at
        if cell.column_size != COLUMN:
            split_column(PyBytes_FromStringAndSize(<const char *>cell.column, cell.column_size))
        if memcmp(cell.column, self.generation, GENERATION) != 0:
            return False
        for tried in range(self.count):  # most rows are of the shard that the one before was of
            if memcmp(cell.column + COLUMN - SHARD, self.shards + SHARD * number, SHARD) == 0:
                break
            number = number + 1 if number + 1 < self.count else 0
        else:
            return False
        self.recent = number
        time[0] = base + (cell.column[GENERATION] << 8 | cell.column[GENERATION + 1]) * width
        for at in range(self.first[number], self.first[number + 1]):
            if self.spans[at].start <= time[0] < self.spans[at].stop:
                return True
        return False


cdef class Starts:
    """Where an answer's windows start, in order. step: they are so far apart, all of them; 0 where that differs."""
    cdef int64_t *starts
    cdef int64_t step
    cdef Py_ssize_t count

    def __cinit__(self, starts not None, int64_t step):
        cdef Py_ssize_t at
        self.count, self.step = len(starts), step
        if self.count == 0 or step < 0:
            raise InternalError("there is no window")
        self.starts = <int64_t *>malloc((1 if step else self.count) * sizeof(int64_t))
        if self.starts == NULL:
            raise MemoryError()
        for at in range(1 if step else self.count):
            self.starts[at] = starts[at]

    def __dealloc__(self):
        free(self.starts)

    cdef Py_ssize_t place(self, int64_t time) except -1:
        """Which window an event time lies in. Raises InternalError for one before the first; the last has no end unless there is a step."""
        cdef Py_ssize_t low = 0, high = self.count, middle
        if self.step:
            low = (time - self.starts[0]) // self.step
        if time < self.starts[0] or low >= self.count:
            raise InternalError(f"event time {time} lies in no window of the answer")
        if self.step:
            return low
        while high - low > 1:
            middle = (low + high) // 2
            if self.starts[middle] <= time:
                low = middle
            else:
                high = middle
        return low

    cdef int64_t start(self, Py_ssize_t place) noexcept:
        return self.starts[0] + place * self.step if self.step else self.starts[place]


def select_cells(dict groups not None, group, bytes packed not None, int64_t base, int64_t width, Wanted wanted not None, Starts starts not None):
    """Add the cells of a row that a query reads to the lists of their windows.

    groups: by (where the answer's window starts, group), the cells so far. packed: the row's cells, see `pack_cells`. base, width: where the row's first window
    starts, and how long each is. Raises CorruptionError for a column that no roll-up wrote.
    """
    cdef cells_t cells = cells_of(packed)
    cdef cell_t cell
    cdef int64_t time = 0
    cdef list found
    while next_cell(&cells, &cell):
        if wanted.takes(&cell, base, width, &time):
            key = starts.start(starts.place(time)), group
            value = PyBytes_FromStringAndSize(<const char *>cell.value, cell.size)
            found = groups.get(key)
            if found is None:
                groups[key] = [value]
            else:
                found.append(value)


cdef class Series:
    """The merged state of each window of an answer that has no groups.

    No cell that is added counts a record that another counts. cells: how many were added.
    """
    cdef Layout layout
    cdef Starts starts
    cdef int64_t *slots
    cdef readonly Py_ssize_t cells

    def __cinit__(self, plan, Starts starts not None):
        self.layout, self.starts = layout_of(plan), starts
        self.slots = <int64_t *>calloc(starts.count * self.layout.slots + 1, sizeof(int64_t))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef Py_ssize_t at
        if self.slots != NULL:
            if self.layout.sketched:
                for at in range(self.starts.count):
                    state_free(self.layout, self.slots + at * self.layout.slots)
            free(self.slots)

    def add(self, bytes packed not None, int64_t base, int64_t width, Wanted wanted not None):
        """Merge the cells of a row that a query reads into the windows. As `select_cells`; raises CorruptionError for a damaged cell as well."""
        cdef cells_t cells = cells_of(packed)
        cdef cell_t cell
        cdef int64_t time = 0
        while next_cell(&cells, &cell):
            if wanted.takes(&cell, base, width, &time):
                self.merge(&cell, self.starts.place(time))
                self.cells += 1

    cdef int merge(self, cell_t *cell, Py_ssize_t place) except -1:
        cdef reader_t reader
        cdef uint64_t stamp
        open_cell(cell.value, cell.size, &reader, &stamp)
        if state_read(self.layout, self.slots + place * self.layout.slots, &reader) < 0:
            raise problem_of(cell.value, &reader)
        return 0

    def total(self):
        """For each stored measure, in order, its value over all windows, in a list. Not after `columns`. Raises CorruptionError where a sum overflows."""
        cdef State state = State(self.layout)
        cdef const char *problem = NULL
        cdef Py_ssize_t at
        cdef int code
        for at in range(self.starts.count):
            code = state_merge(self.layout, state.slots, self.slots + at * self.layout.slots, &problem)
            if code == -1:
                raise CorruptionError(f"cells are corrupt: {problem.decode()}", hint="nothing of them is used; rebuild their windows from the archive")
            if code < 0:
                raise MemoryError()
        return [[value_at(self.layout, state.slots, index)] for index in range(self.layout.count)]

    def columns(self):
        """For each stored measure, in order, its value in every window, as `decode_cell` has them. Once: sketches go to the caller."""
        cdef Py_ssize_t at
        cdef int index
        cdef list columns = [], values
        for index in range(self.layout.count):
            values = [None] * self.starts.count
            for at in range(self.starts.count):
                values[at] = value_at(self.layout, self.slots + at * self.layout.slots, index)
            columns.append(values)
        return columns
