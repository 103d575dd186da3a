"""Real servers for development and tests: Kafka, HBase, Storm, PostgreSQL and S3 on the loopback interface, in one folder."""

from __future__ import annotations

from penstock.stack.stack import DEFAULT, SERVERS, Progress, Stack, Standing
from penstock.stack.state import find

__all__ = ["DEFAULT", "SERVERS", "Progress", "Stack", "Standing", "find"]
