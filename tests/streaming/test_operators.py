"""Each public name of Faust's classes for users: proven by a test, refused where it is used, or harmless.

The names come from the installed Faust: one that an upgrade adds is in none of the lists, and fails here.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import faust
import pytest
from faust.events import Event

import streaming
from streaming.app import REFUSED as REFUSED_APP
from streaming.streams import REFUSED as REFUSED_STREAMS
from tests.streaming.kit import Number, app, create, running, until, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SURFACE = "tests.streaming.test_surface"
PLAIN = "tests.streaming.test_plain_faust"
SENDS = f"{SURFACE}:test_what_an_aborted_agent_did_is_never_seen"
PASSES = "tests.streaming.test_cycle:test_headers_and_timestamps_pass_through"
READS = "a fact about the declaration: nothing is written"
FAUST = "called by Faust itself, for parts that the driver refuses or replaces"
AS_FAUST = "not of records: as in Faust"
UNREAD = "a counter or switch of Faust's own stream loop, which does not run"

# the test in which it is used and the transaction then aborted or committed
PROVEN: Mapping[str, Mapping[str, str]] = {
    "App": {
        **dict.fromkeys(
            ("topic", "agent", "Table"), f"{PLAIN}:test_models_keys_and_rows_of_their_types"
        ),
        "send": SENDS,
        "page": f"{PLAIN}:test_pages_of_functions_and_views_send_at_once",
        "stream": f"{PLAIN}:test_a_task_reads_a_stream_in_transactions",
        "is_leader": f"{PLAIN}:test_one_worker_leads",
        "producer_only": f"{PLAIN}:test_a_producer_alone",
        **dict.fromkeys(
            ("main", "Worker", "command", "worker_init", "worker_init_post_autodiscover"),
            f"{PLAIN}:test_main_is_fausts_command_line",
        ),
        **dict.fromkeys(
            (
                "on_partitions_assigned",
                "on_partitions_revoked",
                "on_rebalance_complete",
                "rebalancing",
                "rebalancing_count",
                "in_recovery",
            ),
            f"{PLAIN}:test_signals_tell_of_partitions",
        ),
        "on_produce_message": f"{PLAIN}:test_a_declaration_that_would_do_nothing_is_refused",
        "in_transaction": f"{PLAIN}:test_what_is_so_anyway_may_be_asked_for",
        "config_from_object": f"{PLAIN}:test_a_setting_that_would_do_nothing_is_refused",
    },
    "Agent": {
        **dict.fromkeys(
            ("cast", "send"), f"{PLAIN}:test_an_agent_writes_to_another_and_is_answered_once"
        ),
        "add_sink": f"{SURFACE}:test_sinks_are_part_of_the_transaction",
        "test_context": "tests.streaming.test_trial:test_poison_goes_to_the_dead_letters",
    },
    "Stream": {
        "events": PASSES,
        "items": "tests.streaming.test_cycle:test_an_app_without_tables_keeps_its_positions",
        "group_by": "tests.streaming.test_group_by:test_two_workers_one_killed",
        "take": f"{SURFACE}:test_take_is_exactly_once",
        "add_processor": f"{SURFACE}:test_a_processor_is_applied_once_after_the_agent_failed",
        "filter": "tests.streaming.test_operators:test_filter_and_enumerate_pass_nothing_by",
        "enumerate": "tests.streaming.test_operators:test_filter_and_enumerate_pass_nothing_by",
        "current_event": "tests.streaming.test_operators:test_filter_and_enumerate_pass_nothing_by",
    },
    "Table": dict.fromkeys(("get", "pop", "setdefault", "update"), SENDS),
    "Topic": dict.fromkeys(("send", "send_soon", "put"), SENDS),
    "Event": {
        **dict.fromkeys(("forward", "send"), SENDS),
        **dict.fromkeys(
            ("key", "value", "message", "headers"),
            "tests.streaming.test_cycle:test_headers_and_timestamps_pass_through",
        ),
    },
}

HARMLESS: Mapping[str, Mapping[str, str]] = {
    "App": {
        **dict.fromkeys(("conf", "configured", "finalized", "in_worker", "unassigned"), READS),
        **dict.fromkeys(("tables", "topics", "web_server_url", "consumer_generation_id"), READS),
        **dict.fromkeys(("web_server_driver_version", "SCAN_CATEGORIES", "Settings"), READS),
        **dict.fromkeys(("finalize", "discover", "create_event", "actor"), FAUST),
        **dict.fromkeys(("on_rebalance_start", "on_rebalance_return", "on_rebalance_end"), FAUST),
        **dict.fromkeys(("on_started_init_extra_services", "on_init_extra_service"), FAUST),
        **dict.fromkeys(("on_started_init_extra_tasks", "on_started_init_web_server"), FAUST),
        **dict.fromkeys(("consumer", "producer", "transport", "producer_transport"), FAUST),
        **dict.fromkeys(("assignor", "BootStrategy", "FlowControlQueue", "flow_control"), FAUST),
        **dict.fromkeys(("maybe_start_producer", "client_only"), FAUST),
        **dict.fromkeys(("on_before_configured", "on_configured", "on_after_configured"), AS_FAUST),
        **dict.fromkeys(("on_worker_init", "on_before_shutdown", "on_webserver_init"), AS_FAUST),
        **dict.fromkeys(("web", "web_server", "http_client", "cache", "serializers"), AS_FAUST),
        **dict.fromkeys(("service", "trace", "traced", "tracer"), AS_FAUST),
        "monitor": "nobody tells it of records; another one is refused",
    },
    "Agent": {
        **dict.fromkeys(("channel", "channel_iterator", "get_topic_names", "info"), READS),
        **dict.fromkeys(("actor_from_stream", "actor_tracebacks", "clone", "stream"), FAUST),
        **dict.fromkeys(
            ("on_isolated_partitions_assigned", "on_isolated_partitions_revoked"), FAUST
        ),
        **dict.fromkeys(("on_shared_partitions_assigned", "on_shared_partitions_revoked"), FAUST),
        **dict.fromkeys(("on_partitions_assigned", "on_partitions_revoked"), FAUST),
        "cancel": "makes the agent fail at its record: aborted as any failure",
    },
    "Stream": {
        **dict.fromkeys(("get_active_stream", "get_root_stream", "info", "prefix"), READS),
        **dict.fromkeys(("concurrency_index", "task_owner", "active_partitions"), READS),
        **dict.fromkeys(("enable_acks", "events_total", "outbox", "join_strategy"), UNREAD),
        **dict.fromkeys(("clone", "contribute_to_stream", "remove_from_stream", "on_merge"), FAUST),
        "ack": "asks the event, which refuses",
        "derive_topic": "asks the topic, which refuses",
        "throw": "makes the agent fail at its next record: aborted as any failure",
    },
    "Table": {
        **dict.fromkeys(("changelog_topic", "changelog_topic_name", "info", "is_global"), READS),
        **dict.fromkeys(("partition_for_key", "WindowWrapper"), READS),
        **dict.fromkeys(("clone", "contribute_to_stream", "remove_from_stream"), FAUST),
        **dict.fromkeys(("on_rebalance", "on_recovery_completed", "on_window_close"), FAUST),
        "need_active_standby_for": FAUST,
    },
    "Topic": {
        **dict.fromkeys(("get_topic_name", "has_prefix", "partitions", "pattern"), READS),
        **dict.fromkeys(("prepare_headers", "prepare_key", "prepare_value"), READS),
        **dict.fromkeys(("subscriber_count", "empty", "queue"), READS),
        **dict.fromkeys(("clone", "clone_using_queue"), FAUST),
        **dict.fromkeys(("on_decode_error", "on_key_decode_error"), FAUST),
        **dict.fromkeys(("on_value_decode_error", "on_stop_iteration"), FAUST),
        **dict.fromkeys(
            ("declare", "maybe_declare"), "creates the topic: nothing when it is there"
        ),
        "stream": "what an agent reads; in a task its batches are part of the transaction too",
        "throw": "makes the agent fail at its next record: aborted as any failure",
    },
    "Event": {"acked": READS, "app": READS},
}

REFUSED: Mapping[str, Iterable[str]] = {
    "App": [*REFUSED_APP],
    "Agent": ("ask", "ask_nowait", "join", "map", "kvjoin", "kvmap"),
    "Stream": REFUSED_STREAMS,
    "Table": (
        "__iter__", "keys", "values", "items", "__len__", "as_ansitable", "clear", "hopping",
        "tumbling", "using_window", "copy", "popitem", "raw_update", "fromkeys", "reset_state",
        "send_changelog", "apply_changelog_batch", "on_changelog_event", "persisted_offset",
        "on_recover", "on_key_get", "on_key_set", "on_key_del", "on_clear", "data",
        "call_recover_callbacks", "combine", "join", "left_join", "inner_join", "outer_join",
    ),
    "Topic": (
        "publish_message", "as_future_message", "decode", "deliver", "get", "derive", "derive_topic",
    ),
    "Event": ("ack",),
}  # fmt: skip
CLASSES = {
    "App": faust.App,
    "Agent": faust.Agent,
    "Stream": faust.Stream,
    "Table": faust.Table,
    "Topic": faust.Topic,
    "Event": Event,
}


def public(kind: str) -> set[str]:
    service = set(dir(faust.Service))
    return {n for n in dir(CLASSES[kind]) if not n.startswith("_")} - service


@pytest.mark.parametrize("kind", CLASSES)
def test_every_operator_is_on_one_list(kind: str) -> None:
    lists = [set(PROVEN[kind]), set(HARMLESS[kind]), set(REFUSED[kind])]
    assert sum(map(len, lists)) == len(set.union(*lists))
    named = {name for name in set.union(*lists) if not name.startswith("_")}
    assert public(kind) - named == set()
    assert named - public(kind) - {"rate_limit"} == set()  # nothing is listed that is not there


@pytest.mark.parametrize("test", sorted({t for tests in PROVEN.values() for t in tests.values()}))
def test_the_tests_that_prove_are_there(test: str) -> None:
    module, _, name = test.partition(":")
    assert inspect.isfunction(getattr(importlib.import_module(module), name))


async def reads(stream: Any) -> None:
    async for _ in stream:
        pass


def instances() -> dict[str, Any]:
    one = app("operators", "127.0.0.1:1")
    topic = one.topic("numbers", value_codec=Number())
    return {
        "App": one,
        "Agent": one.agent(topic, name="agent")(reads),
        "Stream": topic.stream(),
        "Table": one.Table("rows", partitions=1),
        "Topic": topic,
        "Event": streaming.context.Event(one, b"k", 1, [], None),
    }


@pytest.mark.parametrize(("kind", "name"), [(kind, n) for kind in REFUSED for n in REFUSED[kind]])
async def test_what_is_refused_raises_with_a_sentence(kind: str, name: str) -> None:
    one = instances()[kind]
    with pytest.raises(streaming.Unsupported) as caught:
        getattr(one, name)()
    assert len(str(caught.value)) > 20


OPTIONS = {
    "schema": faust.Schema(),
    "key_serializer": "json",
    "value_serializer": "json",
    "callback": lambda _: None,
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("how", ["send", "send_soon", "event.send", "event.forward"])
async def test_an_option_of_a_send_that_would_be_ignored_is_refused(
    bootstrap: str, prefix: str, how: str, option: str
) -> None:
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    one, said = app(f"{prefix}options", bootstrap), []
    out = one.topic(f"{prefix}out", value_codec=Number())

    async def use(event: Any) -> None:
        given = {option: OPTIONS[option]}
        if how.startswith("event."):
            await getattr(event, how.partition(".")[2])(out, **given)
        elif how == "send":
            await out.send(value=1, **given)
        else:
            out.send_soon(value=1, **given)

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            with pytest.raises(streaming.Misuse) as caught:
                await use(event)
            said.append(str(caught.value))

    write(bootstrap, f"{prefix}in", [(b"k", b"1")])
    async with running(one):
        await until(lambda: said)
    assert option in said[0]


async def test_filter_and_enumerate_pass_nothing_by(bootstrap: str, prefix: str) -> None:
    """A record that the filter leaves out is processed; one that failed behind it comes again."""
    create(bootstrap, f"{prefix}in", f"{prefix}out")
    write(bootstrap, f"{prefix}in", [(b"k", b"%d" % n) for n in range(10)])
    one, seen, failed = app(f"{prefix}filter", bootstrap), [], []

    @one.agent(one.topic(f"{prefix}in", value_codec=Number()))
    async def agent(stream: Any) -> None:
        async for _, value in stream.filter(lambda value: value % 2 == 0).enumerate():
            assert faust.current_event().value == stream.current_event.value == value
            if value == 4 and not failed:
                failed.append(value)
                raise RuntimeError("once")
            seen.append(value)

    async with running(one):
        await until(lambda: one.consumer.positions(0) == {f"{prefix}in": 10})
    assert seen[-3:] == [4, 6, 8]
    assert set(seen) == {0, 2, 4, 6, 8}
