"""The log in a directory of this machine: a directory a topic, a directory a partition in it, Kafka v2 record batches in segment files.

DIRECTORY/ads/topic.json                              the topic's incarnation and how many partitions it has
DIRECTORY/ads/0/00000000000000000000.log              a segment, named by its first offset
DIRECTORY/ads/0/bounds                                what is durable (penstock.log.bounds)
DIRECTORY/ads/0/lock                                  held by who appends
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import uuid
from pathlib import Path
from typing import Sequence

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError
from penstock.log import Chunk
from penstock.log.partition import Partition, sync_directory

META = "topic.json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}")


def check_topic(name: str) -> str:
    """A topic's name as Kafka allows it, which is safe in a path too; one that begins with a dot is not. Raises ConfigurationError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a topic", hint="use letters, digits, '.', '_' and '-', at most 249, and no '.' first"
        )
    return name


def _seen(path: Path) -> tuple[int, int] | None:
    """What tells one incarnation's file from the next; None where there is no topic."""
    try:
        found = os.stat(path / META)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


class _Topic:
    """An incarnation of a topic, and its partitions that are open."""

    def __init__(self, path: Path, seen: tuple[int, int]) -> None:
        self.path, self.seen = path, seen
        try:
            meta = json.loads((path / META).read_text())
            self.incarnation, self.count = str(meta["incarnation"]), int(meta["partitions"])
        except (ValueError, KeyError, TypeError) as problem:
            raise CorruptionError(f"{path / META} does not describe a topic ({problem})") from problem
        self.open: dict[int, Partition] = {}

    def check_there(self) -> None:
        """Raise NotFoundError if another process has deleted this incarnation."""
        if _seen(self.path) != self.seen:
            raise NotFoundError(f"topic {self.path.name!r} was deleted meanwhile", hint="look up its incarnation again")

    def close(self) -> None:
        while self.open:
            self.open.popitem()[1].close()


class LocalLog:
    """`penstock.log.Log` in a directory, which is created when the first topic is.

    Any number of processes may read and append; those that append to one partition take turns. segment_bytes: size at which a new segment
    begins. lock_timeout: seconds that an append waits for another process's.
    """

    def __init__(self, directory: str | os.PathLike[str], *, segment_bytes: int = 256 << 20, lock_timeout: float = 30.0) -> None:
        self.directory = Path(directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigurationError(f"{self.directory} is not a directory", hint="name the directory that the log is to be kept in")
        self._segment_bytes, self._lock_timeout = segment_bytes, lock_timeout
        self._guard = threading.RLock()
        self._topics: dict[str, _Topic] = {}

    def create(self, topic: str, partitions: int) -> None:
        """See Log.create."""
        check_topic(topic)
        if partitions < 1:
            raise ConfigurationError(f"topic {topic!r} cannot have {partitions} partitions", hint="use 1 or more")
        path = self.directory / topic
        if not path.exists():
            new = self.directory / f".new-{uuid.uuid4().hex}"
            new.mkdir(parents=True)
            for number in range(partitions):
                Partition.create(new / str(number))
            meta = {"version": 1, "topic": topic, "incarnation": uuid.uuid4().hex, "partitions": partitions}
            with open(new / META, "x") as file:
                json.dump(meta, file)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(new)
            try:
                new.rename(path)
            except OSError:  # another process was faster
                shutil.rmtree(new)
                if not path.exists():
                    raise
            sync_directory(self.directory)
        if self.partitions(topic) != partitions:
            raise ConfigurationError(
                f"topic {topic!r} has {self.partitions(topic)} partitions, not {partitions}",
                hint="their number is fixed when a topic is created",
            )

    def delete(self, topic: str) -> None:
        """Delete a topic and all that it holds. Created again, it is another incarnation."""
        path, gone = self.directory / check_topic(topic), self.directory / f".gone-{uuid.uuid4().hex}"
        with self._guard:
            self._topic(topic)
            path.rename(gone)  # an append that has begun goes with it, as if it had come just before; a later one finds no topic
            self._topics.pop(topic).close()
        sync_directory(self.directory)
        shutil.rmtree(gone)

    def topics(self) -> list[str]:
        """See Log.topics."""
        if not self.directory.exists():
            return []
        return sorted(
            entry.name
            for entry in os.scandir(self.directory)
            if _NAME.fullmatch(entry.name) and os.path.exists(os.path.join(entry.path, META))
        )

    def incarnation(self, topic: str) -> str:
        """See Log.incarnation."""
        return self._topic(topic).incarnation

    def partitions(self, topic: str) -> int:
        """See Log.partitions."""
        return self._topic(topic).count

    def start(self, topic: str, partition: int) -> int:
        """See Log.start."""
        return self._partition(topic, partition).bounds().start

    def end(self, topic: str, partition: int) -> int:
        """See Log.end."""
        return self._partition(topic, partition).bounds().end

    def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """See Log.offset_at."""
        return self._partition(topic, partition).offset_at(timestamp)

    def read(self, topic: str, partition: int, offset: int, max_bytes: int, max_offsets: int) -> Chunk | None:
        """See Log.read. Raises CorruptionError for headers that cannot be; checksums are the decoder's to check."""
        return self._partition(topic, partition).read(offset, max_bytes, max_offsets)

    def append(self, topic: str, partition: int, batches: Sequence[bytes]) -> int:
        """See Log.append. One sync for all that one call is given. Raises UnavailableError if the disk does not take it: none of it is there then."""
        return self._partition(topic, partition).append(batches)

    def truncate_before(self, topic: str, partition: int, offset: int) -> int:
        """Retention: remove the segments that hold nothing at or beyond `offset`. Returns the partition's new start."""
        return self._partition(topic, partition).truncate_before(offset)

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """See Log.report: there are no such tools for this one; `penstock status` reads the control cells."""

    def close(self) -> None:
        """See Log.close. The log may be used again."""
        with self._guard:
            while self._topics:
                self._topics.popitem()[1].close()

    def __enter__(self) -> LocalLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _topic(self, name: str) -> _Topic:
        """The topic's present incarnation: another process may have replaced the one that is open."""
        path = self.directory / check_topic(name)
        with self._guard:
            known = self._topics.get(name)
            seen = _seen(path)
            if known is not None and known.seen != seen:
                self._topics.pop(name).close()
                known = None
            if seen is None:
                raise NotFoundError(
                    f"there is no topic {name!r} in {self.directory}",
                    hint=f"create it, or produce to it; there are: {', '.join(self.topics()) or 'none'}",
                )
            if known is None:
                known = self._topics[name] = _Topic(path, seen)
            return known

    def _partition(self, topic: str, number: int) -> Partition:
        with self._guard:
            known = self._topic(topic)
            partition = known.open.get(number)
            if partition is None:
                if not 0 <= number < known.count:
                    raise NotFoundError(f"topic {topic!r} has no partition {number}", hint=f"it has {known.count}, numbered from 0")
                partition = known.open[number] = Partition(
                    known.path / str(number),
                    segment_bytes=self._segment_bytes,
                    lock_timeout=self._lock_timeout,
                    still_there=known.check_there,
                )
            return partition
