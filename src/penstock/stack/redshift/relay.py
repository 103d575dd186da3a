"""The relay: takes connections of Redshift's clients, and gives each a session of the PostgreSQL behind it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import socket
import struct
import threading
from dataclasses import dataclass, field

from penstock.stack.ports import HOST
from penstock.stack.redshift import statement, wire
from penstock.stack.redshift.backend import Backend, Refused
from penstock.stack.redshift.conflicts import Conflicts
from penstock.stack.redshift.faults import CONNECT, Faults
from penstock.stack.redshift.objects import Objects, Place
from penstock.stack.redshift.rewriting import SCHEMA
from penstock.stack.redshift.session import Session
from penstock.stack.redshift.statement import Statement
from penstock.stack.redshift.system import System
from penstock.stack.redshift.wire import Closed, Malformed, Stream, message, text

VERSION = "8.0.2"  # the PostgreSQL that Redshift says it is
_KEPT = ("database", "application_name", "client_encoding")  # of the start-up parameters; PostgreSQL refuses those that it does not know
_OPTIONS = "-c default_transaction_isolation=serializable -c timezone=UTC -c client_connection_check_interval=1000"


@dataclass(frozen=True)
class Settings:
    """host, port: where it listens; 0 for any free port. postgres: where PostgreSQL is. user: whom it knows there, whoever comes here.

    password: what clients have to know; None: nothing.
    """

    postgres: tuple[str, int]
    host: str = HOST
    port: int = 0
    user: str = "penstock"
    password: str | None = None
    s3: Place = field(default_factory=Place)


class Relay:
    """A server in threads, one a session. It listens from its making on; `close` ends it and all sessions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.conflicts = Conflicts()
        self.objects = Objects(settings.s3)
        self._queries = itertools.count(1)
        self._systems: dict[str, System] = {}
        self._sessions: dict[bytes, Session] = {}
        self._changing = threading.Lock()
        self._listener = socket.create_server((settings.host, settings.port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._closed = threading.Event()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        """Stop listening, and end all sessions: what they had not committed is rolled back."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changing:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.client.close()
            session.backend.close()

    def next_query(self) -> int:
        """The id of a query."""
        return next(self._queries)

    def parse(self, sql: str, database: str) -> Statement:
        """What a statement says. Raises Problem."""
        found = statement.parse(sql)
        if found.lengths:
            self.system(database).make_lengths(found.lengths)
        return found

    def forget(self, database: str) -> None:
        """A database is new, or another one than it was."""
        with self._changing:
            self._systems.pop(database, None)

    def system(self, database: str) -> System:
        """What the relay keeps in a database."""
        with self._changing:
            if database not in self._systems:
                self._systems[database] = System(self.settings.postgres, self.settings.user, database)
            return self._systems[database]

    @staticmethod
    def parameter(body: bytes) -> bytes:
        """A ParameterStatus of PostgreSQL's as Redshift would say it."""
        return b"server_version\0" + text(VERSION) if body.startswith(b"server_version\0") else body

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(Stream(connected),), name="relay-session", daemon=True).start()

    def _serve(self, client: Stream) -> None:
        backend: Backend | None = None
        try:
            values = self._greeted(client)
            if values is None:
                return
            if not self._knows(client, values.get("user", "")):
                return
            database = values.get("database") or values.get("user") or self.settings.user
            struck = self.faults.at(CONNECT, database)
            if struck:
                if struck[0].action == "error":
                    client.send(wire.error(struck[0].code, struck[0].message, severity="FATAL"))
                return
            backend = self._backend(client, {**values, "database": database})
            if backend is None:
                return
            if backend.query(f"SELECT to_regnamespace('{SCHEMA}')") == [[None]]:
                self.forget(database)
            self.system(database).make()
            session = Session(self, client, backend, database)
            with self._changing:
                self._sessions[backend.key] = session
            try:
                greeting = [(kind, self.parameter(body) if kind == b"S" else body) for kind, body in backend.greeting]
                client.send(b"".join(message(kind, body) for kind, body in greeting) + message(b"Z", b"I"))
                session.run()
            finally:
                with self._changing:
                    self._sessions.pop(backend.key, None)
        except Refused as problem:
            with contextlib.suppress(Closed):
                client.send(message(b"E", problem.body))
        except Malformed as problem:
            with contextlib.suppress(Closed):
                client.send(wire.error("08P01", f"invalid frontend message: {problem}", severity="FATAL"))
        except Closed:
            pass
        finally:
            client.close()
            if backend is not None:
                backend.close()

    def _greeted(self, client: Stream) -> dict[str, str] | None:
        """The parameters that a client starts with; None for one that wanted something else. Raises Closed and Malformed."""
        while True:
            asked, body = client.start()
            if asked in (wire.SSL, wire.GSS):
                client.send(b"N")
            elif asked == wire.CANCEL:
                self._cancel(body)
                return None
            elif asked >> 16 == 3:
                return wire.parameters(body)
            else:
                raise Malformed(f"protocol {asked >> 16}.{asked & 0xFFFF}")

    def _knows(self, client: Stream, user: str) -> bool:
        """Whether a client knows the password. MD5, as Redshift asks those that do not speak its newer digests."""
        wanted = self.settings.password
        if wanted is None:
            return True
        salt = secrets.token_bytes(4)
        client.send(message(b"R", struct.pack(">i", 5) + salt))
        kind, body = client.message(wire.LARGEST_START)
        inner = hashlib.md5(f"{wanted}{user}".encode(), usedforsecurity=False).hexdigest()
        right = b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()
        if kind == b"p" and secrets.compare_digest(body.rstrip(b"\0"), right):
            return True
        client.send(wire.error("28000", f'password authentication failed for user "{user}"', severity="FATAL"))
        return False

    def _backend(self, client: Stream, values: dict[str, str]) -> Backend | None:
        kept = {name: values[name] for name in _KEPT if values.get(name)}
        try:
            return Backend(self.settings.postgres, {"user": self.settings.user, **kept, "options": _OPTIONS})
        except Refused as problem:
            client.send(message(b"E", problem.body))
        except Closed as problem:
            client.send(wire.error("08006", str(problem) or "PostgreSQL has closed the connection", severity="FATAL"))
        return None

    def _cancel(self, key: bytes) -> None:
        with self._changing:
            session = self._sessions.get(key)
        if session is not None:
            session.cancelled.set()
            session.backend.cancel()


__all__ = ["Relay", "Settings"]
