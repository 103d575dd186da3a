"""Memory for many small blocks: see _arena.pxd."""
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    HEADER = 64  # bytes before a chunk's first block, so that a block of a cache line lies in one
    LEAST = 4096  # bytes of the first chunk
    MOST = 1 << 20  # bytes of a late one: each is as large as all before it, up to this

cdef extern from *:
    """
    #include <stdlib.h>
    static inline void *penstock_aligned(size_t size) { void *made; return posix_memalign(&made, 64, size) ? NULL : made; }
    """
    void *aligned "penstock_aligned"(size_t) noexcept nogil


cdef inline int class_of(size_t *size) noexcept nogil:
    """The class of the smallest block that holds `size` bytes, and its true size."""
    cdef size_t most = SMALLEST
    cdef int found = 0
    while most < size[0]:
        most *= 2
        found += 1
    size[0] = most
    return found


cdef void *arena_take(arena_t *arena, size_t size) noexcept nogil:
    """A block of at least `size` bytes, at most 64 KiB, not zeroed. NULL: no memory."""
    cdef int index
    cdef void *block
    cdef chunk_t *chunk
    cdef size_t room
    if arena == NULL:
        return malloc(size)
    index = class_of(&size)
    block = arena.free[index]
    if block != NULL:
        arena.free[index] = (<void **>block)[0]
        return block
    if <size_t>(arena.end - arena.at) < size:
        room = max(min(max(<size_t>arena.total, <size_t>LEAST), <size_t>MOST), HEADER + size)
        chunk = <chunk_t *>aligned(room)
        if chunk == NULL:
            return NULL
        chunk.next = arena.chunks
        arena.chunks, arena.at, arena.end = chunk, <uint8_t *>chunk + HEADER, <uint8_t *>chunk + room
        arena.total += room
    block = arena.at
    arena.at += size
    return block


cdef void arena_give(arena_t *arena, void *block, size_t size) noexcept nogil:
    """Give back a block (or NULL) that was taken with `size`."""
    cdef int index
    if arena == NULL:
        free(block)
    elif block != NULL:
        index = class_of(&size)
        (<void **>block)[0] = arena.free[index]
        arena.free[index] = block


cdef void arena_drop(arena_t *arena) noexcept nogil:
    """Give back all blocks; the arena is empty."""
    cdef chunk_t *chunk = arena.chunks
    cdef chunk_t *following
    while chunk != NULL:
        following = chunk.next
        free(chunk)
        chunk = following
    memset(arena, 0, sizeof(arena_t))
