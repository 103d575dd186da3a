"""Ports of the loopback interface."""

from __future__ import annotations

import random
import socket
from typing import Collection, Iterable

from penstock.errors import UsageError

HOST = "127.0.0.1"
# Below the range from which the kernel takes the local ends of outgoing connections: a port from there may be in use by one of them
# just when its server is started again.
_RANGE = range(20_000, 32_000)


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the one before, which linger after its end, are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(names: Iterable[str], remembered: dict[str, int], told: dict[str, int], *, avoid: Collection[int] = ()) -> dict[str, int]:
    """A port for each name: the one told, else the one remembered, else a free one.

    avoid: ports that others have. Raises UsageError for a port that is told twice or is none.
    """
    chosen = {name: told.get(name, remembered.get(name, 0)) for name in names}
    for name, port in chosen.items():
        if name in told and not 0 < port < 65_536:
            raise UsageError(f"--port {name}={port}: no port has that number", hint="a number from 1 to 65535")
        twin = next((other for other, its in chosen.items() if other != name and its == port and port), None)
        if name in told and (twin or port in avoid):
            raise UsageError(f"--port {name}={port}: {twin or 'another server of the stack'} has that port", hint="choose another one")
    taken = {*avoid, *chosen.values()}
    for name, port in chosen.items():
        if not port:
            chosen[name] = next(one for one in _candidates() if one not in taken and is_free(one, "0.0.0.0"))
            taken.add(chosen[name])
    return chosen


def _candidates() -> Iterable[int]:
    """All of the range in a random order: two stacks that come up at the same moment hardly choose the same."""
    return random.sample(_RANGE, len(_RANGE))
