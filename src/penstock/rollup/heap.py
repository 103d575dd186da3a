"""Gives memory that a flush has freed back to the system.

A flush makes and frees some hundred thousand small objects; what glibc keeps of them for the next time lies scattered and grows, run after run, to
several times what is in use. Where there is no glibc this does nothing.
"""
from __future__ import annotations

import ctypes
from typing import Callable


def _find() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


_trim = _find()


def release() -> None:
    """Return free pages of the heap. Takes some milliseconds, in which other threads run."""
    if _trim is not None:
        _trim(0)
