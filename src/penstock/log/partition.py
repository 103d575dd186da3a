"""One partition of a local log: a directory of segments, their durable bounds and a lock.

Who appends holds the lock for that one call, so that several processes may take turns. What is appended is synced before it is published in
`bounds`, and nobody reads beyond `bounds`: a power loss takes back nothing that was read. Whoever holds the lock first looks whether the last one
was killed: what stands behind the published end is published where it is whole, and cut off where it is torn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, Sequence

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, OutOfRangeError, UnavailableError
from penstock.log import Chunk
from penstock.log.batches import POSITION, SIZE, check_batches, chunk_of, first_at, fitting, holding, rebased
from penstock.log.bounds import Bounds
from penstock.log.segment import SUFFIX, Segment, segment_name

_PIECES = 1000  # of one writev; the kernel takes 1024
_CURSORS = 8  # places remembered where readers go on
_OPEN_SEGMENTS = 4


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Partition:
    """Reads and appends to one partition. Threads may share it.

    segment_bytes: a segment that has reached this is followed by a new one. lock_timeout: seconds to wait while another process appends.
    still_there: raises NotFoundError if the topic was deleted; called under the lock, it must close nothing.
    """

    def __init__(self, directory: Path, *, segment_bytes: int, lock_timeout: float, still_there: Callable[[], None]) -> None:
        self.directory, self._segment_bytes, self._lock_timeout, self._still_there = directory, segment_bytes, lock_timeout, still_there
        self._guard, self._closed = threading.RLock(), False
        self._bounds = os.open(directory / "bounds", os.O_RDWR | os.O_CLOEXEC)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        self._segments: dict[int, Segment] = {}
        self._firsts: list[int] = []
        self._cursors: dict[int, tuple[int, int]] = {}  # offset: segment, position
        self._recover_if_idle()

    @classmethod
    def create(cls, directory: Path) -> None:
        """Make the files of an empty partition, durably."""
        directory.mkdir()
        for name in ("bounds", "lock", segment_name(0)):
            descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            if name == "bounds":
                Bounds(0, 0, 0, 0).write(descriptor)
            os.fsync(descriptor)
            os.close(descriptor)
        sync_directory(directory)

    def bounds(self) -> Bounds:
        """What can be read just now."""
        with self._opened():
            found = Bounds.read(self._bounds)
            if found is None:  # damaged: only the segments can tell
                with self.locked():
                    found = self._recover()
            return found

    def read(self, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """See Log.read."""
        with self._opened():
            bounds = self.bounds()
            if offset > bounds.end:
                self._recover_if_idle()  # a power loss may have left `bounds` behind what is durable
                bounds = self.bounds()
            if not 0 <= offset <= bounds.end:
                raise OutOfRangeError(
                    f"{self.directory}: offset {offset} is not between {bounds.start} and the end, {bounds.end}",
                    hint="the log was truncated or replaced since that position was taken",
                )
            if offset < bounds.start:
                return Chunk(offset, bounds.start, (), ((offset, bounds.start),), b"")
            if offset == bounds.end:
                return None
            try:
                first, position, limit, segment = self._find(offset, bounds)
            except FileNotFoundError:
                self._check_retention(bounds)
                return self.read(offset, max_bytes, max_offsets)
            data, rows = segment.read(position, limit, max_bytes)
            rows = rows[: fitting(rows, offset, max_bytes, max_offsets)]
            chunk = chunk_of(offset, rows, data, position)
            self._cursors.pop(offset, None)
            self._remember(chunk.next, first, int(rows[-1, POSITION] + rows[-1, SIZE]))
            return chunk

    def offset_at(self, timestamp: int) -> int:
        """See Log.offset_at."""
        with self._opened():
            bounds = self.bounds()
            for first in self._list(bounds):
                try:
                    segment = self._open(first)
                except FileNotFoundError:
                    self._check_retention(bounds)
                    return self.offset_at(timestamp)
                limit = self._limit(segment, bounds)
                position = segment.position_at(-(-timestamp // 1000), limit)
                if position is not None:
                    data, rows = segment.read(position, limit, 0)
                    return max(bounds.start, first_at(data[: int(rows[0, SIZE])], timestamp))
            return bounds.end

    def append(self, batches: Sequence[bytes]) -> int:
        """See Log.append."""
        count = check_batches(batches)
        with self._opened(), self.locked():
            self._still_there()
            bounds = self._recover()
            if not batches:
                return bounds.end
            if bounds.position >= self._segment_bytes:
                bounds = self._roll(bounds)
            position = self._write(bounds, batches)
            dataclasses.replace(bounds, end=bounds.end + count, position=position).write(self._bounds)
            return bounds.end

    def truncate_before(self, offset: int) -> int:
        """Remove the segments that hold nothing at or beyond `offset` and return the new start."""
        with self._opened(), self.locked():
            self._still_there()
            bounds = self._recover()
            if offset >= bounds.end > bounds.segment:
                bounds = self._roll(bounds)
            firsts = self._list(bounds)
            start = max(bounds.start, firsts[max(0, holding(firsts, offset))])
            dataclasses.replace(bounds, start=start).write(self._bounds)
            os.fdatasync(self._bounds)
            for first in firsts:
                if first < start:
                    self._forget(first)
                    (self.directory / segment_name(first)).unlink()
            sync_directory(self.directory)
            self._firsts = []
            return start

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the partition's lock across processes. Raises ConfigurationError, naming the holder, when it does not come free in time."""
        deadline, pause = time.monotonic() + self._lock_timeout, 0.0005
        while not self._try_lock():
            if time.monotonic() > deadline:
                holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise ConfigurationError(
                    f"{self.directory} is being appended to by process {holder}", hint="stop that process, or wait for it"
                )
            time.sleep(pause)
            pause = min(0.02, pause * 2)
        try:
            os.pwrite(self._lock, b"%-20d" % os.getpid(), 0)
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files. Threads that still hold the partition get a NotFoundError from it."""
        with self._guard:
            self._closed = True
            for first in list(self._segments):
                self._forget(first)
            for descriptor in (self._bounds, self._lock):
                os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """One thread at a time, and none with descriptors that were closed and may by now be those of another file."""
        with self._guard:
            if self._closed:
                raise NotFoundError(
                    f"{self.directory} was closed meanwhile", hint="the topic was deleted, or the log was closed by another thread"
                )
            yield

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _recover_if_idle(self) -> None:
        if self._try_lock():
            try:
                self._recover(cut=False)
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _recover(self, cut: bool = True) -> Bounds:
        """With the lock held: the bounds, after publishing what a killed appender had written whole; what it left torn goes, if `cut`."""
        bounds = Bounds.read(self._bounds)
        known = bounds
        if bounds is None:
            firsts = self._scan()
            bounds = Bounds(firsts[0], firsts[0], firsts[0], 0)
        while True:
            segment = self._open(bounds.segment)
            size = segment.size()
            if size < bounds.position:
                raise CorruptionError(
                    f"{segment.path} has {size} bytes, but {bounds.position} were durable",
                    hint="the file was cut by something else, or the disk is failing",
                )
            if size > bounds.position:
                position, end = segment.valid_end(bounds.position, bounds.end)
                bounds = dataclasses.replace(bounds, position=position, end=end)
            if bounds.end > bounds.segment and (self.directory / segment_name(bounds.end)).exists():
                if size > bounds.position:
                    raise CorruptionError(
                        f"{segment.path} is damaged at byte {bounds.position}, and more follows",
                        hint="restore the file, or delete the topic",
                    )
                bounds = dataclasses.replace(bounds, segment=bounds.end, position=0)
                continue
            break
        if known is None and bounds.segment != self._scan()[-1]:
            raise CorruptionError(
                f"{segment.path} is damaged at byte {bounds.position}, and more segments follow",
                hint="restore the file, or delete the topic",
            )
        if cut and size > bounds.position:
            with open(segment.path, "r+b") as file:
                file.truncate(bounds.position)
                os.fsync(file.fileno())
        if bounds != known:
            os.fsync(segment.descriptor)
            bounds.write(self._bounds)
        return bounds

    def _write(self, bounds: Bounds, batches: Sequence[bytes]) -> int:
        """Write behind the durable end, sync, and return the new position. Nothing stays behind of a write that failed."""
        path, position = self.directory / segment_name(bounds.segment), bounds.position
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                pieces = list(rebased(batches, bounds.end))
                for at in range(0, len(pieces), _PIECES):
                    position = _write_all(descriptor, pieces[at : at + _PIECES], position)
                os.fdatasync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, bounds.position)
                raise
            finally:
                os.close(descriptor)
        except OSError as problem:
            hint = "make room on that disk" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else None
            raise UnavailableError(f"cannot append to {path}: {problem.strerror}", hint=hint) from problem
        return position

    def _roll(self, bounds: Bounds) -> Bounds:
        descriptor = os.open(self.directory / segment_name(bounds.end), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.fsync(descriptor)
        os.close(descriptor)
        sync_directory(self.directory)
        rolled = dataclasses.replace(bounds, segment=bounds.end, position=0)
        rolled.write(self._bounds)
        return rolled

    def _scan(self) -> list[int]:
        firsts = sorted(int(name[: -len(SUFFIX)]) for name in os.listdir(self.directory) if name.endswith(SUFFIX))
        if not firsts:
            raise CorruptionError(f"{self.directory} has no segment", hint="restore the files, or delete the topic")
        return firsts

    def _list(self, bounds: Bounds) -> list[int]:
        """The first offsets of the segments that `bounds` speaks of, sorted."""
        if not self._firsts or self._firsts[-1] != bounds.segment or self._firsts[0] != bounds.start:
            self._firsts = [first for first in self._scan() if bounds.start <= first <= bounds.segment]
        return self._firsts

    def _open(self, first: int) -> Segment:
        segment = self._segments.pop(first, None) or Segment(self.directory / segment_name(first), first)
        self._segments[first] = segment  # the last used comes last
        while len(self._segments) > _OPEN_SEGMENTS:
            self._forget(next(iter(self._segments)))
        return segment

    def _forget(self, first: int) -> None:
        segment = self._segments.pop(first, None)
        if segment is not None:
            segment.close()

    def _check_retention(self, seen: Bounds) -> None:
        """A segment is not there: right if retention in another process has moved the start since `seen`, and damage otherwise."""
        if self.bounds().start == seen.start:
            raise CorruptionError(
                f"{self.directory}: a segment between offsets {seen.start} and {seen.end} is not there",
                hint="restore the file, or delete the topic",
            )

    def _limit(self, segment: Segment, bounds: Bounds) -> int:
        return bounds.position if segment.first == bounds.segment else segment.size()

    def _find(self, offset: int, bounds: Bounds) -> tuple[int, int, int, Segment]:
        """Segment, position, limit and the open segment of the batch that holds `offset`."""
        if offset in self._cursors:
            first, position = self._cursors[offset]
            segment = self._open(first)
            limit = self._limit(segment, bounds)
            if position < limit:
                return first, position, limit, segment
        firsts = self._list(bounds)
        segment = self._open(firsts[holding(firsts, offset)])
        limit = self._limit(segment, bounds)
        return segment.first, segment.position_of(offset, limit), limit, segment

    def _remember(self, offset: int, first: int, position: int) -> None:
        self._cursors[offset] = first, position
        if len(self._cursors) > _CURSORS:
            del self._cursors[next(iter(self._cursors))]


def _write_all(descriptor: int, pieces: list[bytes | memoryview], position: int) -> int:
    while pieces:
        written = os.pwritev(descriptor, pieces, position)
        position += written
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if written:
            pieces[0] = memoryview(pieces[0])[written:]
    return position
