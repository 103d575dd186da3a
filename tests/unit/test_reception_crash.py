"""A server that dies at any of its calls to the table and the log, before the call or behind it: the next one that is sent the request takes each event once."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InternalError, UnavailableError
from penstock.kernels import read_batches
from penstock.kernels.encode import Slices
from penstock.log.memory import MemoryLog
from penstock.model import Int, Schema, Timestamp
from penstock.serve.reception.claims import Claims, Receipt
from penstock.serve.reception.commit import Committer
from penstock.serve.reception.examine import Examiner, Part
from penstock.serve.reception.instance import Instance
from penstock.serve.reception.intake import Busy, Delivery, Intake
from penstock.serve.reception.stamps import Sent
from penstock.table.memory import MemoryTable

EVENTS = Schema("e", time="ts", key="k", fields={"ts": Timestamp("ms"), "k": Int()})
NOW = 1_700_000_000_000_000
BODY = [b'{"ts":1,"k":%d}' % number for number in range(12)] + [b'{"ts":1}']
CALLS = ("create", "put", "rows", "compare_and_set", "append", "read", "offset_at", "end", "partitions")


class Mortal:
    """A store whose process dies at call number `last`; `done` says whether the call still took effect. A dead process calls nothing."""

    def __init__(self, store: Any, life: list[int], done: bool) -> None:
        self._store, self._life, self._done = store, life, done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._life[0] -= 1
            if self._life[0] < 0 or (self._life[0] == 0 and not self._done):
                raise InternalError("dead")
            answer = found(*arguments, **options)
            if self._life[0] == 0:
                raise InternalError("dead")
            return answer

        return call


class Server:
    """An intake and all that it works with."""

    def __init__(self, table: Any, log: Any, folder: Path) -> None:
        self.instance = Instance(folder, self.now, settle=0)
        self.intake = Intake(
            "e",
            Examiner(EVENTS, {}, 1000),
            log,
            lambda: Claims(table, self.instance, self.now, window=10**12, lease=60_000_000),
            Committer(log, self.now, bound=1_000_000),
            self.now,
            linger=0.0,
            lease=60_000_000,
        )

    def now(self) -> int:
        return NOW

    async def take(self, digest: bytes | None = b"d" * 16) -> Receipt:
        part = Part(Slices.of(BODY), Sent("0" * 24, NOW))
        delivery = Delivery(part, asyncio.get_running_loop().create_future(), digest, b"body")
        self.intake.put(delivery)
        return await delivery.answer

    def close(self) -> None:
        self.intake.close(10)
        self.instance.close()


def kept(log: MemoryLog) -> collections.Counter[int]:
    """How often each event is in the log."""
    found: collections.Counter[int] = collections.Counter()
    for partition in range(log.partitions("e")):
        at = 0
        while (chunk := log.read("e", partition, at, 1 << 20, 1 << 40)) is not None:
            records = read_batches(chunk.data)
            found.update(json.loads(records.value(row) or b"")["k"] for row in range(len(records)))
            at = chunk.next
    return found


def stores() -> tuple[MemoryTable, MemoryLog]:
    table, log = MemoryTable(), MemoryLog()
    log.create("e", 3)
    return table, log


@pytest.mark.parametrize("done", [False, True], ids=["before", "behind"])
def test_whatever_call_a_server_dies_at_its_request_is_taken_once(tmp_path: Path, done: bool) -> None:
    died = 0
    for first, second in itertools.product(range(1, 14), range(0, 16, 3)):
        table, log = stores()
        for life in (first, second):  # two servers die, each at a call of its own; 0: the second does not begin
            if not life:
                continue
            left = [life]
            server = Server(Mortal(table, left, done), Mortal(log, left, done), tmp_path)
            try:
                asyncio.run(server.take())
            except (InternalError, Busy):
                died += 1
            server.close()
        server = Server(table, log, tmp_path)
        receipt = asyncio.run(server.take())
        assert receipt.accepted == 12 and [one.index for one in receipt.rejected] == [12]
        server.close()
        assert kept(log) == {number: 1 for number in range(12)}, (first, second)
        server = Server(table, log, tmp_path)
        again = asyncio.run(server.take())
        server.close()
        assert again.replayed and again.accepted == 12 and again.rejected == receipt.rejected
    assert died > 50


def test_a_log_that_comes_back_takes_the_group_that_it_refused(tmp_path: Path) -> None:
    table, log = stores()
    append, failures = log.append, [5]

    def failing(topic: str, partition: int, batches: Any) -> int:
        if failures[0]:
            failures[0] -= 1
            raise UnavailableError("not now")
        return append(topic, partition, batches)

    log.append = failing  # type: ignore[method-assign]
    server = Server(table, log, tmp_path)
    assert asyncio.run(server.take()).accepted == 12 and asyncio.run(server.take(None)).accepted == 12
    server.close()
    assert kept(log) == {number: 2 for number in range(12)}
