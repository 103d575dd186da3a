"""The places of a record that somebody wants, and which key comes after which.

A decoder finds its way by comparing the key that it is at with the one that followed the key before in an earlier record; only where that fails does it look
the key up. What is remembered changes how fast a record is read, never what is read.
"""
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from penstock.kernels._values cimport unescape


cdef class Places:
    """The wanted paths as a tree, what was found at each in the record at hand, and the keys seen before."""

    def __cinit__(self):
        self.nodes = NULL
        self.tokens = NULL
        self.keys = NULL
        self.scratch = NULL

    def __dealloc__(self):
        free(self.nodes)
        free(self.tokens)
        free(self.keys)
        free(self.scratch)

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
            self.keys[number].count = 1
        return numbers

    cdef make_room(self, int64_t longest):
        """Have room to decode a text of `longest` bytes."""
        free(self.scratch)
        self.scratch = <uint8_t *>malloc(longest + 1)
        if self.scratch == NULL:
            raise MemoryError

    cdef int find(self, int parent, const uint8_t *name, int64_t length) noexcept nogil:
        """The node of a key of an object, -1 where it is not wanted."""
        cdef int i
        for i in range(parent + 1, self.nodes[parent].last + 1):
            if self.nodes[i].parent == parent and self.nodes[i].length == length and memcmp(self.nodes[i].name, name, length) == 0:
                return i
        return -1

    cdef Entry *learn(self, int parent, Entry *before, const uint8_t *raw, int64_t raw_length, const uint8_t *name, int64_t length, int *node) noexcept nogil:
        """Look a key up that was not the expected one, and expect it here from now on. Returns its entry; `before` where it is too long to have one.

        Only speed depends on what is remembered. A table that is full is begun anew: records whose keys are data must not keep out the rest.
        """
        cdef Keys *keys = &self.keys[self.nodes[parent].inner]
        cdef Entry *entry
        cdef int i
        if raw_length > RAW_KEY:
            node[0] = self.find(parent, name, length)
            return before
        for i in range(1, keys.count):
            entry = &keys.entries[i]
            if entry.length == raw_length and memcmp(entry.raw, raw, raw_length) == 0:
                before.following = <int16_t>i
                node[0] = entry.node
                return entry
        if keys.count == KEYS:
            keys.count = 1
            keys.entries[0].following = 0
            before = &keys.entries[0]
        entry = &keys.entries[keys.count]
        memset(entry.raw, 0, RAW_KEY)
        memcpy(entry.raw, raw, raw_length)
        entry.length = <uint32_t>raw_length
        entry.node = <int16_t>self.find(parent, name, length)
        entry.following = 0
        before.following = <int16_t>keys.count
        keys.count += 1
        node[0] = entry.node
        return entry

    cdef void forget(self, int first, int last) noexcept nogil:
        """Nothing was found at these nodes (yet, or any more: an earlier duplicate held it)."""
        cdef int i
        for i in range(first, last + 1):
            self.tokens[i].shape = ABSENT

    cdef int find_escaped(self, int parent, const uint8_t *name, int64_t length) noexcept nogil:
        """The node of a JSON key that is written with escapes."""
        cdef int64_t decoded = unescape(name, length, self.scratch)
        return -1 if decoded < 0 else self.find(parent, self.scratch, decoded)
