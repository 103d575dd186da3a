"""The Storm settings of a topology: what Penstock derives, why, and what may not be set otherwise.

`SETTINGS` is the one list of them: `derive` computes them for a topology, docs/storm.md shows them. The limits of what may be on its way between
a spout and its bolt are offsets and bytes of the log, which the spout counts (`penstock.rollup.shard.Limits`). So Storm's own limits, which count
tuples, must not bind; and a worker's heap must hold the bytes, which it keeps until their flush is durable.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Callable

from penstock.errors import ConfigurationError
from penstock.rollup.shard import Limits

MIB = 1 << 20
SECOND = 1_000_000  # microseconds
TUPLE_BYTES = MIB  # the size that a spout fills a tuple to
TUPLE_EVERY = 50_000  # microseconds between two tuples of a partition that are not full
FLUSHES_PENDING = 3  # a tuple may wait for the flush under way, the one after that, and its own
SLOW_FLUSH = 30  # seconds that a flush's own puts may take before its tuples are sent again
SHORTEST_TIMEOUT = 120  # seconds
SUBPROCESS_TIMEOUT = 60  # seconds
SHORTEST_SUBPROCESS_TIMEOUT = 30
BASE_HEAP = 128  # MiB of a worker that carries nothing
GARBAGE = 1.25  # what the collector needs beside what lives
QUEUED_OUT = 64  # tuples that wait for the network
NETTY_HIGH, NETTY_LOW = 16 * MIB, 8 * MIB
BOLT_QUEUE = 16  # tuples that wait for a bolt's pipe
RECEIVE_QUEUE = 1024
SPOUT_REST = 5  # milliseconds between two looks of a spout that found nothing to send
QUEUE_REST = 1  # milliseconds between two looks into a queue that was empty
SERIALIZER = "penstock.multilang.MsgpackSerializer"
DEPLOYMENT = "penstock.deployment"
TICK = "topology.tick.tuple.freq.secs"
WORKER_OPTIONS = "topology.worker.childopts"


@dataclasses.dataclass(frozen=True)
class Part:
    """A bolt, and the spout that feeds it, as the settings depend on them. tasks: of the bolt. flush: microseconds."""

    bolt: str
    spout: str
    tasks: int
    spout_tasks: int
    partitions: int
    flush: int
    limits: Limits

    @property
    def pending_bytes(self) -> int:
        """The most bytes of one partition that may be on their way: the spout stops once it has reached its limit, so one tuple more."""
        return self.limits.pending * self.limits.flush_bytes + TUPLE_BYTES

    @property
    def pending_tuples(self) -> int:
        """The most tuples of one partition that may be on their way: full ones up to the limit, and one every 50 ms until they are durable."""
        return 2 * self.pending_bytes // TUPLE_BYTES + FLUSHES_PENDING * self.flush // TUPLE_EVERY


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the settings are derived from. heap: of a worker, in MiB; None to derive it. deployment: as JSON."""

    parts: tuple[Part, ...]
    workers: int
    heap: int | None
    deployment: str

    @property
    def heap_needed(self) -> int:
        """MiB that a worker may need at its worst: all of what its bolts may hold, what waits for the network, and itself."""
        held = 0
        for part in self.parts:
            here = min(part.partitions, _up(part.tasks, self.workers) * _up(part.partitions, part.tasks))
            held += here * part.pending_bytes
        network = QUEUED_OUT * TUPLE_BYTES + NETTY_HIGH if self.workers > 1 else 0
        return _up(BASE_HEAP * MIB + int(GARBAGE * (held + network)), MIB)

    @property
    def timeout_needed(self) -> int:
        """Seconds that a tuple may take with nothing wrong."""
        longest = max((part.flush for part in self.parts), default=0)
        return _up(FLUSHES_PENDING * longest, SECOND) + SLOW_FLUSH

    @property
    def spout_pending(self) -> int:
        """The most tuples that one task of a spout may have on their way."""
        return max((_up(part.partitions, part.spout_tasks) * part.pending_tuples for part in self.parts), default=1)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting. shown: its value as the documentation says it. objection: what speaks against another value, or None."""

    key: str
    shown: str
    value: Callable[[Plan], Any]
    reason: str
    objection: Callable[[Any, Plan], str | None] = lambda value, plan: None
    component: bool = False  # of each bolt, rather than of the topology


def _up(number: int, by: int) -> int:
    """number / by, rounded up."""
    return -(-number // max(by, 1))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _only(text: str) -> Callable[[Any, Plan], str | None]:
    return lambda value, plan: text


def _at_least(least: Callable[[Plan], int], why: str) -> Callable[[Any, Plan], str | None]:
    def objection(value: Any, plan: Plan) -> str | None:
        needed = least(plan)
        return None if _whole(value) and value >= needed else f"it must be at least {needed:,}: {why}"

    return objection


def _must_be(wanted: Any, why: str) -> Callable[[Any, Plan], str | None]:
    return lambda value, plan: None if value == wanted and isinstance(value, bool) == isinstance(wanted, bool) else why


def _no_heap_here(value: Any, plan: Plan) -> str | None:
    if not isinstance(value, str):
        return "it is a text, such as -XX:+UseG1GC"
    return (
        "it would set the heap past the check that the bytes on their way fit: say worker_heap in the [storm] table"
        if "-Xmx" in value
        else None
    )


SETTINGS: tuple[Setting, ...] = (
    Setting(
        DEPLOYMENT,
        "the deployment, as JSON",
        lambda plan: plan.deployment,
        "A worker has no `penstock.toml`: its components find their stores here. It holds references to secrets, never a secret.",
        _only("it comes from the deployment that --on names"),
    ),
    Setting(
        "topology.multilang.serializer",
        f"`{SERIALIZER}`",
        lambda plan: SERIALIZER,
        "Tuples carry record batches as raw bytes; Storm's own JSON cannot, and base64 in it is ten times slower. The class is in the topology's jar.",
        _must_be(SERIALIZER, "the components speak msgpack, and nothing else here reads it"),
    ),
    Setting(
        "topology.workers",
        "`workers`, 1 if not given",
        lambda plan: plan.workers,
        "How many JVMs the components are spread over; the heap of each is checked against its share of the bytes on their way.",
        _only("say workers in the [storm] table: the heap is checked against it"),
    ),
    Setting(
        "topology.acker.executors",
        "as many as workers",
        lambda plan: plan.workers,
        "Acks tell a spout what is durable. Without ackers Storm acks every tuple as it is emitted, and nothing would bound what is on its way.",
        _at_least(lambda plan: 1, "without ackers a spout is told that all it sent is durable"),
    ),
    Setting(
        "topology.enable.message.timeouts",
        "`true`",
        lambda plan: True,
        "A tuple that a dead worker took with it must fail, or its partition waits for it for ever.",
        _must_be(True, "a tuple that was lost with its worker would never fail, and its partition would stand still"),
    ),
    Setting(
        "topology.message.timeout.secs",
        f"{FLUSHES_PENDING} flush intervals of the slowest bolt + {SLOW_FLUSH} s; at least {SHORTEST_TIMEOUT} s",
        lambda plan: max(SHORTEST_TIMEOUT, plan.timeout_needed),
        "A tuple is acked when the flush that covers it is durable, and may wait for the flush under way, one more, and its own. A shorter timeout "
        "would have everything sent again and again; it is also how long a partition stands still after a worker dies.",
        _at_least(lambda plan: plan.timeout_needed, "a tuple waits for up to three flushes, and would be sent again before it is durable"),
    ),
    Setting(
        "topology.max.spout.pending",
        "the tuples that the limits of all partitions allow",
        lambda plan: max(1 << 20, plan.spout_pending),
        "Spouts count offsets and bytes themselves, of each partition. Storm's count of tuples must not bind: a flush that is cut off where an earlier "
        "one began must be reached, however small its tuples are.",
        _at_least(
            lambda plan: plan.spout_pending,
            "the spouts bound offsets and bytes themselves, and a flush must be reached whatever its tuples",
        ),
    ),
    Setting(
        TICK,
        "1, of each bolt",
        lambda plan: 1,
        "A tick makes a bolt look whether a flush, a claim or a fold is due while no tuple arrives, and end if a flush of its raised an error.",
        lambda value, plan: None if _whole(value) and 1 <= value <= 10 else "a bolt looks at every tick whether its flush is due: 1 to 10",
        component=True,
    ),
    Setting(
        "topology.subprocess.timeout.secs",
        f"{SUBPROCESS_TIMEOUT}",
        lambda plan: SUBPROCESS_TIMEOUT,
        "How long a component may be silent before its worker gives up and is started anew. Flushes run beside the pipe, which answers at once; but a "
        "spout's call to the log or the table may take until that call's own timeout, which must end first.",
        _at_least(
            lambda plan: SHORTEST_SUBPROCESS_TIMEOUT,
            "a spout waits for a slow broker or table within its own call, and its worker would be killed for that",
        ),
    ),
    Setting(
        "topology.shellbolt.max.pending",
        f"{BOLT_QUEUE}",
        lambda plan: BOLT_QUEUE,
        "Tuples that wait for a bolt's pipe, near 1 MiB each. Some keep the pipe full; more gain nothing, and are older when the bolt gets them.",
        _at_least(lambda plan: 1, "nothing would reach the bolt"),
    ),
    Setting(
        "topology.executor.receive.buffer.size",
        f"{RECEIVE_QUEUE}",
        lambda plan: RECEIVE_QUEUE,
        "Tuples in an executor's queue; Storm's 32,768 are meant for small ones. When it is full, the workers that send pause: nothing is dropped.",
        _at_least(lambda plan: 2, "a queue of one tuple stands still"),
    ),
    Setting(
        "topology.executor.overflow.limit",
        "0",
        lambda plan: 0,
        "A full queue pauses those who send. With a limit Storm drops tuples instead, and a partition goes on only after the message timeout.",
        _must_be(0, "beyond a limit Storm drops tuples, and their partitions stand still until the message timeout"),
    ),
    Setting(
        "topology.spout.wait.progressive.level3.sleep.millis",
        f"{SPOUT_REST}",
        lambda plan: SPOUT_REST,
        f"How long a spout rests that had nothing to send. A tuple that is not full goes out {TUPLE_EVERY // 1000} ms after the one before, so that Storm's 1 ms only "
        "makes the pipe busy: at 5,000 events/s it took most of a core.",
        lambda value, plan: None if _whole(value) and 1 <= value <= 50 else "1 to 50: a spout that rests longer makes every answer older",
    ),
    Setting(
        "topology.bolt.wait.progressive.level2.count",
        "1",
        lambda plan: 1,
        "An executor whose queue is empty looks 1,000 times more before it sleeps, by Storm's default: made for tuples that take microseconds. Ours come some "
        "hundred times a second, and every one would be followed by that.",
        lambda value, plan: None if _whole(value) and value >= 0 else "it is a number of looks",
    ),
    Setting(
        "topology.bolt.wait.progressive.level3.sleep.millis",
        f"{QUEUE_REST}",
        lambda plan: QUEUE_REST,
        "How long it sleeps then.",
        lambda value, plan: (
            None if _whole(value) and 1 <= value <= 50 else "1 to 50: an executor that sleeps longer makes every answer older"
        ),
    ),
    Setting(
        "topology.transfer.buffer.size",
        f"{QUEUED_OUT}",
        lambda plan: QUEUED_OUT,
        f"Tuples that wait for the network, near 1 MiB each: Storm's 1,000 would be a gigabyte. {QUEUED_OUT} are counted in the heap.",
        lambda value, plan: (
            None
            if _whole(value) and 2 <= value <= QUEUED_OUT
            else f"the heap is checked for {QUEUED_OUT} tuples of 1 MiB: 2 to {QUEUED_OUT}"
        ),
    ),
    Setting(
        "topology.transfer.batch.size",
        "1",
        lambda plan: 1,
        "A tuple is a batch already; to hold it back until there are more only makes answers older.",
        _must_be(1, "a tuple is a batch already"),
    ),
    Setting(
        "topology.producer.batch.size",
        "1",
        lambda plan: 1,
        "As above, between the executors of a worker.",
        _must_be(1, "a tuple is a batch already"),
    ),
    Setting(
        "storm.messaging.netty.buffer.high.watermark",
        f"{NETTY_HIGH // MIB} MiB",
        lambda plan: NETTY_HIGH,
        "What Netty takes before the worker that sends waits. Counted in the heap.",
        lambda value, plan: (
            None
            if _whole(value) and 2 * TUPLE_BYTES <= value <= NETTY_HIGH
            else f"the heap is checked for {NETTY_HIGH // MIB} MiB, and a tuple must fit twice"
        ),
    ),
    Setting(
        "storm.messaging.netty.buffer.low.watermark",
        f"{NETTY_LOW // MIB} MiB",
        lambda plan: NETTY_LOW,
        "When it goes on: with several tuples still to send, so that the network never waits.",
        lambda value, plan: (
            None if _whole(value) and 0 < value <= NETTY_LOW else f"it must lie below the high watermark: at most {NETTY_LOW}"
        ),
    ),
    Setting(
        "topology.skip.missing.kryo.registrations",
        "`false`",
        lambda plan: False,
        "Tuples hold numbers, texts, lists and `byte[]` alone, all of which Kryo knows (bytes go as they are, after their length). One that does not is "
        "a mistake, and must be seen.",
    ),
    Setting(
        "topology.fall.back.on.java.serialization",
        "`false`",
        lambda plan: False,
        "As above: Java's serialisation would hide the mistake and make it slow.",
    ),
    Setting(
        "topology.debug",
        "`false`",
        lambda plan: False,
        "It logs every tuple: at 1 MiB each the logs fill the disk, with the events in them.",
        _must_be(False, "it logs every tuple, a megabyte each, with the events in it"),
    ),
    Setting(
        WORKER_OPTIONS,
        "`-Xmx` of `worker_heap`, or of what is needed; yours after it",
        lambda plan: f"-Xmx{plan.heap if plan.heap is not None else plan.heap_needed}m",
        "A worker holds every tuple until its flush is durable: for each partition of each bolt in it twice a flush's cap (2 x 64 MiB) and one tuple, "
        f"a quarter more for the collector, what waits for the network, and {BASE_HEAP} MiB of its own. Submit refuses a heap that is smaller.",
        _no_heap_here,
    ),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}


def derive(plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of a topology. options: the user's own, which take precedence where nothing speaks against them. Raises ConfigurationError."""
    check_heap(plan)
    check_options(plan, options)
    found = {setting.key: setting.value(plan) for setting in SETTINGS if not setting.component}
    wanted = {key: value for key, value in options.items() if key != TICK}
    if WORKER_OPTIONS in wanted:
        wanted[WORKER_OPTIONS] = f"{found[WORKER_OPTIONS]} {wanted[WORKER_OPTIONS]}"
    return {**found, **wanted}


def derive_bolt(plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of each bolt. options: the user's, of the topology and then of the bolt. Raises ConfigurationError."""
    check_options(plan, options)
    return {setting.key: options.get(setting.key, setting.value(plan)) for setting in SETTINGS if setting.component}


def check_options(plan: Plan, options: dict[str, Any]) -> None:
    """Raise ConfigurationError if one of the user's settings breaks exactness or a limit."""
    for key, value in options.items():
        known = BY_KEY.get(key)
        objection = known.objection(value, plan) if known else None
        if key.startswith("penstock.") and not known:
            objection = "settings that begin so are Penstock's own"
        if objection:
            raise ConfigurationError(
                f"the setting {key} = {value!r} cannot be: {objection}", hint="leave it out, and it is derived (see docs/storm.md)"
            )


def check_heap(plan: Plan) -> None:
    """Raise ConfigurationError if a worker's heap cannot hold what may be on its way."""
    if plan.heap is not None and plan.heap < plan.heap_needed:
        held = sum(part.partitions * part.pending_bytes for part in plan.parts) // MIB
        raise ConfigurationError(
            f"worker_heap = {plan.heap}m is too small: a worker may need {plan.heap_needed}m to hold the tuples that are on their way "
            f"({held} MiB in all, over {plan.workers} worker{'s' if plan.workers > 1 else ''})",
            hint=f'write worker_heap = "{plan.heap_needed}m", or leave it out; more workers, each with tasks of its own, need less each',
        )


def heap_of(value: Any) -> int | None:
    """`worker_heap` ("512m", "2g") in MiB. Raises ConfigurationError."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)([mMgG])", value) if isinstance(value, str) else None
    if not found or int(found[1]) == 0:
        raise ConfigurationError(f"worker_heap = {value!r} is not a size", hint='write "512m" or "2g"')
    return int(found[1]) * (1024 if found[2] in "gG" else 1)


def documented() -> str:
    """The settings as the table of docs/storm.md."""
    lines = ["| setting | value | reason |", "|---|---|---|"]
    lines += [f"| `{setting.key}` | {setting.shown} | {setting.reason} |" for setting in SETTINGS]
    return "\n".join(lines) + "\n"


__all__ = ["BY_KEY", "SETTINGS", "Part", "Plan", "Setting", "check_heap", "check_options", "derive", "derive_bolt", "documented", "heap_of"]
