"""kafka-python's errors as ours."""

from __future__ import annotations

from typing import Any

from kafka import errors as kafka_errors

from penstock.errors import ConfigurationError, CorruptionError, NotFoundError, OutOfRangeError, PenstockError, UnavailableError

UNAUTHORIZED = (kafka_errors.AuthorizationError, kafka_errors.SaslAuthenticationFailedError, kafka_errors.UnsupportedSaslMechanismError)
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
UNSUPPORTED = (kafka_errors.UnsupportedVersionError, kafka_errors.UnrecognizedBrokerVersion)
MISSING = (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.UnknownTopicIdError, kafka_errors.InvalidTopicError)
# Not retriable by kafka-python's word, but another try, with fresh metadata or a fresh connection, may well succeed.
PASSING = (
    kafka_errors.RetriableError,
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.UnknownBrokerIdError,
    kafka_errors.KafkaProtocolError,
    kafka_errors.UnknownError,
    ConnectionError,
    TimeoutError,
)


def error_of(code: int) -> Exception | None:
    """The error that a response's code stands for; None for success."""
    kind: Any = kafka_errors.for_code(code)
    return None if kind is kafka_errors.NoError else kind()


def translated(problem: BaseException, what: str) -> PenstockError:
    """The error to raise for one of kafka-python's. what: that which failed, in a few words."""
    if isinstance(problem, PenstockError):
        return problem
    name = type(problem).__name__.removesuffix("Error")
    if isinstance(problem, UNAUTHORIZED):
        return ConfigurationError(
            f"{what}: not allowed ({name}: {problem})", hint="check the sasl_ settings, and the access rules in Kafka"
        )
    if isinstance(problem, TOO_LARGE):
        return ConfigurationError(
            f"{what}: a record batch is larger than the topic allows", hint="make smaller batches, or raise the topic's max.message.bytes"
        )
    if isinstance(problem, kafka_errors.InvalidTimestampError):
        return ConfigurationError(
            f"{what}: the broker refuses a record's timestamp", hint="see the topic's message.timestamp.before.max.ms and .after.max.ms"
        )
    if isinstance(problem, (kafka_errors.CorruptRecordError, kafka_errors.InvalidRecordError)):
        return CorruptionError(
            f"{what}: the broker refuses a record batch ({name})", hint="make batches with penstock.kernels.encode_batch"
        )
    if isinstance(problem, UNSUPPORTED):
        return ConfigurationError(f"{what}: the brokers are too old ({problem})", hint="Kafka 2.8 or later is needed")
    if isinstance(problem, MISSING):
        return NotFoundError(f"{what}: there is no such topic or partition", hint="create the topic, or look up its incarnation again")
    if isinstance(problem, kafka_errors.OffsetOutOfRangeError):
        return OutOfRangeError(f"{what}: {problem}")
    if isinstance(problem, PASSING):
        return UnavailableError(f"{what}: Kafka did not answer ({name}{': ' + str(problem) if str(problem) else ''})")
    if isinstance(problem, (kafka_errors.KafkaConfigurationError, kafka_errors.InvalidReplicationFactorError)):
        return ConfigurationError(f"{what}: {problem}")
    if isinstance(problem, kafka_errors.KafkaError):
        return PenstockError(f"{what}: {name}: {problem}")
    return UnavailableError(f"{what}: the Kafka client failed ({name}: {problem})")
