"""What commands ask of Kafka before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from agents.errors import CannotStart
from schemas.codec import Codec
from topics.apply import check_counts
from topics.catalog import SCHEMAS, Installation
from topics.schema_log import SchemaLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settings import Settings

BROKER_S = 5.0  # for the broker's first answer


def reach_broker(settings: Settings) -> None:
    """Raises CannotStart unless the broker answers, and lets us in; TopicMismatch where its topics have other
    partition counts than the settings say: keys would be looked for where they are not.
    """
    said: list[KafkaError] = []  # why, which the failed call does not tell
    try:
        options: dict[str, Any] = {**settings.kafka, "log_level": 0, "error_cb": said.append}
        admin = AdminClient(options)
    except KafkaException as exc:
        raise CannotStart(
            f"Kafka's files can't be used ({exc.args[0].str()}): correct STREAMBANK_KAFKA_SSL_CA, "
            "STREAMBANK_KAFKA_SSL_CERTIFICATE or STREAMBANK_KAFKA_SSL_KEY"
        ) from exc
    try:
        found = admin.list_topics(timeout=BROKER_S).topics
    except KafkaException as exc:
        admin.poll(0)
        raise CannotStart(_why_unreachable(settings, said, exc.args[0])) from exc
    counts = {name: len(topic.partitions) for name, topic in found.items() if not topic.error}
    check_counts(counts, Installation.of(settings))


def _why_unreachable(settings: Settings, said: Sequence[KafkaError], failed: KafkaError) -> str:
    """One sentence: what the broker, or TLS, refused; else that nobody answers."""
    where = settings.kafka_bootstrap
    for error in said:
        if error.code() == KafkaError._AUTHENTICATION:
            return (
                f"Kafka at {where} does not let {settings.kafka_sasl_username!r} in by "
                f"{settings.kafka_sasl_mechanism}: correct STREAMBANK_KAFKA_SASL_USERNAME, "
                "STREAMBANK_KAFKA_SASL_PASSWORD or STREAMBANK_KAFKA_SASL_MECHANISM"
            )
        if error.code() == KafkaError._SSL:
            return (
                f"there is no TLS with Kafka at {where} ({error.str()}): correct "
                "STREAMBANK_KAFKA_SSL_CA, or STREAMBANK_KAFKA_SECURITY_PROTOCOL"
            )
    return (
        f"no Kafka answers at {where} over {settings.kafka_security_protocol} ({failed.str()}): "
        "start it, or correct STREAMBANK_KAFKA_BOOTSTRAP or STREAMBANK_KAFKA_SECURITY_PROTOCOL"
    )


def codec_of(settings: Settings) -> Codec:
    return Codec(SchemaLog(settings.kafka, f"{settings.prefix}{SCHEMAS}"))
