"""Memory for many small blocks that grow by doubling and are all given back at once: no header, no call to malloc a block.

Zeroed memory is an empty arena. Where a function takes an arena, NULL means malloc and free.
"""
from libc.stdint cimport int64_t, uint8_t

cdef enum:
    SMALLEST = 32  # bytes of a block
    CLASSES = 12  # sizes of a block: SMALLEST, twice that, and so on, to 64 KiB

cdef struct chunk_t:
    chunk_t *next

cdef struct arena_t:
    chunk_t *chunks
    uint8_t *at  # what is left of the newest chunk
    uint8_t *end
    void *free[CLASSES]  # blocks given back, by size; each begins with the address of the next
    int64_t total  # bytes of all chunks


cdef inline int64_t arena_taken(const arena_t *arena) noexcept nogil:
    """Bytes of the chunks, but for what is left of the newest."""
    return arena.total - (arena.end - arena.at)


cdef void *arena_take(arena_t *arena, size_t size) noexcept nogil
cdef void arena_give(arena_t *arena, void *block, size_t size) noexcept nogil
cdef void arena_drop(arena_t *arena) noexcept nogil
