"""Sides of a benchmark in processes of their own, in turn: what else the machine does then hits all of them alike."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Sequence

from bench.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}


class BenchError(RuntimeError):
    """A side failed, or computed something else than its baseline."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement. extra: what the side says beside its times."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    extra: dict[str, float]

    @property
    def events_per_second(self) -> float:
        """Wall-clock rate."""
        return self.events / self.seconds

    @property
    def cpu_seconds_per_million(self) -> float:
        """Processor time, user and system."""
        return self.cpu_seconds * 1_000_000 / self.events


def median(samples: Sequence[Sample]) -> Sample:
    """The sample of the median wall-clock time; of an even number, the faster of the two in the middle."""
    return sorted(samples, key=lambda sample: sample.seconds)[(len(samples) - 1) // 2]


@dataclasses.dataclass
class Bench:
    """Where measurements are made. directory: on the disk whose fsync is to be measured. cpu: the one that every side is pinned to; None for none."""

    directory: Path
    cpu: int | None
    say: Callable[[str], None] = lambda line: None

    def place(self, workload: Workload) -> dict[str, Any]:
        """Where the workload's log is, as a measuring process is told. Written when it is first asked for: by this process, so that it is in no
        measured one's memory."""
        path = self.directory / workload.name
        if not path.is_dir():
            partial = self.directory / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            workload.write(partial)
            partial.rename(path)
        return {"log": str(path)}

    def forget(self, workload: Workload) -> None:
        """Remove the workload's log."""
        shutil.rmtree(self.directory / workload.name, ignore_errors=True)

    def sample(self, side: str, workload: Workload, answer: Path | None = None) -> Sample:
        """Measure a side once. answer: the file that its answer is written to, if it is wanted."""
        place = self.place(workload)
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            task = {
                "side": side,
                "workload": dataclasses.asdict(workload),
                **place,
                "scratch": scratch,
                "cpu": self.cpu,
                "answer": str(answer) if answer else None,
            }
            found = json.loads(self._python("-m", "bench.child", json.dumps(task)).splitlines()[-1])
        sample = Sample(workload.events, found.pop("seconds"), found.pop("cpu_seconds"), found.pop("peak_rss_mb"), found)
        self.say(
            f"  {side}: {sample.events_per_second:,.0f} events/s, {sample.cpu_seconds_per_million:.2f} CPU s per million, {sample.peak_rss_mb:,.0f} MB"
        )
        return sample

    def alternate(self, workload: Workload, baselines: dict[str, str], rounds: int) -> dict[str, list[Sample]]:
        """Measure sides `rounds` times, in turn. baselines: of each side, the one to measure before it, which must compute the same, every time.

        Raises BenchError where it does not.
        """
        from bench.answers import difference

        sides = list(dict.fromkeys([*baselines.values(), *baselines]))
        samples: dict[str, list[Sample]] = {side: [] for side in sides}
        file = self.directory / "answer"
        for _ in range(rounds):
            answers: dict[str, Any] = {}
            for side in sides:
                samples[side].append(self.sample(side, workload, file))
                answers[side] = pickle.loads(file.read_bytes())
                file.unlink()
            for side, baseline in baselines.items():
                if wrong := difference(answers[side], answers[baseline]):
                    raise BenchError(f"{side} and {baseline} do not agree over {workload}: {wrong}")
        return samples

    def _python(self, *arguments: str) -> str:
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"a measuring process ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def spread(samples: Sequence[Sample]) -> float:
    """The slowest of some samples over the fastest: how quiet the machine was."""
    times = [sample.seconds for sample in samples]
    return max(times) / min(times)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """How many times as fast: the median over the rounds, each against the baseline of the same round."""
    return statistics.median(mine.events_per_second / other.events_per_second for mine, other in zip(ours, theirs))


def cpu_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """How many times the processor time the baseline takes for an event: the median over the rounds."""
    return statistics.median(other.cpu_seconds_per_million / mine.cpu_seconds_per_million for mine, other in zip(ours, theirs))
