"""What all spouts share: their place among the tasks, their deployment, and the tuple that they emit."""

from __future__ import annotations

import json
from typing import Any

from streamparse import Spout
from streamparse.dsl.spout import ShellSpoutSpec

from penstock.deployment import Deployment

__all__ = ["CONFIG", "DEPLOYMENT", "FIELDS", "BatchSpout", "ShellSpoutSpec", "on_storm", "task_place"]
FIELDS = [
    "incarnation",
    "topic",
    "partition",
    "previous_next_offset",
    "first_offset",
    "next_offset",
    "skipped",
    "lost",
    "bytes",
    "caught_up",
]
CONFIG = "penstock.component"  # a component's own settings, JSON, in its Storm configuration
DEPLOYMENT = "penstock.deployment"  # the deployment, JSON, in the topology's configuration


def task_place(context: dict[str, Any]) -> tuple[int, int]:
    """Which task of its component this is, from 0, and how many the component has, by Storm's context."""
    mine = int(context["taskid"])
    component = context["task->component"][str(mine)]
    tasks = sorted(int(task) for task, name in context["task->component"].items() if name == component)
    return tasks.index(mine), len(tasks)


def on_storm(storm_conf: dict[str, Any]) -> bool:
    """Whether Storm runs this component, in a process of its own, and not the local runner."""
    return "topology.name" in storm_conf


class BatchSpout(Spout):
    """A spout whose tuples are whole record batches. Set `deployment` before `initialize` to bring one's own stores."""

    outputs = FIELDS
    deployment: Deployment | None = None

    def initialize(self, storm_conf: dict[str, Any], context: dict[str, Any]) -> None:
        """Called by Storm, or the local runner, before anything else."""
        self.settings: dict[str, Any] = json.loads(storm_conf[CONFIG])
        if self.deployment is None:
            self.deployment = Deployment.from_json(storm_conf[DEPLOYMENT])
        # Storm would only start a component that dies again, and its whole worker with it; the local runner ends the run and says why.
        self.patient = on_storm(storm_conf)
        if self.patient:
            self.deployment.metrics.serve(int(context["taskid"]))
        self.index, self.tasks = task_place(context)
        self.open()

    def open(self) -> None:
        """Take up the partitions that are this task's."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it reads")
