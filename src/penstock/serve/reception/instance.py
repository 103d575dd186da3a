"""A server process, and whether another one still lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from pathlib import Path
from typing import Callable

_KEPT = 7 * 86_400  # seconds that the file of a dead process is kept


class Instance:
    """This process, by a name of its own. A file below `folder`, locked while it lives, tells other processes of this machine whether it does.

    settle: microseconds that what a dead process had sent may still be under way: 0 for a log on this machine. now: the wall clock, microseconds.
    """

    def __init__(self, folder: Path, now: Callable[[], int], *, settle: int) -> None:
        self.id, self.settle = uuid.uuid4().bytes, settle
        self._folder, self._now = folder, now
        self._dead: dict[bytes, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._tidy()
        self._lock = os.open(self._path(self.id), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def dead_since(self, id: bytes) -> int | None:
        """When another process was first found to be dead; None where it lives or is not of this machine."""
        if id not in self._dead:
            if not _free(self._path(id)):
                return None
            self._dead[id] = self._now()
        return self._dead[id]

    def close(self) -> None:
        """Not alive any more. The file stays for those who ask."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _path(self, id: bytes) -> Path:
        return self._folder / f"{id.hex()}.lock"

    def _tidy(self) -> None:
        for path in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _KEPT and _free(path):
                    path.unlink()


def _free(path: Path) -> bool:
    """Whether a lock file is there and nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask at once must not take each other for it
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
