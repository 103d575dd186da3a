"""Spouts: where a topology's tuples come from."""

from penstock.spouts.kafka import KafkaSpout

__all__ = ["KafkaSpout"]
