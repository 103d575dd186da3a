"""A statement that runs: its rows as they come, and how it is stopped."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.errors import UsageError
from penstock.query.sql import CancelledError, SqlSession

if TYPE_CHECKING:
    from penstock.deployment import Deployment

Asked = Callable[[str], "Answer"]  # from a statement to its answer
_AHEAD = 4  # batches that are read before they are asked for


class Answer:
    """The rows of a statement, to be read once, in batches. schema: their columns. notes: what a reader should know of them, complete after the last
    row. cut: whether there were more rows than the limit."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], notes: list[str]) -> None:
        self.schema, self.notes, self.cut = schema, notes, False
        self._batches = batches
        self._most: int | None = None

    def limit(self, most: int | None) -> None:
        """Give no more than so many rows; None for all."""
        self._most = most

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._most
        for batch in self._batches:
            if left is not None and batch.num_rows > left:
                self.cut = True
                yield batch.slice(0, left)
                return
            left = None if left is None else left - batch.num_rows
            yield batch

    def close(self) -> None:
        """Stop the statement, if it still runs."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def ask(deployment: Deployment, engine: str, max_read: int) -> Asked:
    """What answers statements: all stores together, or the warehouse itself. Raises UsageError for an engine that the deployment has not."""
    if engine == "duckdb":
        return lambda statement: _in_session(deployment, statement, max_read)
    if engine == "redshift" and "redshift" not in deployment.settings:
        raise UsageError(
            f"deployment {deployment.name} has no redshift",
            hint="--on names another one; --engine warehouse asks the warehouse that it has",
        )
    return lambda statement: _in_warehouse(deployment, statement)


def _in_warehouse(deployment: Deployment, statement: str) -> Answer:
    found: pa.Table = deployment.warehouse.query(statement)
    return Answer(found.schema, iter(found.to_batches()), [])


def _in_session(deployment: Deployment, statement: str, max_read: int) -> Answer:
    """The answer of a session. It runs in a thread of its own, so that Ctrl-C reaches this one at any moment and stops that one."""
    notes: list[str] = []
    session = SqlSession(deployment, max_read=max_read, noticed=notes.append)
    ready: queue.Queue[Any] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def work() -> None:
        try:
            with session.run(statement) as reader:
                ready.put(reader.schema)
                for batch in reader:
                    if stopped.is_set():
                        return
                    ready.put(batch)
        except BaseException as problem:
            ready.put(problem)
        finally:
            ready.put(None)

    thread = threading.Thread(target=work, name="sql", daemon=True)

    def stop() -> None:
        stopped.set()
        while thread.is_alive():
            session.cancel()
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)
        thread.join()

    def batches() -> Generator[Any, None, None]:
        try:
            while (one := ready.get()) is not None:
                if isinstance(one, BaseException):
                    raise one
                yield one
        finally:
            stop()

    thread.start()
    rows = batches()
    try:
        schema = next(rows)
    except BaseException:
        rows.close()
        raise
    return Answer(schema, rows, notes)


__all__ = ["Answer", "Asked", "CancelledError", "ask"]
