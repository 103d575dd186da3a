"""What there is in a cluster: topics, their identity, their partitions and who leads them; and the making of new ones."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any

from kafka import errors as kafka_errors
from kafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from kafka.protocol.metadata import MetadataRequest

from penstock.errors import ConfigurationError, NotFoundError, UnavailableError
from penstock.log.kafka.client import ANSWER, Client
from penstock.log.kafka.problems import error_of, translated

FRESH = 1.0  # seconds that what was looked up is used for
POLICY_FRESH = 60.0  # and whether a topic is compacted
APPEAR = 10.0  # the longest wait for a new topic to have leaders
TOPIC_RESOURCE = 2  # of DescribeConfigs
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic as it was at `seen` (monotonic seconds). leaders: by partition, the broker that leads it; -1 if none does."""

    name: str
    incarnation: str
    leaders: dict[int, int]
    seen: float

    def check(self, partition: int) -> None:
        """Raise NotFoundError for a partition that is not there."""
        if partition not in self.leaders:
            raise NotFoundError(f"topic {self.name!r} has no partition {partition}", hint=f"it has {len(self.leaders)}, numbered from 0")


class Topics:
    """Looks topics up, at most once a second each unless what is known proved wrong. For any number of threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._guard = threading.Lock()
        self._known: dict[str, Topic] = {}
        self._replayable: dict[str, float] = {}  # by incarnation, until when

    def get(self, name: str, since: float | None = None) -> Topic:
        """A topic as it was within the last second, or not before `since`. Raises NotFoundError."""
        known = self._known.get(name)
        if known is not None and known.seen >= (time.monotonic() - FRESH if since is None else since):
            return known
        asked = time.monotonic()
        topic = self._metadata([MetadataRequest.MetadataRequestTopic(name=name)]).topics[0]
        problem = error_of(topic.error_code)
        if isinstance(problem, (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError)):
            self.forget(name)
            raise NotFoundError(f"there is no topic {name!r} in Kafka", hint="create it, or see topics in the deployment for its name")
        if problem is not None and not isinstance(problem, kafka_errors.LeaderNotAvailableError):
            raise translated(problem, f"topic {name!r}")
        identity = getattr(topic.topic_id, "hex", None)
        if not identity or not int(identity, 16):
            raise ConfigurationError(
                f"topic {name!r} has no id", hint="Kafka 2.8 or later is needed: a topic made anew must be told from the old"
            )
        found = Topic(name, identity, {one.partition_index: one.leader_id for one in topic.partitions}, asked)
        with self._guard:
            self._known[name] = found
        return found

    def forget(self, name: str) -> None:
        """Have the next `get` look again."""
        with self._guard:
            self._known.pop(name, None)

    def names(self) -> list[str]:
        """All topics but Kafka's own, sorted."""
        return sorted(
            one.name for one in self._metadata(None).topics if not one.is_internal and not one.name.startswith("__") and not one.error_code
        )

    def create(self, name: str, partitions: int) -> None:
        """Create a topic and wait until all its partitions have leaders, if it is not there yet. Raises ConfigurationError, UnavailableError."""
        settings, kind = self._client.settings, CreateTopicsRequest.CreatableTopic

        def make(manager: Any) -> Any:
            return CreateTopicsRequest(
                topics=[
                    kind(
                        name=name,
                        num_partitions=partitions,
                        replication_factor=settings.replication,
                        assignments=[],
                        configs=[kind.CreatableTopicConfig(name=key, value=value) for key, value in settings.topic_config.items()],
                    )
                ],
                timeout_ms=int(ANSWER * 1000),
                validate_only=False,
            )

        until = time.monotonic() + APPEAR
        while True:
            controller = self._client.manager().cluster.controller
            answer = self._client.ask(f"creating topic {name!r}", make, None if controller is None else controller.node_id)
            problem = error_of(answer.topics[0].error_code)
            if problem is None or isinstance(problem, kafka_errors.TopicAlreadyExistsError):
                break
            if isinstance(problem, kafka_errors.AuthorizationError) or time.monotonic() > until:
                raise translated(problem, f"creating topic {name!r}")
            if not isinstance(problem, kafka_errors.RetriableError):
                raise ConfigurationError(
                    f"topic {name!r} cannot be created: {type(problem).__name__}: {answer.topics[0].error_message}",
                    hint="check kafka.replication and kafka.topic_config",
                )
            self._metadata([])  # says who the controller is
        while True:
            try:
                if -1 not in self.get(name, time.monotonic()).leaders.values():
                    return
            except NotFoundError:
                if time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise UnavailableError(f"topic {name!r} was created, but not all its partitions have a leader yet")
            time.sleep(0.02)

    def check_replayable(self, topic: Topic) -> None:
        """Raise ConfigurationError for a compacted topic: what is read from it later is not what was counted."""
        if self._replayable.get(topic.incarnation, 0.0) > time.monotonic():
            return
        answer = self._client.ask(
            f"topic {topic.name!r}",
            lambda _: DescribeConfigsRequest(resources=[(TOPIC_RESOURCE, topic.name, ["cleanup.policy"])], include_synonyms=False),
        )
        found = answer.results[0]
        problem = error_of(found.error_code)
        if isinstance(problem, kafka_errors.AuthorizationError):
            log.warning("topic %s: not allowed to ask for its cleanup.policy; a compacted topic could not be replayed exactly", topic.name)
        elif problem is not None:
            raise translated(problem, f"topic {topic.name!r}")
        elif any("compact" in (one.value or "") for one in found.configs if one.name == "cleanup.policy"):
            raise ConfigurationError(
                f"topic {topic.name!r} is compacted: Kafka removes records from the middle of it, so that it cannot be replayed exactly",
                hint="set cleanup.policy=delete on it, or copy it to a topic that has that",
            )
        with self._guard:
            self._replayable[topic.incarnation] = time.monotonic() + POLICY_FRESH

    def _metadata(self, topics: list[Any] | None) -> Any:
        answer = self._client.ask(
            f"Kafka at {self._client.settings.bootstrap}",
            lambda _: MetadataRequest(
                topics=topics,
                allow_auto_topic_creation=False,
                include_cluster_authorized_operations=False,
                include_topic_authorized_operations=False,
            ),
        )
        # The manager learns from it which brokers there are, and which one is the controller.
        self._client.manager().cluster.update_metadata(answer)
        return answer
