"""Tables: a committed store per partition, and over it the rows of the cycle that commits and of the one in work.

    store (committed) <- sealed (its transaction is being committed) <- overlay (agents write)

In an agent a table is the partition of the record being processed: reads see the agent's own writes, each
changed key is encoded once, when the agents are done. After an abort both upper layers are dropped. Outside of
agents a table is read through `table.partition(n)`: committed data, only of partitions that this process holds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import faust
from faust.tables.manager import TableManager as _TableManager

from streaming.context import current_batch
from streaming.errors import Misuse, NotOwned, Unsupported
from streaming.positions import POSITION_KEY
from streaming.topics import codec_of, key_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from streaming.stores import Store

DELETED: Any = object()
UNSAID: Any = object()
TEXT, OTHER = "text", "other"  # kinds of keys: bytes and text as they are, others as JSON
CACHED = 50_000  # decoded rows kept per partition, where the codec says that rows are immutable


class Watcher(Protocol):
    """Told of a table partition's committed life, in the event loop; must be quick and must not raise."""

    def assigned(self, partition: int, view: TableView) -> None: ...

    def committed(self, partition: int, changes: Mapping[bytes, Any]) -> None:
        """`changes`: decoded new values by key, None for a deleted row."""

    def revoked(self, partition: int) -> None: ...


class TablePartition:
    """One partition of one table. `store` only ever holds committed data."""

    __slots__ = ("cache", "loads", "overlay", "partition", "sealed", "store", "table")

    def __init__(self, table: Table, partition: int, store: Store) -> None:
        self.table, self.partition, self.store = table, partition, store
        self.overlay: dict[bytes, Any] = {}
        self.sealed: dict[bytes, Any] = {}  # as bytes where values may change in place
        self.cache: dict[bytes, Any] = {}
        self.loads = table.loads

    @property
    def changelog(self) -> str:
        return str(self.table.changelog_topic_name)

    def get(self, key: bytes) -> Any:
        """The value that the running cycle sees; None when there is none."""
        value = self.overlay.get(key)
        if value is None:
            value = self.sealed.get(key)
            if value is None:
                value = self.cache.get(key)
                return self.committed(key) if value is None else value
            if value is not DELETED and not self.table.immutable:
                value = self.loads(value)
        return None if value is DELETED else value

    def committed(self, key: bytes) -> Any:
        """The committed value; None when there is none."""
        value = self.cache.get(key)
        if value is not None:
            return value
        data = self.store.get(key)
        if data is None:
            return None
        value = self.loads(data)
        if self.table.immutable:
            self.remember(key, value)
        return value

    def remember(self, key: bytes, value: Any) -> None:
        if len(self.cache) >= CACHED:
            self.cache.clear()
        self.cache[key] = value

    def encoded(self) -> list[tuple[bytes, bytes | None]]:
        """What the running cycle changed, as changelog records; bytes stay as they are."""
        dumps = self.table.dumps
        return [
            (key, None if v is DELETED else v if type(v) is bytes else dumps(v))
            for key, v in self.overlay.items()
        ]

    def seal(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """The running cycle is done, with these changes; the next one begins on top of it."""
        assert not self.sealed, (
            "a cycle begins its transaction while another one is being committed"
        )
        if self.table.immutable:
            self.sealed = self.overlay
        else:
            self.sealed = {k: DELETED if data is None else data for k, data in changes}
        self.overlay = {}

    def merge(
        self, changes: list[tuple[bytes, bytes | None]], position: bytes, next_offset: int
    ) -> None:
        """What was sealed is committed: its changes are state now. One synchronous step."""
        self.store.apply(changes, position, next_offset, time.time())
        sealed, self.sealed = self.sealed, {}
        table = self.table
        if table.immutable:
            if len(self.cache) + len(sealed) > CACHED:
                self.cache.clear()
            self.cache.update(sealed)
            for key in [key for key, value in changes if value is None]:
                self.cache.pop(key, None)
        if sealed and table.watcher is not None:
            loads: Callable[[Any], Any] = (lambda value: value) if table.immutable else self.loads
            seen = {k: None if value is DELETED else loads(value) for k, value in sealed.items()}
            table.watcher.committed(self.partition, seen)

    def drop(self) -> None:
        """A transaction was aborted: what it wrote, and what was built on that, will not be."""
        self.sealed = {}
        self.overlay.clear()


class TableView:
    """Committed rows of one partition, for readers outside of agents."""

    __slots__ = ("_held", "_part")

    def __init__(self, part: TablePartition, held: Callable[[int], bool]) -> None:
        self._part, self._held = part, held

    def _check(self) -> TablePartition:
        part = self._part
        # of an earlier assignment it would not see what was committed since
        if part.table.held.get(part.partition) is not part or not self._held(part.partition):
            raise NotOwned(f"partition {part.partition} of {part.table.name} is not held here")
        return part

    @property
    def position(self) -> bytes | None:
        """The position record (JSON) that the rows reflect."""
        return self._check().store.position

    def get(self, key: Any) -> Any:
        """The committed value, or None. Raises NotOwned."""
        part = self._check()
        return part.committed(part.table.row_key(key))

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """All committed (key, value) under a prefix, as of now. Raises NotOwned."""
        part = self._check()
        return ((key, part.loads(data)) for key, data in part.store.scan(prefix))

    def __len__(self) -> int:
        return len(self._check().store)


# options of Faust's Table that would do nothing here
NOT_HERE: Mapping[str, str] = {
    "store": "set store and state_dir of DriverConfig",
    "options": "set store and state_dir of DriverConfig",
    "schema": "give value_codec, or value_type",
    "window": "put the window into the key",
    "on_window_close": "put the window into the key",
    "on_recover": "follow the table with a watcher: it is told what is assigned and restored",
    "recover_callbacks": "follow the table with a watcher: it is told what is assigned and restored",
    "on_changelog_event": "follow the table with a watcher: it is told what was committed",
    "recovery_buffer_size": "rows are restored in batches of the driver's own",
    "standby_buffer_size": "rows are restored in batches of the driver's own",
    "use_partitioner": "a row lives in the partition of the record that wrote it",
    "is_global": "send the record to each partition and keep it in a table",
    "synchronize_all_active_partitions": "send the record to each partition and keep it in a table",
}


class Table(faust.Table[Any, Any]):
    """faust.Table on the driver: `value_codec` is an object with loads and dumps; keys are bytes or text, or of
    one other kind, which is written as JSON (or by the `key_type`'s serializer).

    A codec whose values never change in place says so with `immutable = True`: then decoded rows are kept.
    """

    app: Any
    watcher: Watcher | None = None

    def __init__(
        self, app: Any, *, value_codec: Any = None, watcher: Watcher | None = None, **kw: Any
    ) -> None:
        for option, instead in NOT_HERE.items():
            if kw.pop(option, None):
                raise Unsupported(f"table {kw.get('name')}: {option} does nothing here: {instead}")
        super().__init__(app, **kw)
        self.value_codec, self.watcher = value_codec, watcher
        self.immutable = bool(getattr(value_codec, "immutable", False))
        self.held: dict[int, TablePartition] = {}
        self._dumps: Callable[[Any], bytes] | None = None
        self._loads: Callable[[bytes], Any] | None = None
        # which kind of keys it has, as declared, or once one was written
        self._keys = None if self.key_type is None else _kind_of(self.key_type)

    def clone(self, **kwargs: Any) -> Any:
        return self

    def _bind(self) -> None:
        dumps, loads = codec_of(
            self.value_type, self.value_codec or self.value_serializer, self.app.serializers
        )
        self._dumps, self._loads = dumps, loads

    @property
    def dumps(self) -> Callable[[Any], bytes]:
        if self._dumps is None:
            self._bind()
        return self._dumps  # type: ignore[return-value]

    @property
    def loads(self) -> Callable[[bytes], Any]:
        if self._loads is None:
            self._bind()
        return self._loads  # type: ignore[return-value]

    def row_key(self, key: Any) -> bytes:
        """A key as its bytes, to look it up. Raises Misuse where it is None, the driver's, or maybe another's."""
        if type(key) is bytes and key != POSITION_KEY:
            return key
        return self._key_bytes(key, self._keys)

    def _written_key(self, key: Any) -> bytes:
        """A key as its bytes, to write its row: all keys are of its kind from then on. Raises Misuse as `row_key`."""
        data = self._key_bytes(key, self._keys)
        self._keys = _kind_of(type(key))
        return data

    def _key_bytes(self, key: Any, kind: str | None) -> bytes:
        if key is None:
            raise Misuse(f"table {self.name}: a key can't be None")
        if kind not in {None, _kind_of(type(key))}:
            raise Misuse(
                f"table {self.name}: {key!r} is a key of another kind than its others, or its key_type: as bytes two "
                f"could be the same; keep text (or bytes) and others in tables of their own"
            )
        if isinstance(key, str):
            data = key.encode()
        else:
            data = key_bytes(key, self.app.serializers, self.key_type, self.key_serializer) or b""
        if data == POSITION_KEY:
            raise Misuse(f"the key {POSITION_KEY!r} is reserved for the driver")
        return data

    # -- in an agent ----------------------------------------------------------------------------

    def _here(self) -> TablePartition:
        batch = current_batch()
        if batch is None:
            raise Misuse(
                f"table {self.name} outside of an agent: read it with {self.name}.partition(n).get(key)"
            )
        return self.held[batch.partition]

    def here(self) -> TablePartition:
        """The partition of the running record, with `get(key: bytes)`; only for this record."""
        return self._here()

    def __getitem__(self, key: Any) -> Any:
        value = self._here().get(self.row_key(key))
        if value is None:
            return self.__missing__(key)
        return value

    def __missing__(self, key: Any) -> Any:
        if self.default is None:
            raise KeyError(key)
        return self.default()

    def get(self, key: Any, default: Any = UNSAID) -> Any:
        """The row's value; of one that is not there `default`, else what the table's own makes, else None."""
        value = self._here().get(key if type(key) is bytes else self.row_key(key))
        if value is not None:
            return value
        if default is not UNSAID:
            return default
        return None if self.default is None else self.default()

    def __contains__(self, key: object) -> bool:
        return self._here().get(self.row_key(key)) is not None

    def __setitem__(self, key: Any, value: Any) -> None:
        if value is None:
            raise Misuse(f"table {self.name}: a value can't be None; delete the key with del")
        batch = current_batch()
        if batch is None:
            raise Misuse(f"table {self.name}: rows change only in an agent, in its transaction")
        if type(key) is not bytes or self._keys is not TEXT or key == POSITION_KEY:
            key = self._written_key(key)
        part = self.held[batch.partition]
        part.overlay[key] = value
        batch.cycle.dirty[part] = None

    def __delitem__(self, key: Any) -> None:
        self[key] = DELETED

    def change(self, rows: Mapping[str, Any]) -> None:
        """Write the running record's rows at once, None deletes: a check a record, not a check a row."""
        batch = current_batch()
        if batch is None:
            raise Misuse(f"table {self.name}: rows change only in an agent, in its transaction")
        if self._keys is not TEXT and rows:
            self._written_key(next(iter(rows)))
        part = self.held[batch.partition]
        # first: what is written of rows that fail midway must go, too
        batch.cycle.dirty[part] = None
        overlay = part.overlay
        for key, value in rows.items():
            overlay[key.encode()] = DELETED if value is None else value
        if POSITION_KEY in overlay:
            raise Misuse(f"the key {POSITION_KEY!r} is reserved for the driver")

    def pop(self, key: Any, *default: Any) -> Any:
        value = self.get(key, *default) if default else self[key]
        del self[key]
        return value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        value = self.get(key, None)
        if value is None:
            self[key] = value = default
        return value

    def update(self, *args: Any, **kw: Any) -> None:
        for key, value in dict(*args, **kw).items():
            self[key] = value

    # -- outside --------------------------------------------------------------------------------

    def partition(self, number: int) -> TableView:
        """Committed rows of one partition. Raises NotOwned when it is not held here."""
        part = self.held.get(number)
        if part is None or not self.app.consumer.holds(number):
            raise NotOwned(f"partition {number} of {self.name} is not held here")
        return TableView(part, self.app.consumer.holds)

    # -- what would need a scan of all partitions, or is not exactly-once --------------------------

    def _scan(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            f"table {self.name} can't be iterated as a whole: scan one held partition with "
            f"{self.name}.partition(n).scan(prefix)"
        )

    __iter__ = keys = values = items = __len__ = as_ansitable = _scan

    def clear(self) -> None:
        raise Unsupported(
            f"table {self.name}: clear() can't be one transaction; delete keys one by one"
        )

    def _windows(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            f"table {self.name}: windowed tables are not supported; put the window into the key"
        )

    hopping = tumbling = using_window = relative_to_now = relative_to_stream = _windows
    relative_to_field = _windows

    def _faust_only(self, *args: Any, **kw: Any) -> Any:
        raise Unsupported(
            f"table {self.name}: Faust's own store and changelog are not used here; change rows in an agent, read them "
            f"with {self.name}.partition(n), follow them with a watcher"
        )

    copy = popitem = raw_update = fromkeys = reset_state = send_changelog = _faust_only
    apply_changelog_batch = on_changelog_event = persisted_offset = on_recover = _faust_only
    on_key_get = on_key_set = on_key_del = on_clear = call_recover_callbacks = _faust_only
    combine = join = left_join = inner_join = outer_join = _faust_only
    data = property(_faust_only)

    def __bool__(self) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    async def on_start(self) -> None:
        await self.changelog_topic.maybe_declare()


def _kind_of(key_type: Any) -> str:
    return TEXT if isinstance(key_type, type) and issubclass(key_type, (str, bytes)) else OTHER


class TableManager(_TableManager):
    """The driver restores tables itself (`restore.py`); Faust's recovery service stays off."""

    async def on_start(self) -> None:
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        for table in self.values():
            await table.stop()

    async def wait_until_recovery_completed(self) -> bool:
        return False

    def on_partitions_revoked(self, revoked: Any) -> None:
        """The consumer drops state itself."""

    async def on_rebalance(self, *args: Any, **kw: Any) -> None:
        """The consumer restored before it told Faust of the assignment."""
