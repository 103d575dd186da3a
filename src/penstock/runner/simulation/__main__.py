"""python -m penstock.runner.simulation [--schedules N] [--seed S] [--only K]: run schedules, or repeat one."""

from __future__ import annotations

import argparse
import collections
import logging
import sys

from penstock.runner.simulation import Difference, run_schedule


def main() -> int:
    """Run the schedules asked for; 1 if any found a difference."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.runner.simulation", description="Seeded schedules of faults against the exactly-once protocol."
    )
    parser.add_argument("--schedules", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", default="0", help="what the schedules' seeds begin with (default: %(default)s)")
    parser.add_argument("--only", metavar="SEED", help="repeat the one schedule with this very seed")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the faults are meant
    wrong, faults = 0, collections.Counter[str]()
    seeds = [arguments.only] if arguments.only else [f"{arguments.seed}/{number}" for number in range(arguments.schedules)]
    for seed in seeds:
        try:
            faults += run_schedule(seed).faults
        except Difference as problem:
            wrong += 1
            print(problem, file=sys.stderr)
    print(f"{wrong} of {len(seeds)} schedules wrong; faults that took effect: {dict(faults.most_common())}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
