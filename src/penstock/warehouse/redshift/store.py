"""The warehouse in Amazon Redshift, provisioned or serverless, through redshift-connector.

Beside the datasets' tables stand `penstock_ledger(dataset, hour, part, manifest_hash, "rows", ranges, loaded_at)`, which hours are loaded from what;
`penstock_datasets`, each dataset's columns; and `penstock_lock`, which loads take first, so that two never look at the ledger at once. See
docs/redshift.md and docs/decisions.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import pyarrow as pa

from penstock.archive import Archive
from penstock.errors import ConfigurationError, LoadError, NotFoundError, QueryError, UnavailableError
from penstock.model.units import hour_text
from penstock.warehouse import Dataset, LedgerRow, Manifest
from penstock.warehouse.datasets import check_covers, check_dataset, grown
from penstock.warehouse.redshift import ledger
from penstock.warehouse.redshift.arrow import to_table
from penstock.warehouse.redshift.connection import Connection
from penstock.warehouse.redshift.ddl import changes, create_table
from penstock.warehouse.redshift.files import Manifests, checked
from penstock.warehouse.redshift.load import Load
from penstock.warehouse.redshift.problems import LostError, ServerError
from penstock.warehouse.redshift.settings import Settings
from penstock.warehouse.redshift.statement import check_reading

_LONGEST_PAUSE = 15.0  # seconds
_MISSING, _EXISTS, _READ_ONLY = ("42P01", "3F000"), "42P07", "25006"
T = TypeVar("T")


class RedshiftWarehouse:
    """A `Warehouse` in a Redshift database, which COPYs from an archive on S3. Used by several threads and processes.

    settings: the deployment's table `redshift`. pause: seconds before a transaction is tried a second time; the pauses after it double.
    """

    def __init__(self, settings: dict[str, Any] | Settings, archive: Archive, *, pause: float = 0.5) -> None:
        self.settings = settings if isinstance(settings, Settings) else Settings.of(settings)
        self.archive = archive
        self._pause = pause
        self._manifests = Manifests(archive, self.settings)
        self._prepared: dict[str, Dataset] = {}
        self._held = threading.local()  # .connection: of the thread's session, once it has one; .depth: of sessions within sessions

    def prepare(self, dataset: Dataset) -> None:
        """See `Warehouse.prepare`."""
        if self._prepared.get(dataset.name) == dataset:
            return
        check_dataset(dataset)
        try:
            self._tried(lambda connection: self._prepare(connection, dataset), f"preparing {dataset.name}")
        except ServerError as problem:
            hint = "rename a table of that name that Penstock did not make, or that was changed by hand"
            raise ConfigurationError(
                f"the table of dataset {dataset.name!r} cannot be made in {self.settings.place}: {problem.text}",
                hint=hint if problem.code == _EXISTS else f"the user needs to create tables in the schema {self.settings.schema}",
            ) from problem
        self._prepared[dataset.name] = dataset

    def _prepare(self, connection: Connection, dataset: Dataset) -> None:
        schema = self.settings.schema
        ledger.prepare_system(connection, schema)
        while True:
            known = ledger.definition(connection, schema, dataset.name)
            connection.rollback()
            wanted = dataset if known is None else grown(known, dataset)
            if wanted == known:
                return
            widen, add = changes(known, wanted, schema) if known is not None else ([], [create_table(dataset, schema)])
            for statement in widen:
                self._widen(connection, statement)
            ledger.lock(connection, schema)
            if ledger.definition(connection, schema, dataset.name) != known:
                connection.rollback()  # somebody else was faster: look again
                continue
            for statement in add:
                connection.execute(statement)
            ledger.define(connection, schema, wanted)
            connection.commit()
            return

    def _widen(self, connection: Connection, statement: str) -> None:
        """Widen a column, which Redshift does outside transactions alone; one that is as wide already, after a crash, is as well."""
        try:
            connection.alone(statement)
        except ServerError as problem:
            if "should be different" not in problem.text:
                raise

    def load(self, manifest: Manifest, paths: Sequence[str], now: int) -> Literal["loaded", "unchanged"]:
        """See `Warehouse.load`. A LoadError names the file, shard or count at fault. After an UnavailableError call it again: the ledger knows."""
        what = f"{manifest.dataset} {hour_text(manifest.hour)}"
        if len(paths) != len(manifest.entries):
            raise LoadError(f"{what}: {len(paths)} paths for {len(manifest.entries)} files")
        if not manifest.entries:
            raise LoadError(f"{what}: the manifest names no file", hint="an hour without files has nothing to load")
        with self.session():
            return self._load(manifest, paths, now, what)

    def _load(self, manifest: Manifest, paths: Sequence[str], now: int, what: str) -> Literal["loaded", "unchanged"]:
        dataset, found = self._tried(lambda connection: self._known(connection, manifest), what)
        if dataset is None:
            raise NotFoundError(f"there is no dataset {manifest.dataset!r} in {self.settings.place}", hint="prepare it first")
        if found is not None and found.manifest_hash == manifest.hash:
            return "unchanged"
        if found is not None:
            check_covers(manifest, found)
        self.step("files")  # before the lock, which others wait for
        groups = checked(self.archive, dataset, manifest, paths, self.settings.verify, what)
        load = Load(self.settings, self._manifests, manifest, tuple(group for group in groups if group.rows), now, what, self.step)
        try:
            return self._tried(load.run, what)
        except ServerError as problem:
            raise LoadError(f"{what}: nothing was loaded: {problem.text}") from problem
        except UnavailableError as problem:
            if load.doubtful:
                raise UnavailableError(
                    f"{what}: the load may be committed or not: {problem.message}", hint="export the hour again: the ledger knows"
                ) from problem
            raise

    def _known(self, connection: Connection, manifest: Manifest) -> tuple[Dataset | None, LedgerRow | None]:
        """The dataset, and what the ledger says of the hour."""
        schema = self.settings.schema
        try:
            with connection.reading():
                dataset = ledger.definition(connection, schema, manifest.dataset)
                found = ledger.loaded(connection, schema, manifest.dataset, manifest.hour) if dataset is not None else []
                return dataset, found[0] if found else None
        except ServerError as problem:
            if problem.code in _MISSING:
                return None, None
            raise

    def ledger(self, dataset: str) -> list[LedgerRow]:
        """See `Warehouse.ledger`. Waits for no load."""

        def read(connection: Connection) -> list[LedgerRow]:
            with connection.reading():
                return ledger.loaded(connection, self.settings.schema, dataset)

        try:
            return self._tried(read, f"the ledger of {dataset}")
        except ServerError as problem:
            if problem.code in _MISSING:
                return []
            raise QueryError(f"the ledger in {self.settings.place} cannot be read: {problem.text}") from problem

    def query(self, sql: str) -> pa.Table:
        """See `Warehouse.query`. One statement, in a transaction that may read only. The answer is in memory twice for a moment: limit it."""
        statement = check_reading(sql)

        def ask(connection: Connection) -> pa.Table:
            with connection.reading():
                return to_table(*connection.described(statement))

        try:
            return self._tried(ask, "the query")
        except ServerError as problem:
            hint = "writing is not allowed here: use another client" if problem.code == _READ_ONLY else problem.fields.get("H")
            raise QueryError(problem.text, hint=hint) from problem

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """See `Warehouse.session`: calls of this thread share a connection, which is made anew after an error."""
        self._held.depth = getattr(self._held, "depth", 0) + 1
        try:
            yield
        finally:
            self._held.depth -= 1
            if not self._held.depth:
                self._let_go()

    def close(self) -> None:
        """See `Warehouse.close`."""
        self._prepared.clear()
        self._let_go()

    def step(self, name: str) -> None:
        """Called before each step of a load with its name: see `penstock.warehouse.redshift.STEPS`. A test interrupts one here."""

    def _tried(self, call: Callable[[Connection], T], what: str) -> T:
        """What a call gives, which is made again after a conflict or an outage, on a new connection, up to `attempts` times with growing pauses.

        Raises UnavailableError in the end; any other ServerError at once.
        """
        pause = self._pause
        for attempt in range(1, self.settings.attempts + 1):
            try:
                with self._connection() as connection:
                    return call(connection)
            except ServerError as problem:
                if problem.cancelled:
                    raise UnavailableError(
                        f"{what}: {self.settings.place} ended it: {problem.text}",
                        hint="if it takes longer than redshift.statement_timeout, raise that; the queue of the cluster's workload manager has a limit too",
                    ) from problem
                if not (problem.conflict or problem.busy):
                    raise
                last: Exception = problem
            except (LostError, UnavailableError) as problem:
                last = problem
            if attempt < self.settings.attempts:
                time.sleep(pause * random.uniform(0.5, 1.0))  # so that two that were in each other's way do not meet again
                pause = min(2 * pause, _LONGEST_PAUSE)
        text = last.message if isinstance(last, UnavailableError) else f"{self.settings.place}: {last}"
        raise UnavailableError(f"{what}: tried {self.settings.attempts} times: {text}", hint="try again later") from last

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """The session's connection, or one for this call. After an error it is not used again."""
        connection = getattr(self._held, "connection", None) or Connection(self.settings)
        keep = bool(getattr(self._held, "depth", 0))
        self._held.connection = connection if keep else None
        try:
            yield connection
        except BaseException:
            keep, self._held.connection = False, None
            raise
        finally:
            if not keep:
                connection.close()

    def _let_go(self) -> None:
        connection, self._held.connection = getattr(self._held, "connection", None), None
        if connection is not None:
            connection.close()
