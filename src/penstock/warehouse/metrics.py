"""Prometheus metrics of the exporter: `penstock export --follow` serves them where the deployment has a table `[NAME.metrics]`.

It listens on `export_port`, or on the port below `port`, which is the topology's own.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from penstock.model.units import HOUR
from penstock.warehouse.export import ExportResult, HourPlan

log = logging.getLogger(__name__)


class ExportMetrics(Protocol):
    """What an exporter says of itself. Nothing depends on it."""

    def state(self, *, leads: bool, waits: bool) -> None:
        """Whether it leads, and whether it waits for a store that does not answer."""

    def planned(self, dataset: str, plans: Sequence[HourPlan], newest_loaded: int | None, now: int) -> None:
        """The hours of a dataset were looked at."""

    def failed(self, hours: Iterable[tuple[str, int]]) -> None:
        """All hours that failed and are not loaded yet, of all datasets."""

    def loaded(self, result: ExportResult, seconds: float) -> None:
        """What became of an hour, and how long that took."""


class NoExportMetrics:
    """For deployments that ask for none."""

    def state(self, *, leads: bool, waits: bool) -> None:
        """See ExportMetrics.state."""

    def planned(self, dataset: str, plans: Sequence[HourPlan], newest_loaded: int | None, now: int) -> None:
        """See ExportMetrics.planned."""

    def failed(self, hours: Iterable[tuple[str, int]]) -> None:
        """See ExportMetrics.failed."""

    def loaded(self, result: ExportResult, seconds: float) -> None:
        """See ExportMetrics.loaded."""


class PrometheusExportMetrics:
    """Kept by prometheus_client. settings: the deployment's `metrics` table."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.host, self.port = str(settings.get("host", "127.0.0.1")), int(settings.get("export_port", int(settings["port"]) - 1))
        self._kept = _kept()
        self._datasets: set[str] = set()

    def serve(self) -> None:
        """Let Prometheus ask. A port that is taken is logged: exporting goes on without metrics rather than not at all."""
        import prometheus_client

        try:
            prometheus_client.start_http_server(self.port, addr=self.host)
        except OSError as problem:
            log.warning("no metrics: %s port %d: %s", self.host, self.port, problem.strerror)

    def state(self, *, leads: bool, waits: bool) -> None:
        """See ExportMetrics.state."""
        self._kept["leads"].set(leads)
        self._kept["waits"].set(waits)

    def planned(self, dataset: str, plans: Sequence[HourPlan], newest_loaded: int | None, now: int) -> None:
        """See ExportMetrics.planned."""
        self._datasets.add(dataset)
        due = [plan.hour for plan in plans if plan.due]
        self._kept["hours"].labels(dataset, "due").set(len(due))
        self._kept["hours"].labels(dataset, "waiting").set(sum(plan.state == "waiting" for plan in plans))
        self._kept["lag"].labels(dataset).set(lag(due, now) / 1e6)
        if newest_loaded is not None:
            self._kept["newest"].labels(dataset).set(newest_loaded / 1e6)

    def failed(self, hours: Iterable[tuple[str, int]]) -> None:
        """See ExportMetrics.failed."""
        counts = Counter(dataset for dataset, _ in hours)
        for dataset in self._datasets:
            self._kept["hours"].labels(dataset, "failed").set(counts[dataset])

    def loaded(self, result: ExportResult, seconds: float) -> None:
        """See ExportMetrics.loaded."""
        self._kept["loads"].labels(result.dataset, result.outcome).inc()
        if result.outcome == "loaded":
            self._kept["rows"].labels(result.dataset).inc(result.rows)
            self._kept["seconds"].labels(result.dataset).observe(seconds)


def lag(due: Sequence[int], now: int) -> int:
    """How long ago the oldest of some hours ended, in microseconds; 0 for none."""
    return max(0, now - min(due) - HOUR) if due else 0


@functools.lru_cache(maxsize=1)
def _kept() -> dict[str, Any]:
    """The process's metrics: prometheus_client holds them for the process."""
    from prometheus_client import Counter, Gauge, Histogram

    return {
        "leads": Gauge("penstock_export_leads", "1 where this exporter leads, 0 where it stands by."),
        "waits": Gauge("penstock_export_waits", "1 while it waits for a store that does not answer."),
        "hours": Gauge("penstock_export_hours", "Hours that are due, that failed, and of which more is expected.", ["dataset", "state"]),
        "lag": Gauge("penstock_export_lag_seconds", "How long ago the oldest hour ended that is due and not loaded.", ["dataset"]),
        "newest": Gauge("penstock_export_newest_hour_seconds", "The newest hour that is loaded, as seconds since 1970.", ["dataset"]),
        "loads": Counter("penstock_export_loads", "Hours, by what became of them.", ["dataset", "outcome"]),
        "rows": Counter("penstock_export_rows", "Rows that were loaded.", ["dataset"]),
        "seconds": Histogram(
            "penstock_export_load_seconds", "A load, merging included.", ["dataset"], buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
        ),
    }
