"""How this process uses the heap, where it is glibc's. Elsewhere these functions do nothing.

A tuple's buffers are some MiB each: larger than what glibc gives back to the system at once, so that every tuple would fault its pages in anew; that is a sixth of
the time of a tuple. And a flush makes and frees some hundred thousand small objects, of which glibc keeps, scattered, several times what is in use.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 32 << 20  # bytes; mallopt takes no larger threshold for mmap


def _libc() -> Any:
    try:
        found = ctypes.CDLL(None)
        return found if hasattr(found, "malloc_trim") and hasattr(found, "mallopt") else None
    except OSError:
        return None


_glibc = _libc()


def tune() -> None:
    """Keep the pages of buffers up to 32 MiB for the next ones, and look for garbage cycles seldom: a flush makes none, and many objects.

    Once a process, before the first tuple.
    """
    gc.set_threshold(100_000, 50, 100)
    if _glibc is not None:
        _glibc.mallopt(_MMAP_THRESHOLD, LARGEST)
        _glibc.mallopt(_TRIM_THRESHOLD, 2 * LARGEST)


def release() -> None:
    """Return free pages to the system. Takes some milliseconds, in which other threads run."""
    if _glibc is not None:
        _glibc.malloc_trim(0)
