"""PostgreSQL's wire protocol, version 3: framing, and the few messages that the relay makes or reads itself."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Iterator, Mapping, Protocol, Sequence

PROTOCOL, SSL, CANCEL, GSS = 196_608, 80_877_103, 80_877_102, 80_877_104  # what the first packet of a connection may ask for
LARGEST_START = 10_000  # bytes of that packet
LARGEST = 64 << 20  # bytes of any later message of a client
_CHUNK = 256 << 10  # bytes read from a socket at a time


class Sink(Protocol):
    """What takes bytes."""

    def send(self, data: bytes) -> None:
        """Take them."""


Message = tuple[bytes, bytes]  # its letter and its body


class Malformed(Exception):
    """A frame that is none."""


class Closed(Exception):
    """The other side has closed the connection."""


class Stream:
    """One side of a connection, read a message at a time through a buffer."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._at = 0

    @property
    def buffered(self) -> bool:
        """Whether bytes have arrived that nobody has read yet."""
        return len(self._buffer) > self._at

    def send(self, data: bytes) -> None:
        """Send all of it. Raises Closed."""
        try:
            self.socket.sendall(data)
        except OSError:
            raise Closed from None

    def read(self, count: int) -> bytes:
        """Exactly so many bytes. Raises Closed."""
        while len(self._buffer) - self._at < count:
            self._fill()
        data = bytes(self._buffer[self._at : self._at + count])
        self._at += count
        return data

    def message(self, largest: int = 1 << 30) -> Message:
        """The next message. Raises Closed, and Malformed for a length that is none or above `largest`."""
        kind, length = struct.unpack(">ci", self.read(5))
        if not 4 <= length <= largest or not kind.isalpha() and kind not in b"123":
            raise Malformed(f"a message {kind!r} of {length} bytes")
        return kind, self.read(length - 4)

    def start(self) -> tuple[int, bytes]:
        """The first packet of a connection: what it asks for, and the rest. Raises Closed and Malformed."""
        (length,) = struct.unpack(">i", self.read(4))
        if not 8 <= length <= LARGEST_START:
            raise Malformed(f"a first packet of {length} bytes")
        body = self.read(length - 4)
        return struct.unpack_from(">i", body)[0], body[4:]

    def rows(self, out: Sink) -> None:
        """Pass data rows on, as they come and as many as there are: what follows is not one, or was cut by the end of the buffer."""
        while True:
            at, end, buffer = self._at, len(self._buffer), self._buffer
            while at + 5 <= end and buffer[at] == 0x44:
                length = int.from_bytes(buffer[at + 1 : at + 5], "big")
                if at + 1 + length > end:
                    break
                at += 1 + length
            if at > self._at:
                out.send(bytes(buffer[self._at : at]))
                self._at = at
            if end - at >= 5 and buffer[at] == 0x44:  # a row that is here in part
                if length > _CHUNK:
                    self._pass(1 + length, out)
                else:
                    self._fill()
            elif end - at < 5:
                self._fill()
            else:
                return

    def _pass(self, count: int, out: Sink) -> None:
        """Pass so many bytes on without ever holding all of them."""
        while count:
            if not self.buffered:
                self._fill()
            piece = bytes(self._buffer[self._at : self._at + count])
            self._at += len(piece)
            count -= len(piece)
            out.send(piece)

    def _fill(self) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        try:
            data = self.socket.recv(_CHUNK)
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        self._buffer += data

    def close(self) -> None:
        """Close it, whatever the other side does; another thread that waits on it wakes up."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def hung_up(stream: Stream) -> bool:
    """Whether the other side has closed, and nothing of it is left to read."""
    try:
        readable, _, _ = select.select([stream.socket], [], [], 0)
        return bool(readable) and stream.socket.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message, framed."""
    return kind + struct.pack(">i", len(body) + 4) + body


def text(value: str) -> bytes:
    """A string as the protocol has it."""
    return value.encode() + b"\0"


def first(what: int, body: bytes = b"") -> bytes:
    """The first packet of a connection."""
    return struct.pack(">ii", len(body) + 8, what) + body


def parameters(body: bytes) -> dict[str, str]:
    """The parameters of a start-up packet, in their order. Raises Malformed."""
    words = body.rstrip(b"\0").split(b"\0")
    if len(words) % 2:
        raise Malformed("start-up parameters that are not pairs")
    try:
        return {key.decode(): value.decode() for key, value in zip(words[::2], words[1::2])}
    except UnicodeDecodeError:
        raise Malformed("start-up parameters that are not UTF-8") from None


def start_up(values: Mapping[str, str]) -> bytes:
    """The first packet of a session."""
    return first(PROTOCOL, b"".join(text(key) + text(value) for key, value in values.items()) + b"\0")


def error(code: str, said: str, detail: str = "", hint: str = "", *, severity: str = "ERROR") -> bytes:
    """An ErrorResponse."""
    fields = {b"S": severity, b"C": code, b"M": said, b"D": detail, b"H": hint}
    return message(b"E", b"".join(letter + text(value) for letter, value in fields.items() if value) + b"\0")


def fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their letters."""
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in body.split(b"\0") if part}


def row(body: bytes) -> list[str | None]:
    """The values of a DataRow in text format."""
    return [None if value is None else value.decode() for value in _values(body)]


def _values(body: bytes) -> Iterator[bytes | None]:
    (count,) = struct.unpack_from(">h", body)
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        yield None if length < 0 else body[at : at + length]
        at += max(length, 0)


def row_description(names: Sequence[str]) -> bytes:
    """A RowDescription of text columns."""
    columns = b"".join(text(name) + struct.pack(">ihihih", 0, 0, 25, -1, -1, 0) for name in names)
    return message(b"T", struct.pack(">h", len(names)) + columns)
