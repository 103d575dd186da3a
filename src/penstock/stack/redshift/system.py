"""What the relay keeps in a database: Redshift's system tables and functions, and the domains that count bytes."""

from __future__ import annotations

import contextlib
import importlib.resources
import threading
from collections import deque
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

from penstock.stack.redshift.backend import Backend, Refused, literal
from penstock.stack.redshift.columns import LoadProblem
from penstock.stack.redshift.copying import Copy
from penstock.stack.redshift.rewriting import SCHEMA

_REMEMBERED = 10_000  # queries
_MAKING = 5_439  # the number of an advisory lock
BYTES = "bytes"  # the constraint of the domains


@dataclass(frozen=True)
class Query:
    """One that ran. began, ended: seconds since 1970."""

    number: int
    pid: int
    transaction: int
    sql: str
    began: float
    ended: float
    failed: bool


class System:
    """One database, by sessions of the relay's own: what it keeps there stays, whatever becomes of a client's transaction."""

    def __init__(self, address: tuple[str, int], user: str, database: str) -> None:
        self._address, self._values = address, {"user": user, "database": database}
        self._doing = threading.Lock()
        self._made = False
        self._lengths: set[int] = set()
        self._queries: deque[Query] = deque(maxlen=_REMEMBERED)

    def make(self) -> None:
        """The schema with all that is in it, unless it is there. Raises Refused."""
        with self._doing:
            if self._made:
                return
            with self._session() as session:
                session.query(f"SELECT pg_advisory_lock({_MAKING})")  # another relay may be at it; the lock ends with the session
                if not session.query(f"SELECT 1 FROM pg_namespace WHERE nspname = '{SCHEMA}'"):
                    sql = importlib.resources.files("penstock.stack.redshift").joinpath("catalog.sql").read_text()
                    session.query(f"BEGIN; {sql} COMMIT")
            self._made = True

    def make_lengths(self, lengths: Iterable[int]) -> None:
        """The domains of VARCHARs of so many bytes."""
        with self._doing:
            missing = set(lengths) - self._lengths
            if not missing:
                return
            with self._session() as session:
                for length in missing:
                    with contextlib.suppress(Refused):  # it is there
                        session.query(
                            f"CREATE DOMAIN {SCHEMA}.varchar_{length} AS varchar({length}) CONSTRAINT {BYTES} CHECK (octet_length(VALUE) <= {length})"
                        )
            self._lengths |= missing

    def record(self, copy: Copy, query: int, pid: int, transaction: int, errors: Sequence[LoadProblem]) -> None:
        """Keep what went wrong in a COPY."""
        rows = ", ".join(f"({', '.join(_values(copy, query, pid, transaction, one))})" for one in errors)
        names = "query, pid, xid, tbl, file, line, col, kind, length, position, raw_line, raw_value, code, reason"
        with self._doing, self._session() as session:
            session.query(f"INSERT INTO {SCHEMA}.load_errors ({names}) VALUES {rows}")

    def ran(self, query: Query) -> None:
        """Remember a query."""
        self._queries.append(query)

    def write_queries(self) -> None:
        """Put the queries that ran since into their table."""
        with self._doing:
            rows = []
            while self._queries:
                one = self._queries.popleft()
                times = [f"to_timestamp({at}) AT TIME ZONE 'UTC'" for at in (one.began, one.ended)]
                rows.append(f"({one.number}, {one.pid}, {one.transaction}, {literal(one.sql)}, {', '.join(times)}, {one.failed})")
            if rows:
                with self._session() as session:
                    session.query(f"INSERT INTO {SCHEMA}.queries VALUES {', '.join(rows)}")

    @contextlib.contextmanager
    def _session(self) -> Iterator[Backend]:
        session = Backend(self._address, self._values)
        try:
            yield session
        finally:
            session.close()


def _values(copy: Copy, query: int, pid: int, transaction: int, one: LoadProblem) -> list[str]:
    """The columns of a load error, as SQL has them."""
    column = one.column
    told: list[str | int | None] = [one.file, one.line, column.name if column else "", column.kind if column else ""]
    told += [(column.length or None) if column else None, one.position, one.raw_line, one.raw_value, one.code, one.reason]
    return [str(query), str(pid), str(transaction), f"to_regclass({literal(copy.table)})", *map(literal, told)]
