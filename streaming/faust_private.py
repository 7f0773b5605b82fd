"""Every name of Faust, mode and librdkafka that is not their public interface and that `streaming/` relies on.

`tests/streaming/test_faust_private.py` asks each of them of the installed versions, so that an upgrade that
moves one fails there and not in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# module:attribute path -> where we use it
NAMES: Mapping[str, str] = {
    "faust.app.base:App._task": "app: tasks and timers send outside",
    "faust.app.base:App._load_settings": "app: settings that do nothing are refused",
    "faust.app.base:App._new_transport": "app: our transport",
    "faust.app.base:App._new_producer_transport": "app: our transport",
    "faust.app.base:App._stop_consumer": "app: the running transaction ends first",
    "faust.agents.agent:Agent._execute_actor": "streams: failures reach the transaction",
    "faust.agents.agent:Agent._replace_actor": "streams: a failed agent is back at once",
    "faust.agents.agent:Agent._maybe_unwrap_reply_request": "streams: the processor that a restart keeps",
    "faust.agents.agent:Agent.actor_from_stream": "streams: a restarted agent adds its processors anew",
    "faust.types.streams:StreamT._next": "repartition: the stream that the body reads",
    "faust.types.streams:StreamT._prev": "repartition: grouped once",
    "faust.channels:Channel._throw": "repartition: a cancelled source ends its grouped stream",
    "faust.app.base:App._consumer": "trial: another one for a test; app, transport: whether there is one yet",
    "faust.app.base:App._producer": "trial: another one for a test",
    "faust.streams:_current_event": "streams: faust.current_event()",
    "faust.tables.manager:TableManager.wait_until_recovery_completed": "tables: no recovery",
    "faust.tables.manager:TableManager.on_rebalance": "tables: no recovery",
    "faust.tables.manager:TableManager.on_partitions_revoked": "tables: no recovery",
    "faust.topics:Topic._clone_args": "topics: codec and policy of derived topics",
    "faust.transport.conductor:Conductor._build_handler": "transport: the cycle delivers itself",
    "mode.supervisors:OneForOneSupervisor.wakeup": "streams: no lost wake-up",
    "faust.transport.consumer:Consumer": "consumer: replaced as a whole",
}
