"""The benchmarks that need servers: Kafka alone, or the whole of a stack."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from penstock.configuration import settings_of
from penstock.errors import PenstockError

from bench import suite
from bench.measure import Bench, BenchError, Sample, median, ratio, spread
from bench.suite import Benchmark, Result
from bench.workload import Workload

CONSUME = "confluent-kafka, consume(10000)"
TOPIC = Workload(4_000_000)  # LZ4, record batches of 64 KiB before compression
KAFKA = (
    Benchmark(
        "kafka-decode", "kafka-decode", "confluent-decode", f"{CONSUME} + msgpack.unpackb", Workload(2_000_000, format="msgpack"), bar=3
    ),
    Benchmark("kafka-rollup", "topology", "confluent-rollup", f"{CONSUME} + orjson + dict", TOPIC, bar=3),
    Benchmark(
        "kafka-rollup-16k", "topology", "confluent-rollup", f"{CONSUME} + orjson + dict", dataclasses.replace(TOPIC, batch_bytes=1 << 14)
    ),
    Benchmark(
        "kafka-rollup-single",
        "topology",
        "confluent-rollup",
        f"{CONSUME} + orjson + dict",
        dataclasses.replace(TOPIC, events=400_000, batch_bytes=0),
    ),
)
STORM, STORM_EVENTS, STORM_BAR = "storm-end-to-end", 8_000_000, 100
TUPLES_OF = 64  # the baseline gets one of so many events: it is the rate that is compared
FRESHNESS, FRESH_SECONDS = "freshness", 60.0
NAMES = (*(one.name for one in KAFKA), STORM, FRESHNESS)
OF_STACK = {STORM, FRESHNESS}  # those that need Storm and HBase too


def settings(on: str, names: Sequence[str]) -> dict[str, Any]:
    """The settings of the deployment whose servers are used. Raises BenchError if it lacks one that is needed."""
    try:
        found = settings_of(on)
    except PenstockError as problem:
        raise BenchError(f"no servers for {', '.join(names)}: {problem.message} ({problem.hint})") from None
    for server in ("kafka", "hbase", "storm") if OF_STACK & set(names) else ("kafka",):
        if server not in found:
            raise BenchError(
                f"deployment {on} has no {server}, which {', '.join(names)} need: `penstock stack up` starts one, for --on stack"
            )
    return found


def run(bench: Bench, names: Sequence[str], on: str, *, events: int | None = None, rounds: int = 3) -> list[Result]:
    """Run benchmarks by name on the servers of a deployment; their results, in the order of NAMES. events: of each, instead of its own number.

    Raises BenchError if a side computes something else than its baseline, or a server does not do its part.
    """
    from bench.confluent import KafkaBench

    found = settings(on, names)
    kafka = KafkaBench(bench, found["kafka"])
    try:
        results = suite.compare(kafka, [suite.sized(one, events) for one in KAFKA if one.name in names], rounds)
        if STORM in names:
            results.append(_storm(kafka, found, Workload(events or STORM_EVENTS), rounds))
        if FRESHNESS in names:
            results.append(_freshness(kafka, found, events))
    except PenstockError as problem:
        raise BenchError(f"{problem.message} ({problem.hint})") from problem
    finally:
        kafka.close()
    return results


def _storm(kafka: Any, found: dict[str, Any], workload: Workload, rounds: int) -> Result:
    """Both sides in turn."""
    from bench import end_to_end

    few = dataclasses.replace(workload, events=max(1_000, workload.events // TUPLES_OF))
    kafka.say(f"{STORM}: {workload.events:,} events, of which the baseline gets {few.events:,}; {rounds} rounds")
    ours: list[Sample] = []
    theirs: list[Sample] = []
    for _ in range(rounds):
        theirs.append(end_to_end.measure(kafka, found, end_to_end.OneEventATuple, few))
        ours.append(end_to_end.measure(kafka, found, end_to_end.Penstock, workload))
    return {
        "name": STORM,
        **suite.numbers(median(ours)),
        "baseline": "one event a tuple, streamparse",
        "ratio": suite.short(ratio(ours, theirs)),
        "bar": STORM_BAR,
        **{f"baseline_{key}": value for key, value in suite.numbers(median(theirs)).items()},
        "events": workload.events,
        "baseline_events": few.events,
        "rounds": rounds,
        "spread": round(max(spread(ours), spread(theirs)), 2),
    }


def _freshness(kafka: Any, found: dict[str, Any], events: int | None) -> Result:
    from bench import freshness

    seconds = FRESH_SECONDS if events is None else events / freshness.RATE
    kafka.say(f"{FRESHNESS}: {freshness.RATE:,} events/s for {seconds:g} s, after {freshness.WARM_UP:g} s of warm-up")
    return freshness.measure(kafka, found, seconds)


__all__ = ["NAMES", "run", "settings"]
