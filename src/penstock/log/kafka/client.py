"""Requests to the brokers, over kafka-python's connections and its protocol classes: everything but fetching, which is `reader`'s."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from typing import Any, Callable

from kafka import errors as kafka_errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from penstock.errors import ConfigurationError, PenstockError, UnavailableError
from penstock.log.kafka.problems import PASSING, UNAUTHORIZED, translated
from penstock.log.kafka.settings import Settings

CONNECT = 3.0  # seconds: the longest that a call waits for a first connection
ANSWER = 3.0  # and for the answer to a request
PATIENCE = 1.0  # how long what failed in passing is tried again
REST = 0.5  # after an outage was met, other calls fail at once for so long: they are made from a thread that must not be held up
STALE = 10.0  # of failures: then the brokers may all have moved, and are looked for from the start
IN_FLIGHT = 10_000  # requests of a connection: kafka-python refuses more instead of queueing them; those who send keep to less
log = logging.getLogger(__name__)
if logging.getLogger("kafka").level == logging.NOTSET:  # kafka-python logs each try of an outage several times; our errors say it once
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


class Client:
    """A connection to a cluster, made when it is first used and again after `close`. For any number of threads.

    Every call ends within a few seconds; UnavailableError says that it may be made again.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._guard = threading.Lock()
        self._manager: Any = None
        self._resting: tuple[float, PenstockError] | None = None
        self._failing_since: float | None = None

    def manager(self) -> Any:
        """kafka-python's connection manager, connected. Raises UnavailableError, or ConfigurationError where waiting cannot help."""
        self.check_rest()
        with self._guard:
            if self._manager is None:
                self.check_rest()
                self._manager = self._connected()
            return self._manager

    def check_rest(self) -> None:
        """Raise at once what was raised a moment ago, if an outage was met then."""
        resting = self._resting
        if resting is not None and time.monotonic() < resting[0]:
            raise UnavailableError(resting[1].message, hint=resting[1].hint)

    def rest(self, problem: PenstockError) -> PenstockError:
        """Note an outage, for `check_rest`, and return it. After a long one all connections are given up."""
        self._note(problem)
        if time.monotonic() - (self._failing_since or 0.0) > STALE:
            self.close()
        return problem

    def _note(self, problem: PenstockError) -> None:
        now = time.monotonic()
        self._resting = now + REST, problem
        self._failing_since = self._failing_since or now

    def _connected(self) -> Any:
        net = NetworkSelector(client_id=self.settings.client.get("client_id", "penstock"))
        given = {"client_id": "penstock", **self.settings.resolved()}
        manager: Any = None
        try:
            manager = KafkaConnectionManager(
                net,
                **given,
                reconnect_backoff_max_ms=500,
                receive_message_max_bytes=1 << 28,
                request_timeout_ms=30_000,
                max_in_flight_requests_per_connection=IN_FLIGHT,
            )
            net.start()
            manager.bootstrap(timeout_ms=CONNECT * 1000)
            return manager
        except Exception as problem:
            explained = self._explained(manager, problem)
            _shut(net, manager)
            self._note(explained)
            raise explained from problem

    def _explained(self, manager: Any, problem: Exception) -> PenstockError:
        """Why there is no connection. kafka-python only tells its log."""
        if not isinstance(problem, kafka_errors.KafkaTimeoutError):
            return translated(problem, f"Kafka at {self.settings.bootstrap}")
        explained = unreachable(self.settings)
        if explained.retriable and "sasl_mechanism" in self.settings.client:
            node = manager.cluster.bootstrap_brokers()[0].node_id

            async def connect() -> None:
                manager.reset_backoff(node)
                await manager.wait_for(manager.get_connection(node, refresh_metadata_on_err=False).init_future, CONNECT * 1000)

            try:
                manager.run(connect)
            except UNAUTHORIZED as refused:
                return translated(refused, f"Kafka at {self.settings.bootstrap}")
            except kafka_errors.KafkaError:
                # A broker that refuses a password says so and hangs up; kafka-python often sees only the latter.
                return UnavailableError(
                    f"Kafka at {self.settings.bootstrap} hangs up on every connection",
                    hint="most often the user name or the password is wrong: check kafka.sasl_plain_username and sasl_plain_password",
                )
        return explained

    def run(self, coroutine: Callable[..., Any], *arguments: Any) -> Any:
        """What a coroutine function returns that is run on the connection's own thread, where `manager().send` gives futures to await."""
        manager = self.manager()
        try:
            return manager.run(coroutine, *arguments)
        except (PenstockError, kafka_errors.KafkaError):
            raise
        except Exception as problem:  # the thread was stopped by a `close` meanwhile, or has crashed
            self._give_up(manager)
            raise UnavailableError(f"the connection to Kafka was closed meanwhile ({type(problem).__name__}: {problem})") from problem

    def ask(self, what: str, make: Callable[[Any], Any], node: int | None = None, patience: float = PATIENCE) -> Any:
        """The answer to a request. make: returns a new request, given the connection manager (one that was sent cannot be sent again).

        node: the broker to ask, any unless given. Raises what `translated` makes of errors, `what` naming the call.
        """
        manager = self.manager()
        until = time.monotonic() + patience

        async def once() -> Any:
            return await manager.wait_for(manager.send(make(manager), node_id=node), ANSWER * 1000)

        while True:
            try:
                answer = self.run(once)
                self._resting = self._failing_since = None
                return answer
            except PASSING as problem:
                if isinstance(problem, PenstockError):
                    raise
                if time.monotonic() > until or isinstance(problem, kafka_errors.KafkaTimeoutError):
                    raise self.rest(translated(problem, what)) from problem
            except kafka_errors.KafkaError as problem:
                raise translated(problem, what) from problem
            time.sleep(0.05)

    def later(self, coroutine: Callable[..., Any], *arguments: Any) -> Any:
        """Start a coroutine function on the connection's thread, if there is a connection. Returns its future, or None."""
        manager = self._manager
        try:
            return None if manager is None else manager.call_soon(coroutine, *arguments)
        except RuntimeError:
            return None

    def close(self) -> None:
        """Let go of connections. The next call makes new ones."""
        self._resting = self._failing_since = None
        self._give_up(self._manager)

    def _give_up(self, manager: Any) -> None:
        """Let go of the connections of `manager`, unless there are others by now."""
        with self._guard:
            if manager is None or manager is not self._manager:
                return
            self._manager = None
        _shut(manager._net, manager)


def _shut(net: Any, manager: Any) -> None:
    try:
        if manager is not None:
            manager.close()
        net.close()
    except Exception as problem:
        log.debug("while a connection to Kafka was closed: %s", problem)


def unreachable(settings: Settings) -> PenstockError:
    """What is wrong with the way to the brokers: looks once more, by hand."""
    hint = "check that the broker runs and kafka.bootstrap names it"
    for address in settings.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with socket.create_connection((host, int(port)), CONNECT / 3) as plain:
                if settings.encrypted:
                    _handshake(plain, host, settings)
        except ssl.SSLError as problem:
            reason = getattr(problem, "verify_message", "") or problem.reason or str(problem)
            return ConfigurationError(
                f"Kafka at {address}: no TLS connection: {reason}",
                hint="check kafka.ssl_cafile, ssl_certfile, ssl_check_hostname and the port",
            )
        except OSError as problem:
            return UnavailableError(f"Kafka at {address} cannot be reached: {problem.strerror or problem}", hint=hint)
    return UnavailableError(
        f"Kafka at {settings.bootstrap} accepts connections but does not answer",
        hint=hint + (", and that security_protocol is the one of that port" if not settings.encrypted else ""),
    )


def _handshake(plain: socket.socket, host: str, settings: Settings) -> None:
    given = settings.resolved()
    context = ssl.create_default_context(cafile=given.get("ssl_cafile"))
    context.check_hostname = given.get("ssl_check_hostname", True)
    if given.get("ssl_certfile"):
        context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"), given.get("ssl_password"))
    with context.wrap_socket(plain, server_hostname=host):
        return
