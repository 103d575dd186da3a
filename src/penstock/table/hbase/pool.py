"""Connections to one Thrift server, shared by threads: opened when first needed, replaced when they break.

What a connection can meet, and what is done:

- The server has closed it while it lay idle (a Thrift server does so after hbase.thrift.server.socket.read.timeout, 60 s by default), or was
  restarted: this machine has heard of that, so that looking at the socket before use finds out, and nothing was sent yet.
- It breaks, or no answer comes in time: whether the request took effect is not known. It is closed, and with it all that lie idle, since what broke
  it broke them; a request that may be repeated is sent again on a new one, after a back-off, until its time is over.
- The server answers an error: the connection is sound. It is not repeated here, for the server's own client of HBase has tried for long enough.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Callable, TypeVar

from thriftpy2.thrift import TApplicationException, TException
from thriftpy2.transport import TTransportException

from penstock.errors import ConfigurationError, PenstockError, UnavailableError
from penstock.table.hbase.connection import GARBLED, Connection
from penstock.table.hbase.faults import meaning

T = TypeVar("T")
_MAX_IDLE = 45.0  # seconds: short of the server's 60, so that none is used at the moment in which the server hangs up
_BACKOFF = (0.05, 1.0)  # seconds: the first pause and the longest


class Pool:
    """Up to `size` connections to a Thrift server that speaks `service`. Opens none until the first call.

    timeout: how many seconds a call may take, waiting for a free connection, opening one and repeating included.
    """

    def __init__(self, host: str, port: int, service: Any, *, size: int, timeout: float) -> None:
        self._address = (host, port)
        self.name = f"HBase's Thrift server at {host}:{port}"
        self._service = service
        self._size = size
        self._timeout = timeout
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._reached = False  # whether a connection was ever made: until then a wrong address is likelier than a restart
        self._closed = False

    def call(self, work: Callable[[Connection], T], *, table: str | None = None, repeat: bool = True, timeout: float | None = None) -> T:
        """What `work`, one or more requests, returns on a connection.

        table: what it is about, without prefix, for messages. repeat: whether it may be done twice. timeout: seconds, instead of the pool's.
        Raises UnavailableError when the server does not answer in time (what was asked may have taken effect, or may still), and what
        `faults.meaning` makes of the server's errors.
        """
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        pause = _BACKOFF[0]
        if not self._free.acquire(timeout=seconds):
            raise UnavailableError(f"all {self._size} connections to {self.name} have been busy for {seconds:g} s")
        try:
            while True:
                sent = False
                try:
                    connection = self._take(deadline)
                    sent = True
                    return self._use(connection, work, table)
                except (OSError, TTransportException) as problem:
                    if isinstance(problem, PenstockError):
                        raise
                    if (sent and not repeat) or not self._reached or time.monotonic() + pause >= deadline:
                        raise self._lost(problem, seconds, sent) from problem
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _BACKOFF[1])
        finally:
            self._free.release()

    def close(self) -> None:
        """Hang up. Connections that are in use are closed when their call ends."""
        with self._lock:
            self._closed = True
        self._hang_up()

    def _take(self, deadline: float) -> Connection:
        """A connection that is not known to be broken: one that lies idle, or a new one."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = Connection(self._address, self._service, deadline)
                self._reached = True
                return connection
            if time.monotonic() - connection.idle_since < _MAX_IDLE and not connection.is_stale():
                connection.begin(deadline)
                return connection
            connection.close()

    def _use(self, connection: Connection, work: Callable[[Connection], T], table: str | None) -> T:
        sound = False
        try:
            answer = work(connection)
            sound = True
            return answer
        except (TTransportException, OSError):
            self._hang_up()
            raise
        except GARBLED as problem:
            raise ConfigurationError(
                f"{self.name} does not speak Thrift's binary protocol ({problem})",
                hint="start it with the buffered transport and the binary protocol, which are the defaults: without -f and -c",
            ) from problem
        except TException as problem:
            # A server that could not read a request leaves the rest of it in the stream.
            sound = not isinstance(problem, TApplicationException)
            raise meaning(problem, self.name, table) from problem
        finally:
            if sound:
                connection.idle_since = time.monotonic()
                with self._lock:
                    sound = not self._closed
                    if sound:
                        self._idle.append(connection)
            if not sound:
                connection.close()

    def _hang_up(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _lost(self, problem: Exception, seconds: float, sent: bool) -> UnavailableError:
        reason = f"has not answered within {seconds:g} s" if isinstance(problem, TimeoutError) else f"cannot be reached ({problem})"
        if sent and not isinstance(problem, TimeoutError):
            reason = f"has broken the connection ({problem})"
        return UnavailableError(f"{self.name} {reason}", hint="see that it runs, and that the deployment's [hbase] names its host and port")
