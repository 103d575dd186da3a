"""The warehouse in a DuckDB file.

Beside the datasets' tables stand `penstock_ledger(dataset, hour, manifest_hash, "rows", ranges, loaded_at)`, which hours are loaded from what;
`penstock_datasets`, each dataset's columns; and `penstock_lock`, one row that a load updates first, so that two loads never look at the ledger at once.

DuckDB lets one process write, or several read. So nothing is held open between calls: each opens the file, backs off while another process has
it, and closes it again, and an export and a reader take turns. Timestamps are TIMESTAMP, in UTC.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import json
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from penstock.archive import Entry
from penstock.errors import ConfigurationError, CorruptionError, LoadError, NotFoundError, PenstockError, QueryError, UnavailableError
from penstock.model.units import from_datetime, hour_text, to_datetime
from penstock.warehouse import Column, Dataset, LedgerRow, Manifest
from penstock.warehouse.datasets import check_covers, check_dataset, grown
from penstock.warehouse.parquet import RESTORE, check_digest, check_footer

_SYSTEM = """
CREATE TABLE IF NOT EXISTS penstock_ledger (dataset VARCHAR, hour TIMESTAMP, manifest_hash VARCHAR, "rows" BIGINT, ranges VARCHAR, loaded_at TIMESTAMP);
CREATE TABLE IF NOT EXISTS penstock_datasets (dataset VARCHAR, definition VARCHAR);
CREATE TABLE IF NOT EXISTS penstock_lock (taken BIGINT);
INSERT INTO penstock_lock SELECT 0 WHERE NOT EXISTS (FROM penstock_lock);
"""
_TYPES = {"int": "BIGINT", "string": "VARCHAR", "enum": "VARCHAR", "bool": "BOOLEAN", "timestamp": "TIMESTAMP", "float": "DOUBLE"}
STEPS = ("lock", "stage", "check", "delete", "insert", "verify", "ledger", "commit", "committed")  # of a load, in order
_FETCHES = 8  # of files, at once
_turns: dict[str, threading.RLock] = {}  # a lock a file: DuckDB refuses to have one open twice in a process, once to read and once to write
_turns_lock = threading.Lock()


class DuckDbWarehouse:
    """A `Warehouse` in one DuckDB file, which is created with its directory by the first call. Used by several threads and processes, in turns.

    fetch: `Archive.download`, for files of an archive that is a bucket. timeout: how many seconds a call waits for its turn before it raises
    UnavailableError.
    """

    def __init__(self, path: str | os.PathLike[str], *, fetch: Callable[[str, Path], None] | None = None, timeout: float = 30.0) -> None:
        self.path = Path(path).absolute()
        self._fetch, self._timeout = fetch, timeout
        self._ready = False  # whether Penstock's own tables are there
        self._session: Any = None
        self._prepared: dict[str, Dataset] = {}
        with _turns_lock:
            self._turn = _turns.setdefault(os.path.realpath(self.path), threading.RLock())

    def prepare(self, dataset: Dataset) -> None:
        """See `Warehouse.prepare`. No column is declared NOT NULL: the decoder has seen to it, and a column added later is null in older rows."""
        if self._prepared.get(dataset.name) == dataset and self.path.exists():
            return
        check_dataset(dataset)
        with self._open() as connection:
            known = _definition(connection, dataset.name)
            definition = dataset if known is None else grown(known, dataset)
            try:
                connection.execute("BEGIN")
                if known is None:
                    connection.execute(create_table(dataset))
                else:
                    names = {column.name for column in known.columns}
                    for column in dataset.columns:
                        if column.name not in names:
                            connection.execute(f"ALTER TABLE {_quoted(dataset.name)} ADD COLUMN {_quoted(column.name)} {_type(column)}")
                connection.execute("DELETE FROM penstock_datasets WHERE dataset = ?", [dataset.name])
                connection.execute(
                    "INSERT INTO penstock_datasets VALUES (?, ?)", [dataset.name, json.dumps(dataclasses.asdict(definition))]
                )
                connection.execute("COMMIT")
            except duckdb.Error as problem:
                raise ConfigurationError(
                    f"the table of dataset {dataset.name!r} cannot be made in {self.path}: {problem}",
                    hint="rename a table of that name that Penstock did not make or that was changed by hand",
                ) from problem
        self._prepared[dataset.name] = dataset

    def load(self, manifest: Manifest, paths: Sequence[str], now: int) -> Literal["loaded", "unchanged"]:
        """See `Warehouse.load`. A LoadError names the file, shard or count at fault. After an UnavailableError call it again: the ledger knows."""
        what = f"{manifest.dataset} {hour_text(manifest.hour)}"
        if len(paths) != len(manifest.entries):
            raise LoadError(f"{what}: {len(paths)} paths for {len(manifest.entries)} files")
        if not manifest.entries:
            raise LoadError(f"{what}: the manifest names no file", hint="an hour without files has nothing to load")
        with self._open() as connection:
            dataset = _definition(connection, manifest.dataset)
            if dataset is None:
                raise NotFoundError(f"there is no dataset {manifest.dataset!r} in {self.path}", hint="prepare it first")
            try:
                # Before the transaction: DuckDB 2.0.0 loses what a parallel INSERT brings into a table that its own transaction created.
                connection.execute(f"CREATE TEMP TABLE penstock_stage AS FROM {_quoted(dataset.name)} LIMIT 0")
                self.step("lock")
                connection.execute("BEGIN")
                connection.execute("UPDATE penstock_lock SET taken = taken + 1")
                loaded = _ledger(connection, manifest.dataset, manifest.hour)
                if loaded and loaded[0].manifest_hash == manifest.hash:
                    return "unchanged"
                if loaded:
                    check_covers(manifest, loaded[0])
                with self._at_hand(manifest, paths, what) as files:
                    self._stage(connection, dataset, manifest, files, what)
                    self._replace(connection, dataset, manifest, files, now, what)
            except duckdb.Error as problem:
                raise LoadError(f"{what}: nothing was loaded: {problem}") from problem
            try:
                self.step("commit")
                connection.execute("COMMIT")
            except duckdb.Error as problem:
                raise UnavailableError(
                    f"{what}: the load may be committed or not: {problem}", hint="export the hour again: the ledger knows"
                ) from problem
            self.step("committed")
        return "loaded"

    def ledger(self, dataset: str) -> list[LedgerRow]:
        """See `Warehouse.ledger`."""
        if not self.path.exists():
            return []
        with self._open(readonly=True) as connection:
            try:
                return _ledger(connection, dataset)
            except duckdb.CatalogException:  # the file was made, and Penstock's tables not yet
                return []

    def query(self, sql: str) -> pa.Table:
        """See `Warehouse.query`. One statement, which may read only."""
        if not self.path.exists():
            with self._open() as connection:
                connection.execute("CHECKPOINT")  # a file to read from, if an empty one
        with self._open(readonly=True) as connection:
            try:
                connection.execute("SET python_enable_replacements = false")  # or a name in the SQL could mean a variable of ours
                count = len(connection.extract_statements(sql))
                if count != 1:
                    raise QueryError(f"the SQL holds {count} statements, not one", hint="run them one by one")
                relation = connection.sql(sql)
                return pa.table({}) if relation is None else relation.to_arrow_table()
            except duckdb.Error as problem:
                hint = "writing is not allowed here: open the file with DuckDB itself" if "read-only mode" in str(problem) else None
                raise QueryError(str(problem), hint=hint) from problem

    def close(self) -> None:
        """See `Warehouse.close`. Nothing is held between calls."""
        self._prepared.clear()

    def step(self, name: str) -> None:
        """Called before each step of a load with its name: see `STEPS`. A test interrupts one here."""

    @contextlib.contextmanager
    def _at_hand(self, manifest: Manifest, paths: Sequence[str], what: str) -> Iterator[Sequence[str]]:
        """The manifest's files where DuckDB can read them: those of a bucket are fetched, for it would need an extension that it loads from the network."""
        fetch = self._fetch
        if fetch is None or all(os.path.isabs(path) for path in paths):
            yield paths
            return
        with tempfile.TemporaryDirectory(prefix="penstock-load-") as folder, ThreadPoolExecutor(_FETCHES) as pool:
            places = [str(Path(folder, f"{number}.parquet")) for number in range(len(paths))]

            def get(entry: Entry, place: str, path: str) -> None:
                try:
                    fetch(entry.path, Path(place))
                except NotFoundError:
                    raise LoadError(f"{what}: {path} is not there; nothing was loaded", hint=RESTORE) from None

            list(pool.map(get, manifest.entries, places, paths))
            try:
                yield places
            except LoadError as problem:  # of a file, which is to be known by its own name
                message = functools.reduce(lambda text, pair: text.replace(*pair), zip(places, paths), problem.message)
                raise LoadError(message, hint=problem.hint) from problem

    def _stage(self, connection: Any, dataset: Dataset, manifest: Manifest, paths: Sequence[str], what: str) -> None:
        """Read the manifest's files, each of them checked, into a temporary table, and check what came."""
        self.step("stage")
        by_columns: dict[tuple[str, ...], list[str]] = {}
        for entry, path in zip(manifest.entries, paths):
            by_columns.setdefault(_checked(dataset, entry, manifest.span, path, what), []).append(path)
        for columns, files in by_columns.items():
            names = ", ".join(map(_quoted, columns))
            connection.execute(f"INSERT INTO penstock_stage ({names}) SELECT {names} FROM {_parquet(files)}")
        self.step("check")
        counts = f"SELECT count(*), count(*) FILTER (WHERE {_within(dataset)}) FROM penstock_stage"
        rows, inside = connection.execute(counts, _span(manifest)).fetchone()
        if rows != manifest.rows:
            raise LoadError(f"{what}: the files gave {rows} rows and the manifest has {manifest.rows}; nothing was loaded")
        if inside != rows:
            raise LoadError(
                f"{what}: {rows - inside} of {rows} rows lie outside the hour by {dataset.time!r}; nothing was loaded",
                hint="they would not be replaced when the hour is loaded again; the archive's files are wrong",
            )

    def _replace(self, connection: Any, dataset: Dataset, manifest: Manifest, paths: Sequence[str], now: int, what: str) -> None:
        """Put the staged rows in the place of the hour's, see that they are the files' rows, and say so in the ledger."""
        self.step("delete")
        connection.execute(f"DELETE FROM {_quoted(dataset.name)} WHERE {_within(dataset)}", _span(manifest))
        self.step("insert")
        connection.execute(f"INSERT INTO {_quoted(dataset.name)} FROM penstock_stage")
        self.step("verify")
        # A count alone is answered from statistics; a sum has to read the rows.
        total = f"SELECT count(*), sum(epoch_us({_quoted(dataset.time)})::HUGEINT) FROM"
        wanted = connection.execute(f"{total} {_parquet(paths)}").fetchone()
        stored = connection.execute(f"{total} {_quoted(dataset.name)} WHERE {_within(dataset)}", _span(manifest)).fetchone()
        if stored != wanted:
            raise LoadError(
                f"{what}: the table gives back other rows than the files hold: {stored}, not {wanted}, is the count and sum of {dataset.time!r}; "
                "nothing was loaded",
                hint="this is a fault of the DuckDB version installed: try another one",
            )
        self.step("ledger")
        hour = _timestamp(manifest.hour)
        connection.execute("DELETE FROM penstock_ledger WHERE dataset = ? AND hour = ?", [manifest.dataset, hour])
        connection.execute(
            "INSERT INTO penstock_ledger VALUES (?, ?, ?, ?, ?, ?)",
            [manifest.dataset, hour, manifest.hash, manifest.rows, json.dumps(manifest.ranges, sort_keys=True), _timestamp(now)],
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """See `Warehouse.session`. Opening and closing the file takes longer than a small load."""
        with self._open() as connection:
            outer, self._session = self._session, connection
            try:
                yield
            finally:
                self._session = outer

    @contextlib.contextmanager
    def _open(self, *, readonly: bool = False) -> Iterator[Any]:
        """A connection for the while of one call, in the process's turn and then this call's own; within a session, one more of the session's."""
        deadline = time.monotonic() + self._timeout
        if not self._turn.acquire(timeout=self._timeout):
            raise UnavailableError(f"{self.path} has been in use by another thread for {self._timeout:g} s")
        try:
            connection = self._session.cursor() if self._session is not None else self._connect(readonly, deadline)
            try:
                if not readonly and not self._ready:
                    connection.execute(_SYSTEM)
                    self._ready = True
                yield connection
            finally:
                connection.close()  # which rolls back what was not committed
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def attached(self, connection: Any, name: str) -> Iterator[None]:
        """The file's tables under a name in another DuckDB connection, to be read, for the while of a block; where there is no file yet, no tables.

        In the process's turn, and never within a `session`. Raises as `query` does.
        """
        deadline = time.monotonic() + self._timeout
        if not self._turn.acquire(timeout=self._timeout):
            raise UnavailableError(f"{self.path} has been in use by another thread for {self._timeout:g} s")
        try:
            place = (
                "'" + str(self.path).replace("'", "''") + "' AS " + _quoted(name) + " (READ_ONLY)"
                if self.path.exists()
                else f"':memory:' AS {_quoted(name)}"
            )
            self._patiently(lambda: connection.execute(f"ATTACH {place}"), deadline)
            yield
        finally:
            connection.close()  # before another one may have its turn
            self._turn.release()

    def _connect(self, readonly: bool, deadline: float) -> Any:
        if not self.path.exists():
            self._ready = False

        def connect() -> Any:
            if not readonly:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            return duckdb.connect(str(self.path), read_only=readonly)

        return self._patiently(connect, deadline)

    def _patiently(self, open_file: Callable[[], Any], deadline: float) -> Any:
        """What `open_file` gives, as soon as no other process has the file."""
        pause = 0.01
        while True:
            try:
                return open_file()
            except (duckdb.Error, OSError) as problem:
                text = str(problem)
                if "lock" not in text and "different configuration" not in text:
                    raise self._opening(problem) from problem
                if time.monotonic() + pause > deadline:
                    raise UnavailableError(
                        f"{self.path} has been held by another process for {self._timeout:g} s: {text}",
                        hint="wait for the export or query that uses it to end",
                    ) from problem
            time.sleep(pause * random.uniform(0.5, 1.0))  # so that two that wait do not wake together for ever
            pause = min(2 * pause, 0.25)

    def _opening(self, problem: Exception) -> PenstockError:
        if "not a valid DuckDB" in str(problem) or isinstance(
            problem, (duckdb.SerializationException, duckdb.FatalException, duckdb.InternalException)
        ):
            return CorruptionError(
                f"{self.path} is not a sound DuckDB file: {problem}", hint="move it away and export the hours again from the archive"
            )
        return ConfigurationError(f"{self.path} cannot be opened: {problem}", hint="name a file in a directory that can be written to")


def create_table(dataset: Dataset) -> str:
    """The statement that makes a dataset's table."""
    columns = ",\n".join(f"    {_quoted(column.name)} {_type(column)}" for column in dataset.columns)
    return f"CREATE TABLE {_quoted(dataset.name)} (\n{columns}\n)"


def _definition(connection: Any, dataset: str) -> Dataset | None:
    """The columns that the dataset's table has."""
    row = connection.execute("SELECT definition FROM penstock_datasets WHERE dataset = ?", [dataset]).fetchone()
    if row is None:
        return None
    data = json.loads(row[0])
    return Dataset(data["name"], tuple(Column(**column) for column in data["columns"]), data["time"], data["key"])


def _ledger(connection: Any, dataset: str, hour: int | None = None) -> list[LedgerRow]:
    """The ledger's rows of a dataset, in order; of one hour if given."""
    condition, values = ("AND hour = ?", [_timestamp(hour)]) if hour is not None else ("", [])
    select = (
        f'SELECT dataset, hour, manifest_hash, "rows", ranges, loaded_at FROM penstock_ledger WHERE dataset = ? {condition} ORDER BY hour'
    )
    return [
        LedgerRow(
            name,
            from_datetime(at),
            manifest_hash,
            rows,
            {shard: [tuple(pair) for pair in pairs] for shard, pairs in json.loads(ranges).items()},
            from_datetime(loaded),
        )
        for name, at, manifest_hash, rows, ranges, loaded in connection.execute(select, [dataset, *values]).fetchall()
    ]


def _checked(dataset: Dataset, entry: Entry, span: int, path: str, what: str) -> tuple[str, ...]:
    """The columns of a file that is whole, the one that was archived, and fits the table. Raises LoadError, naming the file, for any other."""
    try:
        with open(path, "rb") as file:
            check_digest(entry, file, path, what)
            return check_footer(dataset, entry, span, file, path, what)
    except FileNotFoundError:
        raise LoadError(f"{what}: {path} is not there; nothing was loaded", hint=RESTORE) from None
    except OSError as unreadable:
        raise LoadError(f"{what}: {path} cannot be read ({unreadable}); nothing was loaded") from unreadable


def _within(dataset: Dataset) -> str:
    """Whether a row lies in an hour: a condition with two parameters."""
    return f"{_quoted(dataset.time)} >= ? AND {_quoted(dataset.time)} < ?"


def _span(manifest: Manifest) -> list[dt.datetime]:
    return [_timestamp(manifest.hour), _timestamp(manifest.hour + manifest.span)]


def _timestamp(micros: int) -> dt.datetime:
    return to_datetime(micros).replace(tzinfo=None)


def _type(column: Column) -> str:
    return f"DECIMAL({int(column.precision)}, {int(column.scale)})" if column.kind == "decimal" else _TYPES[column.kind]


def _quoted(name: str) -> str:
    """An identifier. All are whitelisted by `check_dataset` before they come here; quoting makes reserved words usable."""
    return '"' + name.replace('"', '""') + '"'


def _parquet(paths: Sequence[str]) -> str:
    """The rows of these files and no others: DuckDB reads a path as a pattern, and "hour=..." in one as a column."""
    literals = ", ".join("'" + re.sub(r"([\[*?])", r"[\1]", path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{literals}], hive_partitioning = false)"
