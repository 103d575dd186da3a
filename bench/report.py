"""results.json, and the table of README.md that is made of it."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any, Sequence

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
BEGIN, END = "<!-- results: written by python -m bench -->", "<!-- end of results -->"


def machine() -> str:
    """What this ran on, for people."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    except OSError:
        model = platform.machine()
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def load(path: Path) -> list[dict[str, Any]]:
    """The results of a file; none if it is not there."""
    return json.loads(path.read_text()) if path.exists() else []  # type: ignore[no-any-return]


def save(path: Path, results: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Write results, beside those of other benchmarks in the file, in the order of `names`. All that the file then holds."""
    merged = {one["name"]: one for one in load(path)} | {one["name"]: {**one, "machine": machine()} for one in results}
    kept = sorted((one for one in merged.values() if one["name"] in names), key=lambda one: names.index(one["name"]))
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def table(results: Sequence[dict[str, Any]]) -> str:
    """Results as Markdown."""
    lines = [
        "| benchmark | events/s | CPU s per million | baseline | baseline's events/s | baseline's CPU | ratio | bar | peak RSS |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|",
        *(_line(one) for one in results if "ratio" in one and "milliseconds" not in one),
        *(line for one in results if "milliseconds" in one for line in _latencies(one)),
    ]
    notes = [f"{one['name']}: {one['cells_per_event']:.2f} cells put per event" for one in results if "cells_per_event" in one]
    notes += [
        f"{one['name']} runs at {one['of_kernel']:.0%} of the rate of the kernels alone (bar: {one['of_kernel_bar']:.0%})"
        for one in results
        if "of_kernel" in one
    ]
    notes += [
        f"{one['name']}: {one['events']:,} events, of which the baseline got {one['baseline_events']:,}; the CPU is that of the whole machine, servers and all"
        for one in results
        if "baseline_events" in one
    ]
    notes += [
        f"{one['name']}: at {one['produced_per_second']:,} events/s of {one['advertisers']:,} advertisers, an event is in what a reader gets after "
        f"{one['p50_seconds']:g} s (median) and {one['p99_seconds']:g} s (99th percentile; bar: {one['at_most_seconds']:g} s) with a flush every "
        f"{one['flush_seconds']:g} s"
        for one in results
        if "p99_seconds" in one
    ]
    notes += [
        f"{one['name']}: rows, of which the baseline got {one['loaded_in_part']:,} of {one['events']:,}; {one['of_copy']:.0%} of the rate of COPY alone of the same "
        f"files (bar: {one['of_copy_bar']:.0%}), {one['of_insert']:g} times INSERT of many rows a statement ({one['insert_events_per_second']:,} rows/s)"
        for one in results
        if "of_copy" in one
    ]
    machines = sorted({one["machine"] for one in results if "machine" in one})
    return "\n".join([*lines, "", *(f"- {note}." for note in notes), *(f"- On: {one}." for one in machines)])


def _latencies(one: dict[str, Any]) -> list[str]:
    """A table of its own for what is measured in percentiles."""
    kinds = list(one["milliseconds"])
    lines = [
        "",
        f"`{one['name']}`: p50 / p95 / p99 in milliseconds, and questions a second of one client on one core",
        "",
        f"| | {' | '.join(f'{kind} | per second' for kind in kinds)} |",
        f"|---|{'--:|--:|' * len(kinds)}",
    ]
    for side, words in one["sides"].items():
        rates = [one["queries_per_second"][kind].get(side) for kind in kinds]
        cells = [
            f"{' / '.join(f'{value:g}' for value in one['milliseconds'][kind][side])} | {'' if rate is None else f'{rate:,}'}"
            for kind, rate in zip(kinds, rates)
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += ["", f"By the 99th percentile, of {one['events']:,} events:", ""]
    lines += [f"- {what}: {times:g} (bar: ≥ {one['bar']:g})." for what, times in one["at_least_times"].items()]
    return lines + [f"- {what}: {times:g} (bar: ≤ {one['at_most']:g})." for what, times in one["at_most_times"].items()]


def _line(one: dict[str, Any]) -> str:
    bar = f"≥ {one['bar']:g}×" if "bar" in one else f"≤ {one['aim_at_most']:g}×" if "aim_at_most" in one else ""
    rate = f"{one['baseline_events_per_second']:,}" if "baseline_events_per_second" in one else ""
    processor = f"{one['baseline_cpu_seconds_per_million']:.2f}" if "baseline_cpu_seconds_per_million" in one else ""
    peak = f"{one['peak_rss_mb']:,.0f} MB" if "peak_rss_mb" in one else ""
    return (
        f"| {one['name']} | {one['events_per_second']:,} | {one['cpu_seconds_per_million']:.2f} | {one['baseline']} | {rate} | {processor} "
        f"| {one['ratio']:g}× | {bar} | {peak} |"
    )


def write_readme(results: Sequence[dict[str, Any]]) -> None:
    """Put the table where README.md keeps it."""
    text = README.read_text()
    README.write_text(text[: text.index(BEGIN) + len(BEGIN)] + "\n" + table(results) + "\n" + text[text.index(END) :])
