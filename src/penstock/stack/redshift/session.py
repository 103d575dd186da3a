"""A client's session: its messages taken a group at a time, passed on or acted upon, and answered in order."""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Callable

from penstock.stack.redshift import problems, wire
from penstock.stack.redshift.backend import Backend, Refused, literal
from penstock.stack.redshift.columns import LoadProblem
from penstock.stack.redshift.problems import Problem
from penstock.stack.redshift.statement import Statement, split
from penstock.stack.redshift.system import Query
from penstock.stack.redshift.wire import Closed, Malformed, Message, Stream, message, text

if TYPE_CHECKING:
    from penstock.stack.redshift.relay import Relay

_UNKNOWN = Statement("", "", "")
_ENDS = {b"P": b"1", b"B": b"2", b"C": b"3", b"E": b"CIs", b"D": b"Tn"}  # what answers each message, at last
_SUPER = re.compile(re.escape(struct.pack(">ihi", 3802, -1, -1)))  # jsonb in a RowDescription
_AS_SUPER = struct.pack(">ihi", 4000, -1, -1)
_LONGEST = 4_000  # characters of a statement that the system tables keep
_LARGEST_SQL = 16 << 20  # bytes: Redshift's own limit


class Session:
    """One connection of a client, and the one of PostgreSQL behind it."""

    def __init__(self, relay: Relay, client: Stream, backend: Backend, database: str) -> None:
        self.relay, self.client, self.backend, self.database = relay, client, backend, database
        self.cancelled = threading.Event()
        backend.watch = self._watch
        self._to: Stream | _Nowhere = client  # where answers go
        self._prepared: dict[bytes, Statement] = {}
        self._portals: dict[bytes, Statement] = {}
        self._temporary: set[str] = set()
        self._locked: set[str] = set()  # tables that this transaction has locked to write them
        self._transaction = relay.conflicts.begin()
        self._open = False  # whether this group has begun a transaction, of which the status tells only at its end
        self._own = False  # whether the transaction is the relay's, around one statement of a client without one
        self._out = bytearray()  # for PostgreSQL, not sent yet
        self._awaited: deque[bytes] = deque()  # the messages whose answers have not come
        self._failed = False  # whether what comes until the next Sync is skipped
        self._began: list[tuple[int, str, float]] = []  # the queries of this group: their ids, texts and times
        self._copied: tuple[int, int] | None = None  # the last COPY: its id and its rows

    def run(self) -> None:
        """Serve until either side closes."""
        while True:
            kind, body = self.client.message(wire.LARGEST)
            if kind == b"X":
                return
            if kind == b"S":
                self._sync()
            elif kind == b"Q":
                self._simple(body)
            elif kind == b"H":
                if not self.client.buffered:  # else more of the group is here: it is sent as one
                    self._flush()
            elif not self._failed:
                with contextlib.suppress(_Skipped):
                    self._guarded(self._extended, kind, body)

    def _guarded(self, work: Callable[..., None], *told: bytes) -> None:
        """Do something, and answer with what is wrong about it. Raises _Skipped."""
        try:
            work(*told)
        except Problem as problem:
            self._refuse(problem)
        except Refused as problem:
            self._fail(message(b"E", problems.translated(problem.body)))
        except (Closed, Malformed, _Skipped):
            raise
        except Exception as problem:  # a fault of ours: the client hears of it, and the log has the rest
            logging.exception("a statement of %s", self.database)
            self._refuse(Problem(f"the stand-in fails: {type(problem).__name__}: {problem}", hint="this is a fault of Penstock"))

    def _extended(self, kind: bytes, body: bytes) -> None:
        """A message of the extended protocol."""
        if kind == b"P":
            self._parse(body)
        elif kind == b"B":
            portal, name, _ = _names(body, 2)
            self._portals[portal] = found = self._prepared.get(name, _UNKNOWN)
            if found.copy:
                self._answer(message(b"2"))
            else:
                self._before(found)
                self._pass(kind, body)
        elif kind == b"D":
            if self._named(body[:1], body[1:]).copy:
                self._answer((message(b"t", b"\0\0") if body[:1] == b"S" else b"") + message(b"n"))
            else:
                self._pass(kind, body)
        elif kind == b"E":
            self._execute(self._portals.get(_names(body, 1)[0], _UNKNOWN), body)
        elif kind == b"C":
            found = self._named(body[:1], body[1:])
            (self._prepared if body[:1] == b"S" else self._portals).pop(body[1:].rstrip(b"\0"), None)
            if found.copy:
                self._answer(message(b"3"))
            else:
                self._pass(kind, body)
        else:
            raise Malformed(f"a message {kind!r}, which no client sends")

    @property
    def _inside(self) -> bool:
        """Whether a transaction is open, and sound."""
        return self.backend.status == b"T" or self._open

    def _named(self, what: bytes, name: bytes) -> Statement:
        return (self._prepared if what == b"S" else self._portals).get(name.rstrip(b"\0"), _UNKNOWN)

    def _parse(self, body: bytes) -> None:
        name, sql, rest = _names(body, 2)
        if len(sql) > _LARGEST_SQL:
            raise Problem(f"Statement is too large. Statement Size: {len(sql)} bytes. Maximum Allowed: {_LARGEST_SQL} bytes", code="54001")
        found = self.relay.parse(_decoded(sql), self.database)
        self._prepared[name] = found
        if found.copy:
            self._answer(message(b"1"))
            return
        if self._inside or not name:  # PostgreSQL takes the snapshot as it parses, and forgets one without a name at the next simple query
            self._before(found)
        self._pass(b"P", name + b"\0" + text(found.sql) + rest)

    def _execute(self, found: Statement, body: bytes) -> None:
        if found.copy:
            self._before(found)
            self._run(found)
            self._flush()
            self._copy(found)
        else:
            self._run(found)
            self._pass(b"E", body)
            self._after(found)

    def _after(self, found: Statement) -> None:
        """What belongs to a statement that has run."""
        if found.after:
            self._flush()
            if found.after == "COMMIT":
                self.relay.conflicts.commit(self._transaction, self.database)
            self._quiet(found.after)
            if found.after == "COMMIT":
                self._own = False

    def _run(self, found: Statement) -> None:
        """A statement is about to run: here its fault strikes, if it has one, and here Redshift finds a conflict. Raises Problem and Closed."""
        if found.alone and (self.backend.status != b"I" or self._open):
            raise Problem(f"{found.alone} cannot run inside a transaction block", code=problems.IN_TRANSACTION)
        self._began.append((self.relay.next_query(), found.original[:_LONGEST], time.time()))
        struck = self.relay.faults.at(found.original, self.database)
        if struck:
            self._flush()
            fault, cleared = struck
            if fault.action == "drop-before":
                raise Closed
            if fault.action == "drop-after":
                self._to = _Nowhere()
            elif fault.action == "hold":
                self._hold(cleared)
            elif fault.action == "error":
                raise Problem(fault.message, code=fault.code)
            else:
                raise problems.violation(100_000, (self._transaction.number, self._transaction.number + 1), self.backend.pid)
        if self.backend.status == b"E":
            return
        other = self.relay.conflicts.look(self._transaction, found, self.database) if found.name not in self._temporary else None
        if other is not None:
            self._flush()
            table = self.backend.query(f"SELECT {literal(found.writes)}::regclass::oid")[0][0]
            raise problems.violation(int(table or 0), (self._transaction.number, other), self.backend.pid)
        if found.ends and self._inside:
            self.relay.conflicts.commit(self._transaction, self.database)
        if found.temporary:
            self._temporary.add(found.temporary)
        if found.kind in ("begin", "start"):
            self._open = True

    def _hold(self, cleared: threading.Event) -> None:
        """Wait until a fault is cleared, or the client has gone."""
        while not cleared.wait(0.05):
            if wire.hung_up(self.client):
                raise Closed

    def _before(self, found: Statement) -> None:
        """What has to be done before PostgreSQL looks at a statement that writes: the table is locked, as Redshift does."""
        if found.history:
            self.relay.system(self.database).write_queries()
        if not (found.writes or found.after) or found.writes and found.name in self._temporary:
            return
        if self.backend.status == b"I" and not self._own and not self._open:
            self._flush()
            self._quiet("BEGIN")
            self._own = True
        if found.writes and found.name not in self._locked and self._inside:
            self._flush()
            self._quiet(f"LOCK TABLE {found.writes} IN SHARE ROW EXCLUSIVE MODE")
            self._locked.add(found.name)

    def _copy(self, found: Statement) -> None:
        """A COPY from S3."""
        from penstock.stack.redshift.loading import Loading

        assert found.copy
        if self.backend.status == b"E":
            raise Problem("current transaction is aborted, commands ignored until end of transaction block", code=problems.ABORTED)
        query = self._began[-1][0]
        errors: list[LoadProblem] = []
        self.cancelled.clear()
        try:
            loading = Loading(self.backend, self.relay.objects, found.copy, query, errors.append, self._gone)
            rows = loading.run()
        finally:
            if errors:
                self.relay.system(self.database).record(found.copy, query, self.backend.pid, self._transaction.number, errors)
        self._copied = (query, rows)
        self._say_copied()
        said = f"Load into table '{found.name}' completed, {rows} record(s) loaded successfully."
        if loading.skipped:
            said = f"Load into table '{found.name}' completed, {loading.skipped} record(s) could not be loaded.  Check 'stl_load_errors' system table for details."
        self._to.send(message(b"N", wire.error("00000", said, severity="INFO")[5:]) + message(b"C", b"COPY\0"))

    def _say_copied(self) -> None:
        """Let the session know its last COPY."""
        if self._copied and self.backend.status != b"E":
            query, rows = self._copied
            self._quiet(
                f"SELECT set_config('redshift.last_copy_id', '{query}', false), set_config('redshift.last_copy_count', '{rows}', false)"
            )

    def _gone(self) -> bool:
        return self.cancelled.is_set() or wire.hung_up(self.client)

    def _simple(self, body: bytes) -> None:
        """A simple query: each of its statements as if it came by the extended protocol."""
        if self._awaited or self._failed:
            raise Malformed("a simple query within a group of the extended protocol")
        self._guarded(self._query, body.rstrip(b"\0"))
        self._end()

    def _query(self, sql: bytes) -> None:
        parts = split(_decoded(sql))
        for part in parts if len(parts) > 1 else [_decoded(sql)]:
            found = self.relay.parse(part, self.database)
            self._before(found)
            self._run(found)
            if found.copy:
                self._copy(found)
            else:
                self.backend.send(message(b"Q", text(found.sql)))
                self._relay_until_ready()
                if self._failed:
                    return
                self._after(found)

    def _sync(self) -> None:
        """The end of a group: what is left of it is sent, and PostgreSQL says where the transaction stands."""
        self.backend.send(bytes(self._out) + message(b"S"))
        self._out.clear()
        self._relay_until_ready()
        self._end()

    def _end(self) -> None:
        """Answer ReadyForQuery, after the end of a transaction that was the relay's."""
        if self._own:
            self._own = False
            try:
                failed = self._failed or self.backend.status == b"E"
                if not failed:
                    self.relay.conflicts.commit(self._transaction, self.database)
                self._quiet("ROLLBACK" if failed else "COMMIT")
            except Refused as problem:
                self._to.send(message(b"E", problems.translated(problem.body)))
        self._log()
        self._failed = self._open = False
        if self.backend.status == b"I":
            if self._copied and self._locked:
                self._say_copied()  # the end of the transaction may have taken it back
            self._locked.clear()
            self._transaction = self.relay.conflicts.begin()
        self._to.send(message(b"Z", self.backend.status))
        if self._to is not self.client:  # what the client was not to hear of has taken effect
            raise Closed

    def _log(self) -> None:
        """Remember what ran, for the system tables."""
        now, system = time.time(), self.relay.system(self.database)
        for number, sql, began in self._began:
            system.ran(Query(number, self.backend.pid, self._transaction.number, sql, began, now, self._failed))
        self._began.clear()

    def _refuse(self, problem: Problem) -> None:
        """Answer with an error of the relay's, which ends the transaction as any error does."""
        self._flush()
        if self.backend.status == b"T":
            with contextlib.suppress(Refused):
                self._quiet("DO $$ BEGIN RAISE EXCEPTION 'refused by the relay'; END $$")
        self._fail(problem.response())

    def _fail(self, response: bytes) -> None:
        self._failed = True
        self._to.send(response)

    def _quiet(self, sql: str) -> None:
        """A statement of the relay's own, of which the client hears nothing. Raises Refused."""
        self.backend.query(sql)

    def _answer(self, response: bytes) -> None:
        """Answer in PostgreSQL's place, after what it has to say before."""
        self._flush()
        self._to.send(response)

    def _pass(self, kind: bytes, body: bytes) -> None:
        self._out += message(kind, body)
        self._awaited.append(kind)

    def _flush(self) -> None:
        """Send what is held for PostgreSQL, and pass its answers on. Raises _Skipped if one of them is an error: what follows is not for it."""
        if not self._awaited:
            return
        self.backend.send(bytes(self._out) + message(b"H"))
        self._out.clear()
        while self._awaited:
            kind, body = self._next()
            self._take(kind, body)
        if self._failed:
            raise _Skipped

    def _relay_until_ready(self) -> None:
        """Pass answers on until PostgreSQL is ready, but for its saying so."""
        while True:
            kind, body = self._next()
            if kind == b"Z":
                self._awaited.clear()
                self.backend.status = body
                return
            self._take(kind, body)

    def _take(self, kind: bytes, body: bytes) -> None:
        """Pass an answer on."""
        if kind == b"E":
            self._awaited.clear()
            self._failed = True
            body = problems.translated(body)
        elif kind == b"T":
            body = _SUPER.sub(_AS_SUPER, body)
        if kind != b"E" and self._awaited and kind in _ENDS[self._awaited[0]]:
            self._awaited.popleft()
        if kind == b"S":
            body = self.relay.parameter(body)
        self._to.send(message(kind, body))

    def _next(self) -> Message:
        """The next message of PostgreSQL but rows, which are passed on."""
        self.backend.rows(self._to)
        return self.backend.message()

    def _watch(self) -> None:
        """End what PostgreSQL does, if the client has gone. Raises Closed."""
        if wire.hung_up(self.client):
            self.backend.cancel()
            raise Closed


class _Nowhere:
    """Where answers go that nobody gets."""

    def send(self, data: bytes) -> None:
        """Nothing."""


class _Skipped(Exception):
    """PostgreSQL has met an error within a group, and takes nothing more of it."""


def _names(body: bytes, count: int) -> tuple[bytes, ...]:
    """So many strings that a message begins with, and what follows them. Raises Malformed."""
    parts = body.split(b"\0", count)
    if len(parts) != count + 1:
        raise Malformed("a message that is cut short")
    return tuple(parts)


def _decoded(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError:
        raise Problem('invalid byte sequence for encoding "UTF8"', code="22021") from None
