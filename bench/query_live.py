"""Events that are counted while `query-30d` asks: a process of its own that produces so many a second, and runs them through the topology into the same HBase.

They happen after all that is asked for, so that answers stay the same; what is kept of rows that are not folded yet has to be read again after every commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from penstock.deployment import Deployment
from penstock.log.generate import AdEvents, Columns
from penstock.log.producer import Producer
from penstock.runner.local import LocalRunner, Position, prepare

from bench.measure import ROOT, BenchError
from bench.queried import Queried

RATE = 1000  # events a second
_EVERY = 0.1  # seconds between two appends
_SEED = 12


@contextlib.contextmanager
def counting(deployment: Deployment, start: int, advertisers: int, cpu: int | None) -> Iterator[None]:
    """While the block runs, events of `advertisers` that begin to happen at `start` (microseconds) are counted; the first are by then. Raises BenchError where that
    ends by itself."""
    told = {"deployment": deployment.to_json(), "start": start, "advertisers": advertisers, "cpu": cpu}
    process = subprocess.Popen([sys.executable, "-m", "bench.query_live", json.dumps(told)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise BenchError("nothing is counted: the process ended")
        yield
        if process.poll() is not None:
            raise BenchError(f"counting ended with {process.returncode}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _produce(deployment: Deployment, start: int, advertisers: int, stopped: threading.Event) -> None:
    """Append what has happened since the last time, until it is told to stop. Times are those at which it is sent: nothing is late."""
    began, sent = time.monotonic(), 0
    made = AdEvents(_SEED, advertisers=advertisers, users=1_000_000, hours=24, too_late=0.0)
    blocks = made.columns(1 << 30)
    block, at = next(blocks), 0
    with Producer(deployment.log, "ads") as producer:
        while not stopped.wait(_EVERY):
            count = int((time.monotonic() - began) * RATE) - sent
            if at + count > len(block.ts):
                block, at = next(blocks), 0
            some = Columns(*(getattr(block, field.name)[at : at + count] for field in dataclasses.fields(block)))
            some.ts = some.arrival = start // 1000 + (sent + np.arange(count, dtype=np.int64)) * 1000 // RATE
            some.malformed = some.how = np.empty(0, np.int64)
            producer.send_many(*made.texts(some), some.arrival * 1000)
            producer.flush()
            sent, at = sent + count, at + count


def _main(told: dict[str, Any]) -> None:
    if told["cpu"] is not None:
        os.sched_setaffinity(0, {told["cpu"]})
    with contextlib.closing(Deployment.from_json(told["deployment"])) as deployment:
        runner, stopped = LocalRunner(Queried, deployment, prepare(Queried, deployment)), threading.Event()
        signal.signal(signal.SIGINT, lambda *_: runner.stop())
        producing = threading.Thread(target=_produce, args=(deployment, told["start"], told["advertisers"], stopped), daemon=True)
        producing.start()
        first: list[int] = []

        def progress(positions: list[Position]) -> None:
            first.append(sum(one.control.done.accepted for one in positions))
            if len(first) > 1 and first.pop() > first[0]:
                first[0] = 1 << 62  # it is said once
                print("counting", flush=True)

        try:
            runner.run(on_progress=progress)
        finally:
            stopped.set()
            producing.join(10)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
