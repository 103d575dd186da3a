"""The log on Apache Kafka. Importing this loads kafka-python."""

from penstock.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
