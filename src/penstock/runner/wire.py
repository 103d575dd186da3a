"""Drives a streamparse component without Storm: the multilang protocol's own messages, passed as objects.

The component's class is the one that Storm would start, and its own loop body runs; only the pipe is not there.
"""

from __future__ import annotations

import collections
import io
import json
import logging
from typing import Any, Mapping

from penstock.spouts.base import DEPLOYMENT

TICK = {"id": "tick", "comp": "__system", "stream": "__tick", "task": -1, "tuple": [1]}


class Wire:
    """Stands where a component's serializer would: what is read comes from `inbox`, what is sent goes to `outbox`. Appending to it is thread-safe."""

    def __init__(self) -> None:
        self.inbox: collections.deque[dict[str, Any]] = collections.deque()
        self.outbox: collections.deque[dict[str, Any]] = collections.deque()

    def read_message(self) -> dict[str, Any]:
        """The next message from "Storm"."""
        return self.inbox.popleft()

    def send_message(self, message: dict[str, Any]) -> None:
        """A message to "Storm"."""
        self.outbox.append(message)


class Task:
    """A running component: one task of a topology.

    name: the component's. place: index among its tasks, and how many there are. Set `deployment` to give it stores of the caller's.
    """

    def __init__(
        self, component_cls: type[Any], name: str, config: Mapping[str, Any], *, place: tuple[int, int] = (0, 1), deployment: Any = None
    ) -> None:
        self.component_cls, self.name, self.config, self.place, self.deployment = component_cls, name, dict(config), place, deployment
        self.component: Any = None
        self.wire = Wire()

    def start(self) -> None:
        """Make the component anew, with no memory of an earlier one."""
        self.wire = Wire()
        component = self.component_cls(input_stream=io.BytesIO(), output_stream=io.BytesIO(), rdb_signal=None, serializer="msgpack")
        component.serializer = self.wire
        index, tasks = self.place
        component.component_name, component.task_id, component.storm_conf = self.name, index + 1, self.config
        component.logger = logging.getLogger(f"penstock.{self.name}")
        component.deployment = self.deployment
        component.initialize(
            self.config, {"taskid": index + 1, "componentid": self.name, "task->component": {str(n + 1): self.name for n in range(tasks)}}
        )
        self.component = component

    def send(self, message: dict[str, Any]) -> None:
        """Give the component one message and let it do what it does with one."""
        self.wire.inbox.append(message)
        self.component._run()

    def sent(self) -> list[dict[str, Any]]:
        """What the component said since the last call, without log lines and the like."""
        messages = []
        while self.wire.outbox:
            message = self.wire.outbox.popleft()
            if message["command"] in ("emit", "ack", "fail"):
                messages.append(message)
        return messages

    def stop(self) -> None:
        """Stop the component's threads, if it has any."""
        if self.component is not None and hasattr(self.component, "close"):
            self.component.close()
        self.component = None


def component_config(spec: Any, deployment: Any) -> dict[str, Any]:
    """A component's Storm configuration: its own, and the topology's."""
    return {**json.loads(spec.config), DEPLOYMENT: deployment.to_json()}
