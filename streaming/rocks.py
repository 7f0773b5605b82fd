"""A table partition's committed state in RocksDB: a restart reads only what its changelog has beyond it.

Rows, position, changelog offset and time change in one write batch, after the transaction is committed. After a
crash the files hold a prefix of those batches: old perhaps, never ahead, never torn.
"""

from __future__ import annotations

import functools
import json
import shutil
from typing import TYPE_CHECKING, Any

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from streaming.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

META = POSITION_KEY  # a key that no row can have
CACHE_BYTES = 64 << 20  # of blocks, for all stores of a process
WRITE_BUFFER_BYTES = 8 << 20  # per store; RocksDB's own default is 64 MiB


@functools.cache
def _cache() -> Cache:
    return Cache(CACHE_BYTES)


def _options() -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(_cache())
    blocks.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    return options


def store_directory(worker: Path, table: str, partition: int, topic_id: str) -> Path:
    """Where a worker keeps a table partition: one directory, named after its changelog's id too.

    A changelog that was created anew is another state, whatever its offsets. Ids are base64, with slashes.
    """
    return worker / f"{table}-{partition}.{topic_id.replace('/', '_')}"


class RocksStore:
    """See `stores.Store`. `len()` is RocksDB's estimate."""

    __slots__ = ("_db", "_directory", "as_of_s", "next_offset", "position")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._db = Rdict(str(self._directory), _options())
        meta = json.loads(self._db.get(META) or b"{}")
        self.next_offset: int = meta.get("next_offset", 0)
        self.as_of_s: float = meta.get("as_of_s", 0.0)
        position = meta.get("position")
        self.position: bytes | None = None if position is None else position.encode()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def apply(
        self,
        changes: Iterable[tuple[bytes, bytes | None]],
        position: bytes | None,
        next_offset: int,
        as_of_s: float,
    ) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        position = self.position if position is None else position
        text = None if position is None else position.decode()
        meta = {"next_offset": next_offset, "as_of_s": as_of_s, "position": text}
        batch.put(META, json.dumps(meta).encode())
        self._db.write(batch)
        self.position, self.next_offset, self.as_of_s = position, next_offset, as_of_s

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows: Any = self._db.items(from_key=prefix or None)  # raw mode: bytes alone
        for key, value in rows:
            if not key.startswith(prefix):
                return
            if key != META:
                yield key, value

    def __len__(self) -> int:
        keys = self._db.property_int_value("rocksdb.estimate-num-keys") or 0
        return max(0, keys - (self.next_offset > 0))

    def clear(self) -> None:
        self._db.close()
        shutil.rmtree(self._directory)
        self._open()

    def close(self) -> None:
        self._db.close()
