"""Command line: run benchmarks and write their results, or print the table of the last ones."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from penstock.configuration import STACK

from bench import report
from bench.measure import ROOT, Bench, BenchError

QUICK_EVENTS = 20_000


def main() -> int:
    """Exit codes: 0; 1 where a side failed or computed something else, or, with --check, where a bar is missed; 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Penstock against what one would write instead, in the same run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all that need no server); --list names them")
    parser.add_argument("--servers", action="store_true", help="run all that need servers, where no NAME is given")
    parser.add_argument(
        "--on", default=STACK, metavar="NAME", help=f"the deployment whose servers those use (default: {STACK}; `penstock stack up`)"
    )
    parser.add_argument("--events", type=int, metavar="N", help="events of every benchmark, instead of its own number")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each side, in turn (default: 3)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EVENTS:,} events, one round: shows that all runs and agrees; its rates mean nothing, and are written only with --output",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write results (default: bench/results.json, and the table in bench/README.md)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / "build",
        metavar="DIR",
        help="for logs and tables, some GB at most; its disk's fsync is measured (default: build)",
    )
    parser.add_argument("--cpu", type=int, metavar="N", help="the core that those without servers run on (default: the last one)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--table", action="store_true", help="print the results that are there as Markdown, and run nothing")
    parser.add_argument("--list", action="store_true", help="print the names of the benchmarks, and run nothing")
    options = parser.parse_args()
    if options.table:
        print(report.table(report.load(options.output or report.RESULTS)))
        return 0
    try:
        from bench import export_redshift, query, servers, suite
    except ModuleNotFoundError as problem:
        parser.exit(2, f"the benchmarks need {problem.name}: pip install 'penstock[bench]', or make bench\n")
    known = (*suite.NAMES, *servers.NAMES, *export_redshift.NAMES, *query.NAMES)
    if options.list:
        beside = (
            *(f"{name}  (needs servers)" for name in servers.NAMES),
            *(f"{name}  (needs PostgreSQL)" for name in export_redshift.NAMES),
            *(f"{name}  (needs Java and PostgreSQL)" for name in query.NAMES),
        )
        print("\n".join((*suite.NAMES, *beside)))
        return 0
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}")
    names = options.names or ((*servers.NAMES, *export_redshift.NAMES, *query.NAMES) if options.servers else suite.NAMES)
    embedded, real = [name for name in suite.NAMES if name in names], [name for name in servers.NAMES if name in names]
    if (options.events or 1) < 1 or options.rounds < 1:
        parser.error("--events and --rounds must be 1 or more")
    events = options.events or (QUICK_EVENTS if options.quick else None)
    cpu = options.cpu if options.cpu is not None else max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory.resolve()) as directory:
        bench, rounds = Bench(Path(directory), cpu, say), 1 if options.quick else options.rounds
        try:
            if real:
                servers.settings(options.on, real)  # that one is missing is said at once
            results = suite.run(bench, embedded, events=events, rounds=rounds) if embedded else []
            results += servers.run(bench, real, options.on, events=events, rounds=rounds) if real else []
            results += [export_redshift.run(bench, events=events, rounds=rounds)] if export_redshift.NAME in names else []
            results += [query.run(bench, events=events)] if query.NAME in names else []
        except BenchError as problem:
            say(f"error: {problem}")
            return 1
    print(report.table(results))
    output = options.output or (None if options.quick else report.RESULTS)
    if output:
        kept = report.save(output, results, known)
        if output == report.RESULTS:
            report.write_readme(kept)
    misses = [] if options.quick else suite.missed(results)
    for line in misses:
        say(f"MISSED {line}")
    return 1 if misses and options.check else 0


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
