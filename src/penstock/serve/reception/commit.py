"""Record batches into the partitions of a topic, all at once, again and again until they are in or may not be tried any more."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import Callable, Mapping

from penstock.errors import PenstockError, UnavailableError
from penstock.log import Log

log = logging.getLogger(__name__)
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before another try
_THREADS = 8


class Committer:
    """Appends. bound: microseconds that one call of `Log.append` may take at the most. now: the wall clock, microseconds since 1970."""

    def __init__(self, log: Log, now: Callable[[], int], *, bound: int) -> None:
        self._log, self._now, self._bound = log, now, bound
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._stopping = threading.Event()

    def append(self, topic: str, batches: Mapping[int, list[bytes]], until: int) -> None:
        """Append the batches of each partition; durable when this returns. until: microseconds since 1970, behind which no append may be under way.

        Raises what `Log.append` raises. Then nobody knows what of it is in the log, but for an UnavailableError before the first try.
        """
        left, tries = dict(batches), 0
        while left:
            problems = self._try(topic, left, until)
            left = {partition: left[partition] for partition in problems}
            if not problems:
                return
            worst = next((one for one in problems.values() if not (isinstance(one, PenstockError) and one.retriable)), None)
            problem = worst or next(iter(problems.values()))
            if worst is not None or self._stopping.is_set():
                raise problem
            if tries == 0:
                log.warning("appending to %s: %s; trying again", topic, problem)
            self._stopping.wait(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    def _try(self, topic: str, batches: Mapping[int, list[bytes]], until: int) -> dict[int, BaseException]:
        """What went wrong, by partition."""

        def one(partition: int) -> BaseException | None:
            if self._now() + self._bound > until:
                return _TooLate(f"{topic}/{partition}: the log did not take it in time")
            try:
                self._log.append(topic, partition, batches[partition])
            except Exception as problem:
                return problem
            return None

        if len(batches) == 1:
            [partition] = batches
            results = {partition: one(partition)}
        else:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "penstock-reception-append")
            results = dict(zip(batches, self._threads.map(one, batches)))
        return {partition: problem for partition, problem in results.items() if problem is not None}

    def stop(self) -> None:
        """Give up what cannot be appended at once."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the threads."""
        self.stop()
        if self._threads is not None:
            self._threads.shutdown()


class _TooLate(UnavailableError):
    """No time is left for another try."""

    retriable = False
