"""What is yet to be sent: batches of JSON Lines under the name that they are sent with, in a folder that survives the program, or in memory.

FOLDER/lock                       held by the program whose spool it is
FOLDER/000000000001-<name>.open   the batch that events are added to
FOLDER/000000000001-<name>.ready  whole, and not sent yet
FOLDER/000000000001-<name>.tried  sent at least once; its modification time says when first
FOLDER/refused/…                  what the server will never take, and why (.reason)
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import time
import uuid
from pathlib import Path

from penstock.errors import ConfigurationError

SYNCS = ("none", "batch", "event")
_OPEN, _READY, _TRIED = ".open", ".ready", ".tried"


@dataclasses.dataclass
class Batch:
    """Events that are sent together, always the same under one name. number: counts up. tried: when it was first sent, seconds since 1970; 0 if it was not."""

    number: int
    name: str
    events: int
    size: int
    tried: float = 0.0
    path: Path | None = None
    lines: list[bytes] = dataclasses.field(default_factory=list)

    def body(self) -> bytes:
        """Its events, one a line."""
        return b"".join(self.lines) if self.path is None else self.path.read_bytes()


class MemorySpool:
    """A spool that ends with the program. Not for several threads at a time."""

    def __init__(self) -> None:
        self.ready: collections.deque[Batch] = collections.deque()
        self.open: Batch | None = None
        self.size = 0
        self._number = 0

    def add(self, line: bytes) -> Batch:
        """Add an event, a line with its end, to the open batch."""
        batch = self.open or self._new()
        self._write(batch, line)
        self.open = batch
        batch.events += 1
        batch.size += len(line)
        self.size += len(line)
        return batch

    def seal(self) -> None:
        """Let nothing more be added to the open batch: it may be sent."""
        if self.open is not None:
            self._seal(self.open)
            self.ready.append(self.open)
            self.open = None

    def trying(self, batch: Batch) -> None:
        """The batch is about to be sent."""
        batch.tried = batch.tried or time.time()

    def remove(self, batch: Batch) -> None:
        """The batch was answered for."""
        self.ready.remove(batch)
        self.size -= batch.size

    def refuse(self, batch: Batch, reason: str) -> str:
        """The batch will never be taken. Says where it is kept."""
        self.remove(batch)
        return "nowhere: there is no spool folder"

    def close(self) -> None:
        """Let go of files."""

    def _new(self) -> Batch:
        self._number += 1
        return Batch(self._number, uuid.uuid4().hex, 0, 0)

    def _write(self, batch: Batch, line: bytes) -> None:
        batch.lines.append(line)

    def _seal(self, batch: Batch) -> None:
        pass


class DiskSpool(MemorySpool):
    """A spool in a folder. sync: "none" (what the system has not written yet is lost with the machine, not with the program), "batch" or "event".

    Raises ConfigurationError for a folder that cannot be used, or that is another program's just now.
    """

    def __init__(self, folder: str | os.PathLike[str], sync: str) -> None:
        super().__init__()
        if sync not in SYNCS:
            raise ConfigurationError(f"sync={sync!r} is unknown", hint=f"use one of {', '.join(SYNCS)}")
        self.folder, self._sync, self._descriptor = Path(folder), sync, -1
        try:
            (self.folder / "refused").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise ConfigurationError(f"the spool {folder} cannot be used: {problem.strerror}", hint="name a folder that is yours") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(f"the spool {folder} is another sender's", hint="give each sender a folder of its own") from None
        self._recover()

    def _recover(self) -> None:
        """Take on what an earlier program left: its open batch as far as it is whole."""
        for path in sorted(self.folder.glob("*-*.*")):
            number, _, name = path.stem.partition("-")
            if path.suffix not in (_OPEN, _READY, _TRIED) or not number.isdigit():
                continue
            data = path.read_bytes()
            if path.suffix == _OPEN:
                data = data[: data.rfind(b"\n") + 1]
                os.truncate(path, len(data))
            if not data:
                path.unlink()
                continue
            if path.suffix == _OPEN:
                path = path.rename(path.with_suffix(_READY))
            tried = path.stat().st_mtime if path.suffix == _TRIED else 0.0
            self.ready.append(Batch(int(number), name, data.count(b"\n"), len(data), tried, path))
            self.size += len(data)
            self._number = int(number)
        if self._sync != "none":
            self._sync_folder()

    def trying(self, batch: Batch) -> None:
        """See MemorySpool. It is remembered, before anything is sent, that the server may have it."""
        if not batch.tried and batch.path is not None:
            batch.path = batch.path.rename(batch.path.with_suffix(_TRIED))
            os.utime(batch.path)
            if self._sync != "none":
                self._sync_folder()
        super().trying(batch)

    def remove(self, batch: Batch) -> None:
        """See MemorySpool."""
        super().remove(batch)
        if batch.path is not None:
            batch.path.unlink(missing_ok=True)

    def refuse(self, batch: Batch, reason: str) -> str:
        """See MemorySpool."""
        assert batch.path is not None
        kept = self.folder / "refused" / batch.path.name
        kept.with_suffix(".reason").write_text(json.dumps({"reason": reason, "events": batch.events, "idempotency_key": batch.name}) + "\n")
        batch.path = batch.path.rename(kept.with_suffix(".jsonl"))
        self.ready.remove(batch)
        self.size -= batch.size
        return str(batch.path)

    def close(self) -> None:
        """See MemorySpool."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _new(self) -> Batch:
        batch = super()._new()
        batch.path = self.folder / f"{batch.number:012d}-{batch.name}{_OPEN}"
        self._descriptor = os.open(batch.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._sync == "event":
            self._sync_folder()
        return batch

    def _write(self, batch: Batch, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            if self._sync == "event":
                os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, batch.size)  # no half of a line before the next one
            raise

    def _seal(self, batch: Batch) -> None:
        if self._sync != "none":
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        assert batch.path is not None
        batch.path = batch.path.rename(batch.path.with_suffix(_READY))
        if self._sync != "none":
            self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
