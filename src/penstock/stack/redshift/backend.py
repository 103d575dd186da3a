"""A session of the PostgreSQL behind the relay."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Callable, Mapping, Sequence

from penstock.stack.redshift import wire
from penstock.stack.redshift.wire import Closed, Stream, message, text


_LOOK = 1.0  # seconds between two calls of `watch`


class Refused(Exception):
    """PostgreSQL answered with an error. body: that of its ErrorResponse."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.fields = wire.fields(body)
        super().__init__(self.fields.get("M", "an error"))


class Backend(Stream):
    """A connection to PostgreSQL that is past its start. greeting: the messages that PostgreSQL began with, but the last."""

    def __init__(self, address: tuple[str, int], values: Mapping[str, str], timeout: float = 30.0) -> None:
        try:
            connected = socket.create_connection(address, timeout)
        except OSError as problem:
            raise Closed(f"PostgreSQL cannot be reached at {address[0]}:{address[1]}: {problem}") from None
        connected.settimeout(None)
        super().__init__(connected)
        self.address = address
        self.greeting: list[wire.Message] = []
        self.key = b""  # what a cancel request has to say
        self.status = b"I"  # I: no transaction, T: in one, E: in one that has failed
        self.watch: Callable[[], None] = lambda: None  # called now and then while PostgreSQL is waited for; it may raise
        try:
            self.send(wire.start_up(values))
            while True:
                kind, body = self.message()
                if kind == b"E":
                    raise Refused(body)
                if kind == b"R" and body[:4] != b"\0\0\0\0":
                    raise Closed("the PostgreSQL behind the relay asks for a password: it has to trust this machine")
                if kind == b"K":
                    self.key = body
                if kind == b"Z":
                    self.status = body
                    return
                self.greeting.append((kind, body))
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        try:
            while not select.select([self.socket], [], [], _LOOK)[0]:
                self.watch()
        except (OSError, ValueError):  # it was closed meanwhile, by another thread
            raise Closed from None
        super()._fill()

    @property
    def pid(self) -> int:
        """The id of the session's process."""
        return int.from_bytes(self.key[:4], "big")

    def answer(self) -> wire.Message:
        """The next message that is no notice."""
        while True:
            kind, body = self.message()
            if kind not in (b"N", b"S", b"A"):
                return kind, body

    def query(self, sql: str) -> list[list[str | None]]:
        """The rows of a statement, of the last one if there are several. Raises Refused and Closed."""
        self.send(message(b"Q", text(sql)))
        rows: list[list[str | None]] = []
        problem: Refused | None = None
        while True:
            kind, body = self.message()
            if kind == b"T":
                rows = []
            elif kind == b"D":
                rows.append(wire.row(body))
            elif kind == b"E":
                problem = Refused(body)
            elif kind == b"Z":
                self.status = body
                if problem:
                    raise problem
                return rows

    def cancel(self) -> None:
        """Ask PostgreSQL to stop what the session does at this moment."""
        with contextlib.suppress(OSError), socket.create_connection(self.address, 5) as asking:
            asking.sendall(wire.first(wire.CANCEL, self.key))
            asking.recv(1)  # until PostgreSQL has taken it


def literal(value: str | int | None) -> str:
    """A value as SQL has it."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\0", "").replace("'", "''") + "'"


def quoted(names: Sequence[str]) -> str:
    """Identifiers, separated by commas."""
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)
