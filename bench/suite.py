"""The benchmarks that need no server: which sides, over which events, against what, and the bars."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from bench.measure import Bench, BenchError, Sample, cpu_ratio, median, ratio, spread
from bench.workload import Workload

Result = dict[str, Any]
LOOP, SKETCH_LOOP = "loop", "loop-sketch"
OF_KERNEL = 0.5  # the bar of topology-json beside the kernel's own rate


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One line of the results.

    side, baseline: of `bench.child`. against: what the baseline is, in words. bar: the least ratio, if there is one. beside: benchmarks that are run
    with it, to be compared.
    """

    name: str
    side: str
    baseline: str
    against: str
    workload: Workload
    bar: float | None = None
    beside: tuple[str, ...] = ()


# The baselines get their values decompressed for nothing, so the bars are on logs that are not compressed; what LZ4 costs stands beside.
KERNEL, COUNTS = Workload(1_000_000, codec="none"), Workload(4_000_000, codec="none")
MSGPACK = dataclasses.replace(KERNEL, format="msgpack")
DAY, PAGES = Workload(1_000_000, hours=24), Workload(1_000_000, source="pages", hours=24, users=50_000)
OF_MSGPACK, OF_JSON, COUNTS_OF_JSON = (
    "msgpack.unpackb + dict + datasketches HLL",
    "orjson.loads + dict + datasketches HLL",
    "orjson.loads + dict",
)
PARSE, SHIPPED = "orjson.loads alone", "penstock.topologies."


def _lz4(workload: Workload) -> Workload:
    return dataclasses.replace(workload, codec="lz4")


ALL = (
    Benchmark("kernel-msgpack", "kernel-sketch", SKETCH_LOOP, OF_MSGPACK, MSGPACK, bar=12),
    Benchmark("kernel-json", "kernel-sketch", SKETCH_LOOP, OF_JSON, KERNEL, bar=6),
    Benchmark("kernel-json-counts", "kernel", LOOP, COUNTS_OF_JSON, COUNTS),
    Benchmark("topology-json", "topology", LOOP, COUNTS_OF_JSON, COUNTS, bar=4, beside=("kernel-json-counts",)),
    Benchmark("kernel-msgpack-lz4", "kernel-sketch", SKETCH_LOOP, OF_MSGPACK, _lz4(MSGPACK)),
    Benchmark("kernel-json-lz4", "kernel-sketch", SKETCH_LOOP, OF_JSON, _lz4(KERNEL)),
    Benchmark("topology-json-lz4", "topology", LOOP, COUNTS_OF_JSON, _lz4(COUNTS)),
    Benchmark("msgspec-polars", "msgspec-polars", LOOP, COUNTS_OF_JSON, COUNTS),
    Benchmark("topology-page-analytics", SHIPPED + "page_analytics:PageAnalytics", "parse", PARSE, PAGES),
    Benchmark("topology-advertiser-analytics", SHIPPED + "advertiser_analytics:AdvertiserAnalytics", "parse", PARSE, DAY),
)
MEMORY, MEMORY_AIM = "memory", 1.3
MEMORY_WORKLOAD, MEMORY_TIMES = Workload(1_000_000, hours=24, users=200_000), 10
NAMES = (*(one.name for one in ALL), MEMORY)


def run(bench: Bench, names: Sequence[str], *, events: int | None = None, rounds: int = 3) -> list[Result]:
    """Run benchmarks by name, and those beside them; their results, in the order of NAMES. events: of every workload, instead of its own number.

    Raises BenchError if a side computes something else than its baseline.
    """
    wanted = {*names, *(other for one in ALL if one.name in names for other in one.beside)}
    results = compare(bench, [sized(one, events) for one in ALL if one.name in wanted], rounds)
    _compare_to_kernel(results)
    if MEMORY in wanted:
        small = MEMORY_WORKLOAD if events is None else dataclasses.replace(MEMORY_WORKLOAD, events=events)
        results.append(_memory(bench, small))
    return sorted(results, key=lambda result: NAMES.index(result["name"]))


def compare(bench: Bench, chosen: Sequence[Benchmark], rounds: int) -> list[Result]:
    """Measure benchmarks beside their baselines, those over the same events together. Raises BenchError if a side computes something else."""
    results: list[Result] = []
    for workload in dict.fromkeys(one.workload for one in chosen):
        together = [one for one in chosen if one.workload == workload]
        bench.say(f"{', '.join(one.name for one in together)}: {workload.events:,} events, {rounds} rounds")
        samples = bench.alternate(workload, {one.side: one.baseline for one in together}, rounds)
        results += [_result(one, samples, rounds) for one in together]
        bench.forget(workload)
    return results


def sized(one: Benchmark, events: int | None) -> Benchmark:
    """A benchmark over so many events; over its own number if None."""
    return one if events is None else dataclasses.replace(one, workload=dataclasses.replace(one.workload, events=events))


def short(number: float) -> float:
    """Three digits: what a ratio of measurements has, at most."""
    return float(f"{number:.3g}")


def numbers(sample: Sample) -> Result:
    """The rates of a sample, as results have them."""
    return {"events_per_second": round(sample.events_per_second), "cpu_seconds_per_million": round(sample.cpu_seconds_per_million, 3)}


def _result(one: Benchmark, samples: dict[str, list[Sample]], rounds: int) -> Result:
    ours, theirs = samples[one.side], samples[one.baseline]
    middle = median(ours)
    ratios = {"ratio": short(ratio(ours, theirs)), "cpu_ratio": short(cpu_ratio(ours, theirs))}
    base = {f"baseline_{key}": value for key, value in {**numbers(median(theirs)), "peak_rss_mb": median(theirs).peak_rss_mb}.items()}
    how = {
        "events": one.workload.events,
        "rounds": rounds,
        "spread": round(max(spread(ours), spread(theirs)), 2),
        "peak_rss_mb": middle.peak_rss_mb,
    }
    return {
        "name": one.name,
        **numbers(middle),
        "baseline": one.against,
        **ratios,
        **({"bar": one.bar} if one.bar else {}),
        **base,
        **how,
        **middle.extra,
    }


def _compare_to_kernel(results: list[Result]) -> None:
    """The topology's rate beside that of the kernels that it runs, from the same rounds."""
    found = {result["name"]: result for result in results}
    if "topology-json" in found:
        topology, kernel = found["topology-json"], found["kernel-json-counts"]
        topology["of_kernel"], topology["of_kernel_bar"] = short(topology["events_per_second"] / kernel["events_per_second"]), OF_KERNEL


def _memory(bench: Bench, small: Workload) -> Result:
    """The peak of a run over ten times the events, time span and users, so that a window holds as much as before."""
    large = dataclasses.replace(
        small, events=small.events * MEMORY_TIMES, hours=small.hours * MEMORY_TIMES, users=small.users * MEMORY_TIMES
    )
    bench.say(f"{MEMORY}: {small.events:,} and {large.events:,} events")
    peaks: list[Sample] = []
    for workload in (small, large):
        peaks.append(bench.sample("topology", workload))
        bench.forget(workload)
    before, after = (sample.peak_rss_mb for sample in peaks)
    return {
        "name": MEMORY,
        **numbers(peaks[1]),
        "baseline": f"the same at {small.events:,} events, by peak RSS",
        "ratio": short(after / before),
        "aim_at_most": MEMORY_AIM,
        "events": large.events,
        "peak_rss_mb": after,
        "baseline_peak_rss_mb": before,
        **peaks[1].extra,
    }


def missed(results: Sequence[Result]) -> list[str]:
    """The bars that are not reached, in words."""
    found = []
    for one in results:
        if "bar" in one and one["ratio"] < one["bar"]:
            found.append(f"{one['name']}: {one['ratio']} times {one['baseline']}, and should be {one['bar']}")
        if "of_kernel" in one and one["of_kernel"] < one["of_kernel_bar"]:
            found.append(f"{one['name']}: {one['of_kernel']} of the kernel's own rate, and should be {one['of_kernel_bar']}")
        if "of_copy" in one and one["of_copy"] < one["of_copy_bar"]:
            found.append(f"{one['name']}: {one['of_copy']} of the rate of COPY alone, and should be {one['of_copy_bar']}")
        for what, times in one.get("at_least_times", {}).items():
            if times < one["bar"]:
                found.append(f"{one['name']}: {what} is {times} by the 99th percentile, and should be {one['bar']}")
        for what, times in one.get("at_most_times", {}).items():
            if times > one["at_most"]:
                found.append(f"{one['name']}: {what} is {times} by the 99th percentile, and should be at most {one['at_most']}")
        if "aim_at_most" in one and one["ratio"] > one["aim_at_most"]:
            found.append(f"{one['name']}: {one['ratio']} times the smaller run's peak, and should be at most {one['aim_at_most']}")
        if "at_most_seconds" in one and one["p99_seconds"] > one["at_most_seconds"]:
            found.append(
                f"{one['name']}: 99 % are readable within {one['p99_seconds']} s, and should be within {one['at_most_seconds']:g} s"
            )
    return found


__all__ = ["ALL", "NAMES", "Bench", "BenchError", "Benchmark", "Result", "compare", "missed", "numbers", "run", "short", "sized"]
