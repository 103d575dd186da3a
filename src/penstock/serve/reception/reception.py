"""What takes events for a deployment's datasets: an intake each, made when the first event comes."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, AsyncIterator

import anyio.to_thread

from penstock.errors import NotFoundError, PenstockError
from penstock.model import Schema
from penstock.rollup.registry import Registry
from penstock.serve.problems import Problem
from penstock.serve.reception.claims import Claims, Receipt
from penstock.serve.reception.commit import Committer
from penstock.serve.reception.examine import Examiner, Part
from penstock.serve.reception.instance import Instance
from penstock.serve.reception.intake import Busy, Delivery, Intake, Mismatch
from penstock.serve.reception.settings import ReceptionSettings

if TYPE_CHECKING:
    from penstock.serve.service import Service

log = logging.getLogger(__name__)
_BELIEVED = 2.0  # seconds that a schema is used before the registry is asked again
_LOCAL_BOUND = 35_000_000  # microseconds that an append to a local log takes at the most: it waits 30 s for another process
_KAFKA_EXTRA = 30_000_000  # and one to Kafka, beyond its own time-out: an answer that is waited for
_SETTLE = 5_000_000  # microseconds that a request of a dead process may still be on its way to a broker
_TIDY = 3600.0  # seconds
_STOP = 10.0  # seconds that a stopping server tries on
_ASK_AGAIN = 5  # seconds: a claim lasts far longer, but whoever lives answers sooner


class Reception:
    """Takes events. Its coroutines belong to one event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.settings = ReceptionSettings.of(service.settings.parts.get("reception", {}))
        self.waiting = 0  # bytes of events that wait for the log
        self._intakes: dict[str, tuple[float, Schema, Intake]] = {}
        self._making = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._under_way: dict[bytes, tuple[bytes, asyncio.Future[Receipt]]] = {}
        self._instance: Instance | None = None
        kafka = service.deployment.settings.get("kafka")
        self._bound = _LOCAL_BOUND if kafka is None else int(float(kafka.get("append_timeout", 20)) * 1e6) + _KAFKA_EXTRA
        self._settle = 0 if kafka is None else _SETTLE

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the server runs; what waits when it stops is appended first."""
        tidying = asyncio.create_task(self._tidy())
        try:
            yield
        finally:
            tidying.cancel()
            await anyio.to_thread.run_sync(self.close)

    async def _tidy(self) -> None:
        """Have idempotency keys dropped that are older than the window, where the table does not do so itself."""
        deployment = self.service.deployment
        while True:
            await asyncio.sleep(_TIDY)
            try:
                await anyio.to_thread.run_sync(lambda: deployment.table.expire(deployment.now()))
            except PenstockError as problem:
                log.warning("old cells were not dropped: %s", problem)

    def close(self) -> None:
        """Append what waits, and let go of the threads."""
        for _, _, intake in self._intakes.values():
            intake.close(_STOP)
        self._intakes = {}
        if self._instance is not None:
            self._instance.close()
            self._instance = None

    async def intake(self, dataset: str, near: tuple[str, ...] | None) -> tuple[Schema, Intake]:
        """The schema and the intake of a dataset. near: the names that may be told to who asks for another; None for all. Raises Problem 404."""
        known = self._intakes.get(dataset)
        if known is None:
            async with self._making:
                return await anyio.to_thread.run_sync(self._intake, dataset, near)
        if time.monotonic() > known[0] and self._looking is None:  # nobody waits for the table
            self._looking = asyncio.create_task(self._look_again(dataset))
        return known[1], known[2]

    async def _look_again(self, dataset: str) -> None:
        try:
            await anyio.to_thread.run_sync(self._intake, dataset, ())
        except (PenstockError, Problem) as problem:
            log.warning("dataset %s: its schema cannot be looked up now: %s", dataset, problem)
        finally:
            self._looking = None

    def _intake(self, dataset: str, near: tuple[str, ...] | None) -> tuple[Schema, Intake]:
        schema = self._schema(dataset, near)
        fresh = time.monotonic() + _BELIEVED
        known = self._intakes.get(dataset)
        if known is not None and known[1].fingerprint == schema.fingerprint:
            self._intakes[dataset] = fresh, known[1], known[2]
            return known[1], known[2]
        examiner = Examiner(schema, self.settings.stamp.get(dataset, {}), self.settings.max_event)
        if known is not None:
            known[2].examiner = examiner
            intake = known[2]
        else:
            intake = self._start(schema, examiner)
        self._intakes[dataset] = fresh, schema, intake
        return schema, intake

    def _start(self, schema: Schema, examiner: Examiner) -> Intake:
        deployment = self.service.deployment
        topic = deployment.topic(schema)
        if topic not in deployment.log.topics():
            deployment.log.create(topic, deployment.partitions)
        if self._instance is None:
            folder = deployment.directory / "serve" if deployment.directory else Path(tempfile.gettempdir()) / "penstock-serve"
            self._instance = Instance(folder / "instances", deployment.now, settle=self._settle)
        instance, lease = self._instance, 2 * self._bound
        return Intake(
            topic,
            examiner,
            deployment.log,
            lambda: Claims(deployment.table, instance, deployment.now, window=self.settings.window, lease=lease),
            Committer(deployment.log, deployment.now, bound=self._bound),
            deployment.now,
            linger=self.settings.linger / 1e6,
            lease=lease,
        )

    def _schema(self, dataset: str, near: tuple[str, ...] | None) -> Schema:
        with contextlib.suppress(NotFoundError):
            return self.service.catalog.schema(dataset)
        registry = Registry(self.service.deployment.table)
        schemas = {}
        for bolt in registry.bolts():
            data = registry.definition(bolt, registry.published(bolt)).schema
            schemas[data["name"]] = data
        if dataset in schemas:
            return Schema.from_json(schemas[dataset])
        told = sorted(schemas) if near is None else sorted(set(near) & set(schemas))
        close = difflib.get_close_matches(dataset, told, 3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(told)}" if told else "run its topology once"
        raise Problem(404, f"There is no dataset {dataset[:60]!r} here.", parameter="dataset", hint=hint)

    async def deliver(self, dataset: str, intake: Intake, part: Part, name: tuple[str, str] | None, body: bytes) -> Receipt:
        """Have events taken. name: who sent them, and their idempotency key, if they have one; body: the request's, decompressed.

        Raises Problem: 409 while another server works on the same request, 422 for a key that came with other events, 503 when too much waits, or the
        log does not answer in time; and what an intake answers with.
        """
        if self.waiting + len(part.values.buffer) > self.settings.queue and self.waiting:
            raise unavailable("More waits for the log already than this server holds.")
        if name is None:
            delivery = Delivery(part, asyncio.get_running_loop().create_future())
        else:
            digest, hashed = digest_of(dataset, *name), hashlib.blake2b(body, digest_size=16).digest()
            known = self._under_way.get(digest)
            if known is not None:
                if known[0] != hashed:
                    raise mismatch()
                return await self._answer(known[1])
            delivery = Delivery(part, asyncio.get_running_loop().create_future(), digest, hashed)
            self._under_way[digest] = hashed, delivery.answer
        size = delivery.size
        self.waiting += size

        def settled(answered: asyncio.Future[Receipt]) -> None:
            self.waiting -= size
            if delivery.digest is not None:
                self._under_way.pop(delivery.digest, None)
            if not answered.cancelled():
                answered.exception()  # seen, also where nobody waits any more

        delivery.answer.add_done_callback(settled)
        try:
            intake.put(delivery)
        except Exception as problem:
            delivery.answer.set_exception(problem)
        return await self._answer(delivery.answer)

    async def _answer(self, future: asyncio.Future[Receipt]) -> Receipt:
        done, _ = await asyncio.wait((future,), timeout=self.settings.patience / 1e6)
        if not done:
            raise unavailable("The log has not answered yet, and may have taken the events or not.")
        try:
            return future.result()
        except Busy as busy:
            raise Problem(
                409,
                "Another server is taking this very request.",
                parameter="Idempotency-Key",
                hint="send it again as it is",
                headers={"Retry-After": str(max(1, min(_ASK_AGAIN, round(busy.seconds + 0.5))))},
            ) from None
        except Mismatch:
            raise mismatch() from None


def digest_of(dataset: str, sender: str, key: str) -> bytes:
    """What stands for an idempotency key in the table and in the log."""
    return hashlib.blake2b("\0".join((dataset, sender, key)).encode(), digest_size=16).digest()


def mismatch() -> Problem:
    """422 for an idempotency key that came with another body before."""
    return Problem(
        422, "This idempotency key came with other events before.", parameter="Idempotency-Key", hint="make a new key for every new request"
    )


def unavailable(detail: str) -> Problem:
    """503 for what is to be sent again."""
    return Problem(
        503,
        detail,
        hint="send the same again later, with the same Idempotency-Key: then nothing is taken twice",
        headers={"Retry-After": "1"},
    )
