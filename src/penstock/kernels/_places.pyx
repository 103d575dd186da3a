"""The places of a record that somebody wants, and which key comes after which.

A decoder finds its way by comparing the key that it is at with the one that followed the key before in an earlier record; only where that fails does it look
the key up. What is remembered changes how fast a record is read, never what is read.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from penstock.kernels._bytes cimport PAD
from penstock.kernels._values cimport unescape

cdef int64_t NOWHERE = INT64_MAX  # the length of what no record is long enough for


cdef class Places:
    """The wanted paths as a tree, what was found at each in the record at hand, and the keys seen before."""

    def __cinit__(self):
        self.nodes = NULL
        self.tokens = NULL
        self.keys = NULL
        self.scratch = NULL
        self.padded = NULL

    def __dealloc__(self):
        free(self.nodes)
        free(self.tokens)
        free(self.keys)
        free(self.scratch)
        free(self.padded)

    cdef lay_out(self, wanted):
        """Lay wanted paths out as nodes in depth-first order, so that a node's descendants follow it. Returns path to node. Once."""
        found = sorted({path[:length] for path in wanted for length in range(len(path) + 1)} | {()})
        numbers = {path: number for number, path in enumerate(found)}
        parents = {path: path[:len(path) - 1] for path in found if path}
        inner = sorted({*parents.values(), ()})
        self._names = []  # the bytes that the nodes point to
        self.places = len(found)
        self.nodes = <Node *>calloc(len(found), sizeof(Node))
        self.tokens = <Token *>calloc(len(found), sizeof(Token))
        self.keys = <Keys *>calloc(len(inner), sizeof(Keys))
        if self.nodes == NULL or self.tokens == NULL or self.keys == NULL:
            raise MemoryError
        cdef Node *node
        cdef bytes text
        cdef int number
        for path, number in numbers.items():
            node = &self.nodes[number]
            node.parent = numbers[parents[path]] if path else -1
            text = path[len(path) - 1].encode() if path else b""
            self._names.append(text)
            node.name = <const uint8_t *><const char *>text
            node.length = len(text)
            node.inner = inner.index(path) if path in inner else -1
            node.last = max(other for at, other in numbers.items() if at[:len(path)] == path)
        for number in range(len(inner)):
            self._begin(&self.keys[number])
        return numbers

    cdef make_room(self, int64_t longest):
        """Have room to decode a text of `longest` bytes, and to pad a record of that length."""
        free(self.scratch)
        free(self.padded)
        self.scratch = <uint8_t *>calloc(longest + PAD, 1)
        self.slot = longest + 2 * PAD
        self.padded = <uint8_t *>calloc(2 * self.slot, 1)
        if self.scratch == NULL or self.padded == NULL:
            raise MemoryError

    cdef const uint8_t *copy(self, int which, const uint8_t *start, int64_t length) noexcept nogil:
        """A padded copy of what has too little around it. See `padded`."""
        cdef uint8_t *copy = self.padded + which * self.slot + PAD
        memcpy(copy, start, length)
        memset(copy + length, 0, PAD)
        return copy

    cdef void _begin(self, Keys *keys) noexcept nogil:
        """Expect nothing."""
        cdef int i
        for i in range(FIRST_KEY):
            keys.entries[i].length = NOWHERE
            keys.entries[i].following = &keys.entries[BEGIN]
        keys.count = FIRST_KEY

    cdef int find(self, int parent, const uint8_t *name, int64_t length) noexcept nogil:
        """The node of a key of an object, -1 where it is not wanted."""
        cdef int i
        for i in range(parent + 1, self.nodes[parent].last + 1):
            if self.nodes[i].parent == parent and self.nodes[i].length == length and memcmp(self.nodes[i].name, name, length) == 0:
                return i
        return -1

    cdef Entry *learn(self, int parent, Entry *before, const uint8_t *raw, int64_t raw_length, const uint8_t *name, int64_t length, int *node) noexcept nogil:
        """Look a key up that was not the expected one, and expect it behind `before` from now on. Returns its entry, or that of all keys that have none.

        raw: the key as it stands in the record, with all around it that is to be compared along with it; what is expected at the beginning of an object
        and what elsewhere must not be mistaken for each other. A table that is full is begun anew: records whose keys are data must not keep out the rest.
        """
        cdef Keys *keys = &self.keys[self.nodes[parent].inner]
        cdef Entry *entry
        cdef int i
        if raw_length > RAW_KEY:
            node[0] = self.find(parent, name, length)
            return &keys.entries[LOST]
        for i in range(FIRST_KEY, keys.count):
            entry = &keys.entries[i]
            if entry.length == raw_length and memcmp(entry.raw, raw, raw_length) == 0:
                before.following = entry
                node[0] = entry.node
                return entry
        if keys.count == KEYS:
            self._begin(keys)
            if before != &keys.entries[BEGIN]:
                before = &keys.entries[LOST]
        entry = &keys.entries[keys.count]
        memset(entry.raw, 0, RAW_KEY)
        memcpy(entry.raw, raw, raw_length)
        entry.mask = <uint32_t>((<uint64_t>1 << raw_length) - 1)
        entry.length = raw_length
        entry.node = self.find(parent, name, length)
        entry.following = &keys.entries[BEGIN]
        before.following = entry
        keys.count += 1
        node[0] = entry.node
        return entry

    cdef int find_escaped(self, int parent, const uint8_t *name, int64_t length) noexcept nogil:
        """The node of a JSON key that is written with escapes."""
        cdef int64_t decoded = unescape(name, length, self.scratch)
        return -1 if decoded < 0 else self.find(parent, self.scratch, decoded)
