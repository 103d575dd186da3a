"""The benchmarks: which sides, over which events, against what, and the bars."""
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


KERNEL, COUNTS = Workload(1_000_000), Workload(4_000_000)
SHIPPED = "penstock.topologies."
ALL = (
    Benchmark("kernel-msgpack", "kernel-sketch", SKETCH_LOOP, "msgpack.unpackb + dict + datasketches HLL", dataclasses.replace(KERNEL, format="msgpack"), bar=12),
    Benchmark("kernel-json", "kernel-sketch", SKETCH_LOOP, "orjson.loads + dict + datasketches HLL", KERNEL, bar=6),
    Benchmark("kernel-json-counts", "kernel", LOOP, "orjson.loads + dict", COUNTS),
    Benchmark("topology-json", "topology", LOOP, "orjson.loads + dict", COUNTS, bar=4, beside=("kernel-json-counts",)),
    Benchmark("msgspec-polars", "msgspec-polars", LOOP, "orjson.loads + dict", COUNTS),
    Benchmark("topology-page-analytics", SHIPPED + "page_analytics:PageAnalytics", "parse", "orjson.loads alone", Workload(1_000_000, source="pages", hours=24, users=50_000)),
    Benchmark("topology-advertiser-analytics", SHIPPED + "advertiser_analytics:AdvertiserAnalytics", "parse", "orjson.loads alone", Workload(1_000_000, hours=24)),
)
MEMORY, MEMORY_AIM = "memory", 1.3
MEMORY_WORKLOAD, MEMORY_TIMES = Workload(1_000_000, hours=24, users=200_000), 10
NAMES = (*(one.name for one in ALL), MEMORY)


def run(bench: Bench, names: Sequence[str], *, events: int | None = None, rounds: int = 3) -> list[Result]:
    """Run benchmarks by name, and those beside them; their results, in the order of NAMES. events: of every workload, instead of its own number.

    Raises BenchError if a side computes something else than its baseline.
    """
    wanted = {*names, *(other for one in ALL if one.name in names for other in one.beside)}
    chosen = [dataclasses.replace(one, workload=_sized(one.workload, events)) for one in ALL if one.name in wanted]
    results: list[Result] = []
    for workload in dict.fromkeys(one.workload for one in chosen):
        together = [one for one in chosen if one.workload == workload]
        bench.say(f"{', '.join(one.name for one in together)}: {workload.events:,} events, {rounds} rounds")
        # A baseline of its own for each: two of one workload may have different ones.
        samples = bench.alternate(workload, {one.side: one.baseline for one in together}, rounds)
        results += [_result(one, samples, rounds) for one in together]
        bench.forget(workload)
    _compare_to_kernel(results)
    if MEMORY in wanted:
        results.append(_memory(bench, _sized(MEMORY_WORKLOAD, events)))
    return sorted(results, key=lambda result: NAMES.index(result["name"]))


def _sized(workload: Workload, events: int | None) -> Workload:
    return workload if events is None else dataclasses.replace(workload, events=events)


def _numbers(sample: Sample) -> Result:
    return {"events_per_second": round(sample.events_per_second), "cpu_seconds_per_million": round(sample.cpu_seconds_per_million, 3)}


def _result(one: Benchmark, samples: dict[str, list[Sample]], rounds: int) -> Result:
    ours, theirs = samples[one.side], samples[one.baseline]
    middle, base = median(ours), median(theirs)
    return {"name": one.name, **_numbers(middle), "baseline": one.against, "ratio": round(ratio(ours, theirs), 2), "cpu_ratio": round(cpu_ratio(ours, theirs), 2),
            **({"bar": one.bar} if one.bar else {}), **{f"baseline_{key}": value for key, value in _numbers(base).items()},
            "events": one.workload.events, "rounds": rounds, "spread": round(max(spread(ours), spread(theirs)), 2), "peak_rss_mb": middle.peak_rss_mb, **middle.extra}


def _compare_to_kernel(results: list[Result]) -> None:
    """The topology's rate beside that of the kernels that it runs, from the same rounds."""
    found = {result["name"]: result for result in results}
    if "topology-json" in found:
        topology, kernel = found["topology-json"], found["kernel-json-counts"]
        topology["of_kernel"], topology["of_kernel_bar"] = round(topology["events_per_second"] / kernel["events_per_second"], 2), OF_KERNEL


def _memory(bench: Bench, small: Workload) -> Result:
    """The peak of a run over ten times the events, time span and users, so that a window holds as much as before."""
    large = dataclasses.replace(small, events=small.events * MEMORY_TIMES, hours=small.hours * MEMORY_TIMES, users=small.users * MEMORY_TIMES)
    bench.say(f"{MEMORY}: {small.events:,} and {large.events:,} events")
    peaks: list[Sample] = []
    for workload in (small, large):
        peaks.append(bench.sample("topology", workload))
        bench.forget(workload)
    return {"name": MEMORY, **_numbers(peaks[1]), "baseline": f"the same at {small.events:,} events, by peak RSS", "ratio": round(peaks[1].peak_rss_mb / peaks[0].peak_rss_mb, 2),
            "aim_at_most": MEMORY_AIM, "events": large.events, "peak_rss_mb": peaks[1].peak_rss_mb, "baseline_peak_rss_mb": peaks[0].peak_rss_mb, **peaks[1].extra}


def missed(results: Sequence[Result]) -> list[str]:
    """The bars that are not reached, in words."""
    found = [f"{one['name']}: {one['ratio']} times {one['baseline']}, and should be {one['bar']}" for one in results if "bar" in one and one["ratio"] < one["bar"]]
    found += [f"{one['name']}: {one['of_kernel']} of the kernel's own rate, and should be {one['of_kernel_bar']}" for one in results
              if "of_kernel" in one and one["of_kernel"] < one["of_kernel_bar"]]
    return found + [f"{one['name']}: {one['ratio']} times the smaller run's peak, and should be at most {one['aim_at_most']}" for one in results
                    if "aim_at_most" in one and one["ratio"] > one["aim_at_most"]]


__all__ = ["ALL", "NAMES", "Bench", "BenchError", "Benchmark", "missed", "run"]
