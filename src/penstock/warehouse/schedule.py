"""The exporter: loads the hours that are due, once or for as long as it runs.

An hour that fails is put aside for a while, longer each time, and the next ones go on. A store that does not answer is no hour's fault: the exporter
waits for it and goes on where it was, for the ledger says what is loaded. What it finds out is kept in the table (`health`), and of several that run
at once one leads (`lease`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

from penstock.archive import Archive
from penstock.errors import LoadError, PenstockError
from penstock.model.units import DAY, SECOND, hour_text
from penstock.table import Table
from penstock.warehouse import Dataset, LedgerRow, Warehouse
from penstock.warehouse.export import (
    GRACE,
    RELOAD_INTERVAL,
    ExportResult,
    HourPlan,
    PartitionProgress,
    export_hour,
    merge_worthy,
    plan_hours,
)
from penstock.warehouse.health import Health, note
from penstock.warehouse.lease import Lease
from penstock.warehouse.metrics import ExportMetrics, NoExportMetrics

log = logging.getLogger(__name__)

_TURN = 5.0  # seconds after which others have their turn at a warehouse that admits one at a time
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds to wait for a store that does not answer
_UNANSWERED = 3  # loads of one hour that end without an answer, while others are answered, before it is taken for the hour's own fault


@dataclasses.dataclass(frozen=True)
class Feed:
    """What one archive bolt has for the warehouse.

    progress: of every partition of its topic, read before anything is read of `archive`, which shows the generation that is published.
    """

    archive: Archive
    datasets: tuple[Dataset, ...]
    progress: tuple[PartitionProgress, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """An hour, what is to be done with it, and all that doing it takes.

    loaded: its row of the ledger. load: what loads it, where it is not made of the archive's files, such as a day of a roll-up.
    """

    plan: HourPlan
    dataset: Dataset
    archive: Archive
    loaded: LedgerRow | None
    load: Callable[[], ExportResult] | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """How hours are chosen and loaded. wanted: of a dataset and an hour, whether it is looked at. merge: many small files before a load."""

    grace: int = GRACE
    reload_interval: int = RELOAD_INTERVAL
    merge: bool = True
    wanted: Callable[[str, int], bool] = lambda dataset, hour: True


class Exporter:
    """Loads hours of the datasets of one topology.

    name: of the topology; what its health and its lease are kept by. feeds: reads what there is to load, anew at each call; more: the same, of what is
    not in the archive. now: the wall clock. say: told, in a line for people, what changes beside hours that are loaded. Used by one thread; a signal
    may call `stop`.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        warehouse: Warehouse,
        feeds: Callable[[], Iterable[Feed]],
        now: Callable[[], int],
        options: Options,
        *,
        more: Callable[[], Iterable[Task]] = tuple,
        metrics: ExportMetrics | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.options, self._more = name, options, more
        self._table, self._warehouse, self._feeds, self._now, self._say = table, warehouse, feeds, now, say
        self._metrics = metrics or NoExportMetrics()
        self._health = Health()
        self._stopping = False
        self._datasets: dict[str, Dataset] = {}
        self._settled: dict[tuple[str, int], int] = {}  # hours seen to need nothing, and when
        self._newest: dict[str, int] = {}  # hour of each dataset
        self._unanswered: Counter[tuple[str, int]] = Counter()
        self._said_at = 0

    def stop(self) -> None:
        """End after the hour under way."""
        self._stopping = True

    def tasks(self, *, skip: bool = False) -> list[Task]:
        """Every archived hour with what is to be done with it, by hour and then by dataset.

        skip: leave out hours that were seen to be loaded a short while ago, for looking at one reads its index.
        """
        found: list[Task] = []
        for feed in self._feeds():
            now = self._now()
            for dataset in feed.datasets:
                self._datasets[dataset.name] = dataset
                ledger = {row.hour: row for row in self._warehouse.ledger(dataset.name)}
                plans = plan_hours(
                    feed.archive,
                    dataset.name,
                    feed.progress,
                    list(ledger.values()),
                    now,
                    grace=self.options.grace,
                    reload_interval=self.options.reload_interval,
                    wanted=functools.partial(self._looks, dataset.name, now if skip else None),
                )
                found += [Task(plan, dataset, feed.archive, ledger.get(plan.hour)) for plan in plans]
                self._settle(plans, now)
                self._metrics.planned(dataset.name, plans, max(ledger, default=None), now)
        return [*sorted(found, key=lambda task: task.plan.hour), *self._more()]

    def once(self, tasks: list[Task]) -> Iterator[ExportResult]:
        """Load hours now, whoever leads, and yield what became of each. A store that does not answer fails the hour under way and ends it."""
        known = note(self._table, self.name, lambda health: health)
        self._health = known or Health()
        yield from self._load(tasks, once=True)

    def follow(self, lease: Lease, every: int) -> Iterator[ExportResult]:
        """Load whatever is due, and look again every so many microseconds, until `stop`. Yields what became of each hour."""
        leader, trouble, pause = "nobody", "", _FIRST_PAUSE
        try:
            while not self._stopping:
                wait = every / SECOND
                try:
                    other = lease.take()
                    if other is not None:
                        wait = min(wait, other.silence / SECOND / 4)
                    now_leads = "this one" if other is None else other.text
                    if now_leads != leader:
                        self._say("leads: it loads what is due" if other is None else f"stands by: {other.text} leads")
                    leader = now_leads
                    self._metrics.state(leads=other is None, waits=False)
                    if other is None:
                        yield from self._pass(lease)
                    if trouble:
                        self._say("goes on: all stores answer again")
                    trouble, pause = "", _FIRST_PAUSE
                except PenstockError as problem:
                    if not problem.retriable:
                        raise
                    if trouble != problem.message:
                        trouble = problem.message
                        self._say(f"waits for a store: {trouble}")
                        self._note(operator.methodcaller("stuck", trouble, self._now()))
                    wait = pause * random.uniform(0.75, 1.25)
                    self._metrics.state(leads=lease.held, waits=True)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._sleep(wait)
        finally:
            lease.release()

    def _pass(self, lease: Lease) -> Iterator[ExportResult]:
        """Load what is due now, but for hours that failed and are not to be tried again yet."""
        tasks = self.tasks(skip=True)
        settled = {(task.plan.dataset, task.plan.hour) for task in tasks if task.plan.state in ("loaded", "foreign")}
        self._note(lambda health: health.leading(self.options.grace, self.options.reload_interval, settled))
        now = self._now()
        self._metrics.failed(self._health.failed)
        due = [task for task in tasks if task.plan.due and not self._health.paused(task.plan.dataset, task.plan.hour, now)]
        yield from self._load(due, lease=lease)

    def _load(self, tasks: Iterable[Task], *, lease: Lease | None = None, once: bool = False) -> Iterator[ExportResult]:
        """Load hours, and yield what became of each. Ends early after `stop`, or when the lease is lost.

        An hour that fails is yielded and the next ones go on. An error that is no hour's fault, of a store that does not answer, is raised; with `once`
        it fails the hour under way and ends the loading.
        """
        queue, refused = deque(tasks), dict[str, PenstockError]()
        last: ExportResult | None = None
        while True:
            turn = time.monotonic() + _TURN
            with self._warehouse.session():
                if last is None and not refused:
                    refused = self._prepare()
                while queue and time.monotonic() < turn and not self._stopping and (lease is None or lease.held):
                    task = queue.popleft()
                    problem = refused.get(task.dataset.name)
                    result = self._hour(task, once) if problem is None else _failed(task, problem)
                    self._record(result)
                    last = result if result.outcome == "loaded" else last
                    yield result
                    if problem is not None:  # the dataset's other hours would fail alike
                        queue = deque(other for other in queue if other.dataset.name != task.dataset.name)
                    if result.error is not None and result.error.retriable and once:
                        queue.clear()
                ended = not queue or self._stopping or not (lease is None or lease.held)
            if ended:
                break
        if last is not None:
            self._note(lambda health: health.loaded(last.dataset, last.hour, last.rows, self._now()))

    def _prepare(self) -> dict[str, PenstockError]:
        """Make the tables of all datasets, those without an hour too. The datasets that the warehouse refuses, and why."""
        refused = {}
        for dataset in self._datasets.values():
            try:
                self._warehouse.prepare(dataset)
            except PenstockError as problem:
                if problem.retriable:
                    raise
                refused[dataset.name] = problem
        return refused

    def _hour(self, task: Task, once: bool) -> ExportResult:
        """Merge an hour's files where that is worth it, and load it. Raises what is no hour's fault, unless `once`."""
        key, began = (task.plan.dataset, task.plan.hour), time.monotonic()
        what = f"{task.plan.dataset} {hour_text(task.plan.hour)}"
        try:
            if task.load is not None:
                result = task.load()
            else:
                if self.options.merge:
                    self._merge(task, what)
                result = export_hour(task.archive, self._warehouse, task.dataset, task.plan.hour, self._now())
        except PenstockError as problem:
            if problem.retriable and not once:
                self._unanswered[key] += 1
                if self._unanswered[key] < _UNANSWERED:
                    raise
            result = _failed(task, problem)
        except Exception as problem:  # a bug: it must not hold up the hours that come after it
            log.debug("%s", what, exc_info=True)
            mistake = LoadError(f"{what}: {type(problem).__name__}: {problem}", hint="this is a bug in Penstock: please report it")
            mistake.__cause__ = problem
            result = _failed(task, mistake)
        self._unanswered.pop(key, None)
        self._metrics.loaded(result, time.monotonic() - began)
        return result

    def _merge(self, task: Task, what: str) -> None:
        """Merge many small files. What goes wrong, but for a store that does not answer, is left to the load to meet: it can do without."""
        try:
            merge_worthy(task.archive, task.plan.dataset, task.plan.hour, task.loaded)
        except Exception as problem:
            if isinstance(problem, PenstockError) and problem.retriable:
                raise
            log.warning("%s: its files are not merged: %s", what, problem)

    def _record(self, result: ExportResult) -> None:
        """Keep what became of an hour where `status` looks: failures at once, loads now and then."""
        now, key = self._now(), (result.dataset, result.hour)
        if result.error is not None:
            error = result.error
            self._note(lambda health: health.failure(*key, error, now))
        elif key in self._health.failed or now - self._said_at > 5 * SECOND:
            self._note(lambda health: health.loaded(*key, result.rows, now))

    def _note(self, change: Callable[[Health], Health]) -> None:
        """Change the health in the table; where that does not answer, what this exporter goes by."""
        self._health = note(self._table, self.name, change) or change(self._health)
        self._said_at = self._now()

    def _looks(self, dataset: str, now: int | None, hour: int) -> bool:
        """Whether an hour is looked at. now: where those that need nothing may rest, of old hours the longer."""
        if not self.options.wanted(dataset, hour):
            return False
        seen = self._settled.get((dataset, hour))
        if now is None or seen is None:
            return True
        age = self._newest.get(dataset, hour) - hour
        return now - seen >= max(self.options.reload_interval // 3, age // 100 if age > 2 * DAY else 0)

    def _settle(self, plans: Iterable[HourPlan], now: int) -> None:
        for plan in plans:
            self._newest[plan.dataset] = max(plan.hour, self._newest.get(plan.dataset, plan.hour))
            if plan.state in ("loaded", "foreign"):
                self._settled[plan.dataset, plan.hour] = now
            else:
                self._settled.pop((plan.dataset, plan.hour), None)

    def _sleep(self, seconds: float) -> None:
        """Wait, in naps: a signal's handler must not touch a lock that the main thread may hold, so it only sets a flag."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


def _failed(task: Task, problem: PenstockError) -> ExportResult:
    return ExportResult(task.plan.dataset, task.plan.hour, 0, 0, "failed", problem)
