"""Group offsets for the tools that show a reader's lag. Nothing here reads them."""

from __future__ import annotations

import logging
from typing import Any

from kafka.protocol.consumer import OffsetCommitRequest
from kafka.protocol.metadata import FindCoordinatorRequest

from penstock.log.kafka.client import Client
from penstock.log.kafka.problems import error_of

log = logging.getLogger(__name__)


class Reporter:
    """Commits offsets of groups without members, in the background: never raises, never waits, and drops what comes while a commit is under way."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._coordinators: dict[str, int] = {}
        self._under_way: dict[tuple[str, str], Any] = {}

    def report(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        """See Log.report."""
        before = self._under_way.get((group, topic))
        if offsets and (before is None or before.is_done):
            self._under_way[group, topic] = self._client.later(self._commit, group, topic, dict(offsets))

    async def _commit(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        try:
            manager = self._client.manager()
            if group not in self._coordinators:
                self._coordinators[group] = await self._coordinator(manager, group)
            kind = OffsetCommitRequest.OffsetCommitRequestTopic
            answer = await manager.send(
                OffsetCommitRequest(
                    group_id=group,
                    generation_id_or_member_epoch=-1,
                    member_id="",
                    group_instance_id=None,
                    retention_time_ms=-1,
                    topics=[
                        kind(
                            name=topic,
                            partitions=[
                                kind.OffsetCommitRequestPartition(
                                    partition_index=number, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
                                )
                                for number, offset in sorted(offsets.items())
                            ],
                        )
                    ],
                    max_version=8,
                ),
                node_id=self._coordinators[group],
            )
            for one in answer.topics[0].partitions:
                problem = error_of(one.error_code)
                if problem is not None:
                    raise problem
        except Exception as problem:
            self._coordinators.pop(group, None)
            log.debug("group %s: offsets of %s were not noted: %s: %s", group, topic, type(problem).__name__, problem)

    async def _coordinator(self, manager: Any, group: str) -> int:
        answer = await manager.send(FindCoordinatorRequest(key=group, key_type=0, max_version=3), node_id=None)
        problem = error_of(answer.error_code)
        if problem is not None:
            raise problem
        return int(answer.node_id)
