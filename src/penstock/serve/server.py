"""Running the application: uvicorn, in one process or several, on a socket that listens before anything is said of it."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from penstock.deployment import Deployment
from penstock.errors import ConfigurationError, UsageError
from penstock.serve.app import create_app
from penstock.serve.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

_DEPLOYMENT = "PENSTOCK_SERVE_DEPLOYMENT"  # from the command to its worker processes
_BACKLOG = 2048  # connections that wait to be taken: uvicorn's own default
_GRACE = 10  # seconds that requests have to end once the server is told to stop
_SECRET_PARAMETER = re.compile(r"([?&](?:key|token)=)[^&\s]*")


class Redacted(logging.Filter):
    """Takes keys and tokens out of the addresses in the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        if isinstance(record.args, tuple):
            record.args = tuple(_SECRET_PARAMETER.sub(r"\1…", one) if isinstance(one, str) else one for one in record.args)
        return True


def application() -> FastAPI:
    """The application of a worker process, which learns from its environment what to serve."""
    logs()
    service = Service(Deployment.from_json(os.environ[_DEPLOYMENT]))
    _announce(service)
    return create_app(service)


def _announce(service: Service) -> None:
    """Let live streams know when the server is told to stop: it waits for requests to end, and they would never end by themselves.

    uvicorn's own handlers are there already when it makes the application, and go on to be called.
    """
    for which in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(which)

        def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
            service.stopping = True
            if callable(before):
                before(number, frame)

        signal.signal(which, stop)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. port: 0 for any that is free. Raises UsageError, and ConfigurationError for an address that is not this machine's.

    It listens from here on, so that whoever reads the address may use it at once: what connects waits until the application has started.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror:
        raise ConfigurationError(
            f"{host} is no address", hint="--host is one of this machine's: 127.0.0.1, or 0.0.0.0 for all of them"
        ) from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as problem:
        bound.close()
        if problem.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {host} is taken", hint="choose another with --port, or 0 for any that is free") from None
        if problem.errno == errno.EACCES:
            raise UsageError(f"port {port} is not for this user", hint="choose one above 1023, and let a proxy forward to it") from None
        raise ConfigurationError(
            f"{host}:{port} cannot be bound: {problem.strerror}", hint="--host is an address of this machine"
        ) from None
    bound.set_inheritable(True)
    return bound


def serve(deployment: Deployment, bound: socket.socket, *, workers: int = 1, access_log: bool = False, **options: Any) -> None:
    """Serve until a signal says stop. options: of uvicorn, such as its certificates."""
    os.environ[_DEPLOYMENT] = json.dumps({"name": deployment.name, "settings": deployment.settings}, sort_keys=True)
    logs()
    config = uvicorn.Config(
        "penstock.serve.server:application",
        factory=True,
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        workers=workers,
        **{"proxy_headers": False, **options},
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn stops cleanly, then raises the signal again: to end as after Ctrl-C
    if workers > 1:
        Multiprocess(config, sockets=[bound]).run()
        raise KeyboardInterrupt  # it returns when a signal said stop; a single process raises this by itself
    else:
        uvicorn.Server(config).run(sockets=[bound])


def logs() -> None:
    """Warnings, and the access log where there is one, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    handler.addFilter(Redacted())
    for name, level in (("penstock", logging.INFO), ("uvicorn.error", logging.WARNING), ("uvicorn.access", logging.INFO)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [handler]
