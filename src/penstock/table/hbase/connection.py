"""One connection to a Thrift server: buffered transport, binary protocol, every request with a deadline.

thriftpy2 reads and writes the messages, happybase brings HBase's interface; the socket is ours. thriftpy2's own has a timeout for each read and
none for the whole answer, speaks IPv4 alone, and does not say why it could not connect.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Sequence

from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.protocol.exc import TProtocolException
from thriftpy2.thrift import TApplicationException, TClient, TException, TMessageType
from thriftpy2.transport import TBufferedTransport, TTransportException

from penstock.kernels import RowsReply
from penstock.table.hbase.faults import QUALIFIER

try:
    from thriftpy2.protocol.cybin import ProtocolError  # type: ignore[attr-defined]
except ImportError:  # where thriftpy2 was built without Cython
    ProtocolError = TProtocolException

GARBLED = (ProtocolError, TProtocolException)  # what reading bytes raises that are not Thrift's binary protocol
_transport: Any = TBufferedTransport  # thriftpy2 gives them no types
_protocol: Any = TBinaryProtocol
_BUFFER = 1 << 16  # bytes: thriftpy2's 4 KiB make sixteen times the system calls


class Connection:
    """A connection that is open. `client` has the methods of the service; each raises OSError when the connection breaks.

    It speaks for one request at a time, after `begin`. Once a request has failed in any way but with an answer of the server, what arrives next
    would be the answer to that one: it must be closed. address: host and port. service: the thriftpy2 module of the interface.
    """

    def __init__(self, address: tuple[str, int], service: Any, deadline: float) -> None:
        self._deadline = deadline
        self._socket = socket.create_connection(address, timeout=self._left())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._protocol = _protocol(_transport(self, _BUFFER), decode_response=False)
        self._service = service
        self.client: Any = TClient(service, self._protocol)
        self._unread = b""  # of the stream, and not yet taken
        self.idle_since = time.monotonic()

    def begin(self, deadline: float) -> None:
        """Until when, by time.monotonic(), the next requests have to be answered."""
        self._deadline = deadline

    def is_stale(self) -> bool:
        """Whether the other side has hung up while the connection lay idle, as far as this machine has heard. Asks nobody."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True  # an end of the stream, or bytes that no request has asked for

    def request(self, name: str, message: bytes) -> None:
        """Send a call that was encoded before and wait for its answer, one without a result. Raises the exceptions that the call declares."""
        self.write(message)
        answered, kind, _ = self._protocol.read_message_begin()
        if kind == TMessageType.EXCEPTION:
            refusal = TApplicationException()
            refusal.read(self._protocol)
            raise refusal
        if answered not in (name, name.encode()):
            raise ConnectionError(f"the answer is to {answered!r}, not to {name}")
        result = getattr(self._service, f"{name}_result")()
        result.read(self._protocol)
        self._protocol.read_message_end()
        for problem in vars(result).values():
            if problem is not None:
                raise problem

    def rows(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[RowsReply] | None:
        """Send calls that give rows, by name and named arguments, and then take their answers.

        One that the server refuses is raised as what the call declares; of several, None: none of them tells whose it is. The requests have to be small: the
        server may write the first answer before it reads the last request.
        """
        for name, arguments in calls:
            self.client._send(name, **arguments)
        replies: list[RowsReply] = []
        rest = b""
        for name, _ in calls:
            reply = RowsReply(name.encode(), QUALIFIER)
            try:
                whole = reply.feed(rest)
                while not whole:
                    whole = reply.feed(self.read(_BUFFER))
            except ValueError as problem:
                if reply.begun:
                    raise ConnectionError(f"the answer to {name} breaks off: {problem}") from None
                self._unread = reply.rest
                self._refused(calls[len(replies) :], len(calls) > 1)
                return None
            replies.append(reply)
            rest = reply.rest
        if rest:
            raise ConnectionError("more was answered than was asked")
        return replies

    def _refused(self, calls: Sequence[tuple[str, dict[str, Any]]], several: bool) -> None:
        """Take the answers that are left, of which the first is an exception; raise it, unless there are `several`."""
        for name, _ in calls:
            try:
                self.client._recv(name)
            except TException as problem:
                if not several or isinstance(problem, (TTransportException, TApplicationException)):
                    raise
        if not several:
            raise ConnectionError(f"the answer to {calls[0][0]} is neither rows nor an error")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def read(self, size: int) -> bytes:
        """Some bytes, for thriftpy2's transport. Raises OSError at the end of the stream."""
        if self._unread:
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        self._socket.settimeout(self._left())
        data = self._socket.recv(size)
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        return data

    def write(self, data: bytes) -> None:
        """Send bytes, for thriftpy2's transport."""
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def flush(self) -> None:
        """For thriftpy2's transport, which asks for it: `write` holds nothing back."""

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left
