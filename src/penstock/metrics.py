"""Prometheus metrics of the tasks that take and make durable, in the local runner and on Storm alike.

A deployment switches them on: `[NAME.metrics]` with `port = 9400` and, for others than this machine to see them, `host = "0.0.0.0"`. The local
runner serves all its tasks there (with `--workers`, each process on the next port); a task on Storm serves its own on port + its task id.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Mapping, Protocol

if TYPE_CHECKING:
    from penstock.rollup.control import Progress, ShardId

log = logging.getLogger(__name__)


class Metrics(Protocol):
    """What tasks say of themselves. Nothing depends on it, and nothing is asked of a store for it alone but the log's end.

    enabled: whether anybody is there to ask.
    """

    enabled: bool

    def taken(self, shard: ShardId, before: Progress, after: Progress, reasons: Mapping[str, int]) -> None:
        """A bolt took records: the counts before and after them, and why some were rejected."""

    def flushed(self, shard: ShardId, durable: Progress, microseconds: int, cells: int) -> None:
        """A flush is done: up to where, how long it took, and how many cells (of an archive: files) it wrote."""

    def owned(self, shard: ShardId, owned: bool) -> None:
        """A bolt's task claimed a shard, or lost it to another."""

    def behind(self, bolt: str, topic: str, partition: int, offsets: int) -> None:
        """How many offsets of a partition a bolt has not answered for yet."""

    def serve(self, number: int) -> None:
        """Let Prometheus ask, at the deployment's port + number."""


class NoMetrics:
    """For deployments that ask for none."""

    enabled = False

    def taken(self, shard: ShardId, before: Progress, after: Progress, reasons: Mapping[str, int]) -> None:
        """See Metrics.taken."""

    def flushed(self, shard: ShardId, durable: Progress, microseconds: int, cells: int) -> None:
        """See Metrics.flushed."""

    def owned(self, shard: ShardId, owned: bool) -> None:
        """See Metrics.owned."""

    def behind(self, bolt: str, topic: str, partition: int, offsets: int) -> None:
        """See Metrics.behind."""

    def serve(self, number: int) -> None:
        """See Metrics.serve."""


class PrometheusMetrics:
    """Kept by prometheus_client. settings: `port`, and `host` to listen on (127.0.0.1)."""

    enabled = True

    def __init__(self, settings: dict[str, Any]) -> None:
        self.host, self.port = str(settings.get("host", "127.0.0.1")), int(settings["port"])
        self._kept = _kept()

    def taken(self, shard: ShardId, before: Progress, after: Progress, reasons: Mapping[str, int]) -> None:
        """See Metrics.taken."""
        for outcome in ("accepted", "rejected", "late", "skipped", "lost_count"):
            more = getattr(after, outcome) - getattr(before, outcome)
            if more:
                self._kept["events"].labels(shard.bolt, shard.topic, outcome.removesuffix("_count")).inc(more)
        for reason, count in reasons.items():
            self._kept["rejects"].labels(shard.bolt, shard.topic, reason).inc(count)

    def flushed(self, shard: ShardId, durable: Progress, microseconds: int, cells: int) -> None:
        """See Metrics.flushed."""
        self._kept["flush"].labels(shard.bolt).observe(microseconds / 1e6)
        self._kept["cells"].labels(shard.bolt).inc(cells)
        if durable.accepted:
            self._kept["watermark"].labels(shard.bolt, shard.topic, str(shard.partition)).set(durable.watermark / 1e6)

    def owned(self, shard: ShardId, owned: bool) -> None:
        """See Metrics.owned."""
        self._kept["claims" if owned else "losses"].labels(shard.bolt).inc()

    def behind(self, bolt: str, topic: str, partition: int, offsets: int) -> None:
        """See Metrics.behind."""
        self._kept["lag"].labels(bolt, topic, str(partition)).set(offsets)

    def serve(self, number: int) -> None:
        """See Metrics.serve. A port that is taken is logged: a task goes on without metrics rather than not at all."""
        import prometheus_client

        try:
            prometheus_client.start_http_server(self.port + number, addr=self.host)
        except OSError as problem:
            log.warning("no metrics: %s port %d: %s", self.host, self.port + number, problem.strerror)


@functools.lru_cache(maxsize=1)
def _kept() -> dict[str, Any]:
    """The process's metrics: prometheus_client holds them for the process, so there is one of each whatever how many tasks there are."""
    from prometheus_client import Counter, Gauge, Histogram

    return {
        "events": Counter("penstock_events", "Offsets that a bolt took, by what became of them.", ["bolt", "topic", "outcome"]),
        "rejects": Counter("penstock_rejects", "Records that do not fit their schema, by reason.", ["bolt", "topic", "reason"]),
        "flush": Histogram(
            "penstock_flush_seconds",
            "From a flush's beginning until all it wrote is durable.",
            ["bolt"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        ),
        "cells": Counter("penstock_cells", "Cells (of an archive: files) that flushes wrote.", ["bolt"]),
        "watermark": Gauge(
            "penstock_watermark_seconds", "The newest event time that is durable, as seconds since 1970.", ["bolt", "topic", "partition"]
        ),
        "lag": Gauge("penstock_lag_offsets", "Offsets of the log that are not durable yet.", ["bolt", "topic", "partition"]),
        "claims": Counter("penstock_claims", "Shards that were taken up.", ["bolt"]),
        "losses": Counter("penstock_losses", "Shards that were lost to another task.", ["bolt"]),
    }
