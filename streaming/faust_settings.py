"""Faust's settings: what to set instead of each that does nothing on this driver.

One that is set nevertheless, by the App's options, its config source or Faust's environment variables, is refused
when the app is configured: an option that is ignored in silence would be taken for a guarantee.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faust

from streaming.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_KAFKA = "set it for librdkafka, in DriverConfig.kafka"
_CYCLE = "set DriverConfig.cycle_timeout_s"
_EVERY = "offsets are committed with each transaction; DriverConfig.gather_s makes fewer of them"
_RPC = "agent.ask() is not supported: send to a topic, or agent.send(reply_to=…)"
_STORE = "set store and state_dir of DriverConfig"
_OWN = "the driver has its own"

# setting -> what to do instead
REPLACED: Mapping[str, str] = {
    **dict.fromkeys(
        ("broker", "broker_consumer", "broker_producer"), "set DriverConfig.bootstrap"
    ),
    **dict.fromkeys(
        ("broker_credentials", "ssl_context"),
        "set security.protocol and what belongs to it in DriverConfig.kafka",
    ),
    **dict.fromkeys(
        (
            "broker_check_crcs", "broker_client_id", "broker_request_timeout",
            "consumer_connections_max_idle_ms", "consumer_max_fetch_size", "consumer_metadata_max_age_ms",
            "producer_compression_type", "producer_connections_max_idle_ms", "producer_linger",
            "producer_max_batch_size", "producer_max_request_size",
            "producer_metadata_max_age_ms", "producer_request_timeout",
        ),
        _KAFKA,
    ),
    **dict.fromkeys(
        ("broker_api_version", "consumer_api_version", "producer_api_version"),
        "librdkafka asks the brokers",
    ),
    **dict.fromkeys(("broker_commit_every", "broker_commit_interval"), _EVERY),
    "broker_commit_livelock_soft_timeout": _CYCLE,
    "broker_max_poll_interval": _CYCLE,
    "broker_rebalance_timeout": _CYCLE,
    "stream_processing_timeout": _CYCLE,
    "broker_heartbeat_interval": "set DriverConfig.session_timeout_s",
    "broker_session_timeout": "set DriverConfig.session_timeout_s",
    "broker_max_poll_records": "set DriverConfig.batch_max",
    "stream_buffer_maxsize": "set DriverConfig.batch_max",
    "consumer_auto_offset_reset": "a new group begins at the oldest record, and positions are never guessed later",
    "consumer_group_instance_id": "set DriverConfig.static_membership",
    "producer_acks": "exactly once needs all in-sync replicas",
    "producer_partitioner": "murmur2, as all Kafka clients; send with partition= for another place",
    "producer_threaded": "the driver's producers have threads",
    **dict.fromkeys(("reply_create_topic", "reply_expires", "reply_to_prefix"), _RPC),
    **dict.fromkeys(("store", "store_check_exists", "datadir", "tabledir"), _STORE),
    "recovery_consistency_check": "a changelog is always checked",
    "stream_publish_on_commit": "what is sent is always published by the commit",
    "stream_recovery_delay": "a rebalance is answered at once",
    "stream_wait_empty": "the running transaction always ends first",
    "table_cleanup_interval": "windowed tables are not supported; put the window into the key",
    "table_key_index_size": "windowed tables are not supported; put the window into the key",
    "table_standby_replicas": "set DriverConfig.standby",
    "topic_disable_leader": "the owner of partition 0 leads; it needs no topic",
    **dict.fromkeys(
        (
            "aerospike_retries_on_exception", "aerospike_sleep_seconds_between_retries_on_exception",
            "crash_app_on_aerospike_exception",
        ),
        _STORE,
    ),
    "cython_optimizations": "the stream loop is the driver's",
    **dict.fromkeys(("ConsumerScheduler", "LeaderAssignor", "PartitionAssignor", "Event"), _OWN),
    **dict.fromkeys(("GlobalTable", "SetTable", "SetGlobalTable"), "such tables are not supported"),
    "Router": "ask streaming.partition_owners who owns a partition",
    "Monitor": "read the Prometheus metrics of streaming.metrics",
}  # fmt: skip
# settings that act as in Faust, or that ask for what is so anyway
KEPT = frozenset({
    "Schema", "Serializers", "HttpClient", "Worker", "autodiscover", "blocking_timeout", "cache", "canonical_url",
    "debug", "env_prefix", "id_format", "key_serializer", "value_serializer", "logging_config", "loghandlers",
    "origin", "timezone", "version", "topic_allow_declare", "topic_partitions", "topic_replication_factor",
    "web", "web_application_options", "web_bind", "web_cors_options", "web_enabled", "web_graph_enabled",
    "web_host", "web_in_thread", "web_metrics_enabled", "web_port", "web_router_enabled", "web_ssl_context",
    "web_stats_enabled", "web_tables_enabled", "web_transport", "worker_redirect_stdouts",
    "worker_redirect_stdouts_level",
    "reply_to",  # made anew for each app; agent.ask(), which would use it, is refused
    "processing_guarantee",  # exactly once, whichever is asked for
})  # fmt: skip
# what it is where nobody set it
DEFAULT_REPLICATION = 1
# of a Schema: the driver uses none of them
SCHEMA_METHODS = (
    "loads_key", "loads_value", "dumps_key", "dumps_value", "on_dumps_key_prepare_headers",
    "on_dumps_value_prepare_headers", "compile", "decode",
)  # fmt: skip
# classes of the driver: another one must be made of it
CLASSES = ("Stream", "Agent", "Table", "TableManager", "Topic", "agent_supervisor")


def check(app_id: str, conf: Any, ours: Mapping[str, Any]) -> None:
    """Raises Unsupported for a setting that does nothing here. `ours`: what the driver itself gives Faust."""
    unset = faust.Settings(app_id, env={}, **ours)
    for name, instead in REPLACED.items():
        if _read(conf, name) != _read(unset, name):
            raise Unsupported(f"app {app_id}: the setting {name} does nothing here: {instead}")
    check_schema(f"app {app_id}: the setting Schema", _read(conf, "Schema"))
    for name in CLASSES:
        found, own = _read(conf, name), ours[name]
        if not issubclass(found, own):
            raise Unsupported(
                f"app {app_id}: the setting {name} is {found.__name__}: it must be made of the driver's, "
                f"{own.__module__}.{own.__name__}"
            )


def check_schema(where: str, schema: type) -> None:
    """Raises Unsupported for a Schema that reads or writes in a way of its own."""
    for name in SCHEMA_METHODS:
        if getattr(schema, name) is not getattr(faust.Schema, name):
            raise Unsupported(
                f"{where}: {schema.__name__}.{name} is not used here: give value_codec"
            )


def _read(conf: Any, name: str) -> Any:
    """Without Faust's note that it was read, after which it warns of each change."""
    return object.__getattribute__(conf, name)
