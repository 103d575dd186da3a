"""One measurement, in a process of its own that may be pinned to one CPU: what it needs is made first, and is not timed.

Called by `bench.measure` with a JSON object as its only argument; prints one as its last line.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import resource
import sys
import time
from pathlib import Path
from typing import Any, cast

from bench.workload import AdCounts, Topic, Workload


def make(side: str, workload: Workload, log: Path | Topic, scratch: Path) -> Any:
    """The side of a name, ready to `run`. log: where the workload is: the folder of a local log, or a topic of Kafka's."""
    if side in ("loop", "loop-sketch", "parse", "msgspec-polars"):
        from bench import baselines

        if side == "parse":
            return baselines.ParseOnly(workload, "path" if workload.source == "pages" else "advertiser_id")
        return baselines.MsgspecPolars(workload) if side == "msgspec-polars" else baselines.loop(workload, uniques=side == "loop-sketch")
    if side in ("confluent-decode", "confluent-rollup"):
        from bench import confluent

        return (confluent.Decode if side == "confluent-decode" else confluent.Rollup)(workload, cast("Topic", log))
    from bench import ours

    if side == "kafka-decode":
        return ours.Decode(workload, cast("Topic", log))
    if side in ("kernel", "kernel-sketch"):
        return ours.Kernel(workload, cast(Path, log), uniques=side == "kernel-sketch")
    deployment = ours.embedded(log, scratch) if isinstance(log, Path) else ours.on_kafka(log, scratch)
    if side == "topology":
        return ours.TopologyRun(AdCounts, workload.events, deployment)
    module, _, name = side.partition(":")
    return ours.ShippedRun(getattr(importlib.import_module(module), name), workload.events, deployment)


def cpu_seconds() -> float:
    """User and system time of this process and of those that it waited for."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def peak_rss_mb() -> float:
    """The most memory that this process had resident. From /proc where there is one: getrusage's carries over from the process that started this one."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024, 1)
    except OSError:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def main(text: str) -> None:
    """Measure, and write the answer beside."""
    task = json.loads(text)
    if hasattr(os, "sched_setaffinity") and task["cpu"] is not None:
        os.sched_setaffinity(0, {task["cpu"]})
    log = Topic(**task["topic"]) if "topic" in task else Path(task["log"])
    side = make(task["side"], Workload(**task["workload"]), log, Path(task["scratch"]))
    gc.collect()
    gc.freeze()  # the list of values is nothing that a collection during the run should look at
    cpu, began = cpu_seconds(), time.perf_counter()
    side.run()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    peak = peak_rss_mb()
    if task["answer"]:
        Path(task["answer"]).write_bytes(pickle.dumps(side.answer()))
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak, **getattr(side, "extra", {})}))


if __name__ == "__main__":
    main(sys.argv[1])
