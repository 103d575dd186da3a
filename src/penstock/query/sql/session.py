"""SQL over live roll-ups, archived detail and the warehouse together, in one DuckDB that sees nothing else."""

from __future__ import annotations

import contextlib
import difflib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from penstock.errors import QueryError
from penstock.query.sql import statements
from penstock.query.sql.catalog import Listed, listed
from penstock.query.sql.pushdown import TableDataset
from penstock.query.sql.reading import MAX_READ, CancelledError, Reading
from penstock.warehouse.duckdb import DuckDbWarehouse

if TYPE_CHECKING:
    from penstock.deployment import Deployment

BATCH = 8192  # rows of a result that are handed over at a time
_MISSING = re.compile(r"Table with name (\S+) does not exist")
_GUESS = re.compile(r"\n(?:Did you mean|Candidate tables).*")


class SqlSession:
    """Runs statements over a deployment's stores, one at a time. Reading only.

    Tables: `rollup.<name>[_<dimensions>]_<granularity>`, `archive.<dataset>`, `warehouse.<dataset>`. A bare name is the warehouse's, and
    `archive_<dataset>` the archive's. Each is read when a statement scans it, as far as the statement needs it; nothing is cached.

    max_read: cells of a roll-up, and rows of a warehouse that is a server, that one scan may read. noticed: is told, in sentences, what a reader
    should know of the rows; None for nobody.
    """

    def __init__(self, deployment: Deployment, *, max_read: int = MAX_READ, noticed: Callable[[str], None] | None = None) -> None:
        self.deployment, self.max_read = deployment, max_read
        self._noticed = noticed or (lambda text: None)
        self._connection: Any = None
        self._cancelled = False
        self._lock = threading.Lock()

    def tables(self) -> list[Listed]:
        """The tables of roll-ups, of the archive, and of a warehouse that is a server."""
        return listed(self.deployment, Reading(), distant=self._distant)

    @property
    def _distant(self) -> bool:
        return not isinstance(self.deployment.warehouse, DuckDbWarehouse)

    @contextlib.contextmanager
    def run(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        """The rows of one statement, for the while of a block, within one thread.

        Raises QueryError for what cannot run, with near names; CancelledError after `cancel`; what the stores raise.
        """
        self._cancelled = False
        failures: list[BaseException] = []
        said: set[str] = set()

        def noticed(text: str) -> None:
            if text not in said:
                said.add(text)
                self._noticed(text)

        tables: list[Listed] = []
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-sql-"))  # where large sorts go
            connection = duckdb.connect(":memory:")
            stack.callback(connection.close)
            try:
                statements.check_reads(connection, statement)
                constants = tuple(dict.fromkeys(statements.constants(statement)))
                reading = Reading(constants, self.max_read, noticed, lambda: self._cancelled)
                tables = listed(self.deployment, reading, distant=self._distant)
                named = statements.tables(connection, statement)
                if not self._distant and (named is None or any(parts[:1] not in (["archive"], ["rollup"]) for parts in named)):
                    stack.enter_context(self.deployment.warehouse.attached(connection, "warehouse"))  # type: ignore[attr-defined]
                _prepare(connection, tables, failures.append, folder)
                self._remember(connection)
                stack.callback(self._remember, None)  # before anything closes it
                if self._cancelled:
                    raise CancelledError("the statement was cancelled")
                relation = connection.sql(statement)
                yield getattr(relation, "to_arrow_reader", relation.fetch_record_batch)(BATCH)
            except (duckdb.Error, pa.ArrowException) as problem:
                raise self._explained(problem, failures, tables) from problem

    def cancel(self) -> None:
        """Stop the statement that runs. From another thread."""
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                self._connection.interrupt()

    def _remember(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection

    def _explained(self, problem: Exception, failures: list[BaseException], tables: list[Listed]) -> BaseException:
        """The error that a user should see for one of the engine."""
        if self._cancelled:
            return CancelledError("the statement was cancelled")
        if failures:
            return failures[0]
        text = str(problem)
        missing = _MISSING.search(text)
        if missing is None:
            return QueryError(text)
        return QueryError(_GUESS.sub("", text), hint=self._near(missing[1].strip('"'), tables))

    def _near(self, name: str, tables: list[Listed]) -> str:
        bare = name.rpartition(".")[2]
        same = [one.full for one in tables if one.name == bare]
        if same:
            return (
                f"nothing of {bare} is loaded: {same[0]} has what is archived, and `penstock export` loads it"
                if same[0] == f"archive.{bare}"
                else f"it is {same[0]}"
            )
        names = {one.full: one for one in tables} | {one.name: one for one in tables}
        close = dict.fromkeys(names[found].full for found in difflib.get_close_matches(name, names, 3, 0.6))
        known = f"did you mean {' or '.join(close)}?" if close else "SHOW ALL TABLES lists what there is"
        return known


def _prepare(connection: Any, tables: list[Listed], failed: Callable[[BaseException], None], folder: str) -> None:
    """Name the tables in a connection, then take from it all that reaches beyond them."""
    for schema in ("rollup", "archive"):
        connection.execute(f"CREATE SCHEMA {schema}")
    attached = any(name == "warehouse" for (name,) in connection.execute("SELECT database_name FROM duckdb_databases()").fetchall())
    if not attached:
        connection.execute("CREATE SCHEMA warehouse")
    for one in tables:
        connection.execute(f"USE memory.{one.schema}")
        connection.from_arrow(TableDataset(one.columns, one.scan, failed)).create_view(one.name)
    connection.execute("USE memory.main")
    for one in tables:
        if one.schema != "rollup":
            alias = one.name if one.schema == "warehouse" else f"archive_{one.name}"
            connection.execute(f"CREATE VIEW {alias} AS FROM {one.schema}.{one.name}")
    connection.execute(f"SET search_path = 'memory.main{',warehouse.main' if attached else ''}'")
    connection.execute(f"SET temp_directory = '{folder}'")
    for setting in ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"):
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")
