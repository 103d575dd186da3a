"""The settings of a topology on Storm: what is derived holds what it must, and what would break it is refused with the reason."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigurationError
from penstock.rollup.shard import Limits
from penstock.spouts import kafka
from penstock.storm import settings
from penstock.storm.settings import BY_KEY, SETTINGS, Part, Plan, derive, derive_bolt, documented, heap_of

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def plan_of(*parts: Part, workers: int = 2, heap: int | None = None) -> Plan:
    return Plan(parts or (part_of(),), workers, heap, '{"name": "x"}')


def part_of(tasks: int = 2, partitions: int = 4, flush: int = 5_000_000, spout_tasks: int = 2) -> Part:
    return Part("rollups", "live", tasks, spout_tasks, partitions, flush, Limits())


def held_at_worst(plan: Plan, seed: int) -> int:
    """Bytes in the fullest worker, for one way to place tasks on workers and partitions on tasks, each as evenly as Storm does."""
    draw = random.Random(seed)
    held = [0] * plan.workers
    for part in plan.parts:
        tasks = [0] * part.tasks
        for number in range(part.partitions):
            tasks[number % part.tasks] += 1
        places = [number % plan.workers for number in range(part.tasks)]
        renamed = draw.sample(range(plan.workers), plan.workers)
        draw.shuffle(tasks)
        for count, place in zip(tasks, places):
            # A spout sends while it is below its limit: the tuple that reaches it may be a whole one.
            held[renamed[place]] += count * (part.limits.pending * part.limits.flush_bytes + kafka.TUPLE_BYTES)
    return max(held)


@pytest.mark.parametrize("seed", range(200))
def test_the_heap_holds_what_may_be_on_its_way_however_tasks_are_placed(seed: int) -> None:
    draw = random.Random(seed)
    parts = []
    for _ in range(draw.randint(1, 4)):
        partitions = draw.randint(1, 40)
        parts.append(part_of(draw.randint(1, partitions), partitions, draw.randint(10_000, 60_000_000)))
    plan = plan_of(*parts, workers=draw.randint(1, 6))
    heap = int(re.fullmatch(r"-Xmx(\d+)m", derive(plan, {})["topology.worker.childopts"])[1]) * MIB  # type: ignore[index]
    assert heap >= 1.2 * held_at_worst(plan, seed) + 64 * MIB, f"seed {seed}: {plan}"


def test_a_heap_that_is_too_small_is_refused_with_the_one_that_is_not() -> None:
    needed = plan_of().heap_needed
    with pytest.raises(ConfigurationError, match=rf"worker_heap = 512m is too small.*{needed}m") as caught:
        derive(plan_of(heap=512), {})
    assert f'worker_heap = "{needed}m"' in (caught.value.hint or "")
    assert derive(plan_of(heap=needed), {})["topology.worker.childopts"] == f"-Xmx{needed}m"
    assert plan_of(workers=1).heap_needed > needed


def test_one_worker_holds_each_partition_once() -> None:
    one = plan_of(part_of(tasks=3, partitions=4), workers=1)
    assert one.heap_needed < 128 + 1.25 * 4 * 129 + 2  # three tasks of at most two partitions are not six partitions


@pytest.mark.parametrize("flush", [10_000, 5_000_000, 30_000_000, 120_000_000])
def test_the_message_timeout_leaves_time_for_the_flushes_that_a_tuple_waits_for(flush: int) -> None:
    derived = derive(plan_of(part_of(flush=flush)), {})["topology.message.timeout.secs"]
    assert derived >= 120 and derived * 1_000_000 >= 3 * flush + 30_000_000


def test_storms_own_limit_does_not_bind() -> None:
    """However small its tuples are, a spout may send all that its own limits allow."""
    part = part_of(tasks=1, partitions=16, flush=30_000_000, spout_tasks=1)
    limit = derive(plan_of(part), {})["topology.max.spout.pending"]
    small = 3 * part.flush // kafka.TUPLE_EVERY  # tuples that were sent for their age
    full = Limits().pending * Limits().flush_bytes // (kafka.TUPLE_BYTES // 2)  # and those sent without a pause: half full at least
    assert limit >= 16 * (small + full)


def test_the_constants_are_the_spouts() -> None:
    assert (settings.TUPLE_BYTES, settings.TUPLE_EVERY) == (kafka.TUPLE_BYTES, kafka.TUPLE_EVERY)


REFUSED: list[tuple[str, Any, str]] = [
    ("topology.acker.executors", 0, "all it sent is durable"),
    ("topology.enable.message.timeouts", False, "stand still"),
    ("topology.message.timeout.secs", 30, "at least 45"),
    ("topology.message.timeout.secs", "120", "at least 45"),
    ("topology.message.timeout.secs", True, "at least 45"),
    ("topology.max.spout.pending", 100, "bound offsets and bytes themselves"),
    ("topology.max.spout.pending", None, "bound offsets and bytes themselves"),
    ("topology.multilang.serializer", "org.apache.storm.multilang.JsonSerializer", "msgpack"),
    ("topology.executor.overflow.limit", 10, "drops tuples"),
    ("topology.executor.overflow.limit", False, "drops tuples"),
    ("topology.tick.tuple.freq.secs", None, "1 to 10"),
    ("topology.tick.tuple.freq.secs", 60, "1 to 10"),
    ("topology.subprocess.timeout.secs", 5, "at least 30"),
    ("topology.shellbolt.max.pending", 0, "at least 1"),
    ("topology.transfer.buffer.size", 1000, "2 to 64"),
    ("topology.transfer.batch.size", 10, "a batch already"),
    ("topology.workers", 4, "workers in the"),
    ("topology.worker.childopts", "-XX:+UseG1GC -Xmx4g", "worker_heap"),
    ("topology.worker.childopts", 1, "a text"),
    ("topology.debug", True, "logs every tuple"),
    ("storm.messaging.netty.buffer.high.watermark", 1 << 30, "16 MiB"),
    ("storm.messaging.netty.buffer.low.watermark", 1 << 24, "high watermark"),
    ("penstock.deployment", "{}", "--on"),
    ("penstock.component", "{}", "Penstock's own"),
]


@pytest.mark.parametrize("key, value, why", REFUSED, ids=lambda value: str(value)[:40])
def test_a_setting_that_breaks_exactness_or_a_limit_is_refused(key: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(key)) as caught:
        derive(plan_of(), {key: value})
    assert why in caught.value.message
    with pytest.raises(ConfigurationError):
        derive_bolt(plan_of(), {key: value})


ALLOWED: list[tuple[str, Any]] = [
    ("topology.message.timeout.secs", 600),
    ("topology.acker.executors", 8),
    ("topology.max.spout.pending", 10**9),
    ("topology.subprocess.timeout.secs", 300),
    ("topology.shellbolt.max.pending", 64),
    ("topology.priority", 10),
    ("topology.environment", {"KAFKA_CA": "/etc/ca"}),
]


@pytest.mark.parametrize("key, value", ALLOWED, ids=lambda value: str(value))
def test_what_breaks_nothing_may_be_set(key: str, value: Any) -> None:
    assert derive(plan_of(), {key: value})[key] == value


def test_ones_own_options_of_the_worker_come_after_the_heap() -> None:
    found = derive(plan_of(heap=2048), {"topology.worker.childopts": "-XX:+UseSerialGC"})
    assert found["topology.worker.childopts"] == "-Xmx2048m -XX:+UseSerialGC"


def test_ticks_are_for_bolts_alone() -> None:
    assert settings.TICK not in derive(plan_of(), {settings.TICK: 2})
    assert derive_bolt(plan_of(), {}) == {settings.TICK: 1}
    assert derive_bolt(plan_of(), {settings.TICK: 2}) == {settings.TICK: 2}


@pytest.mark.parametrize("value, heap", [("512m", 512), ("2g", 2048), ("1G", 1024), (None, None)])
def test_a_heap_is_a_size(value: Any, heap: int | None) -> None:
    assert heap_of(value) == heap


@pytest.mark.parametrize("value", ["512", "0m", "a lot", 512, "1.5g", ""])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="worker_heap"):
        heap_of(value)


def test_every_setting_says_why() -> None:
    assert len(BY_KEY) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.reason.endswith(".") and len(setting.reason) > 20 and setting.shown
        assert "|" not in setting.reason + setting.shown
    unexplained = set(derive(plan_of(), {})) | set(derive_bolt(plan_of(), {}))
    assert unexplained == set(BY_KEY)


def test_the_documentation_is_up_to_date() -> None:
    text = (ROOT / "docs" / "storm.md").read_text()
    assert documented() in text, (
        'run: python -c "from penstock.storm.settings import documented; print(documented())" and put it into docs/storm.md'
    )
