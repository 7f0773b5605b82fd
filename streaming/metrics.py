"""What the driver tells Prometheus, by app."""

from prometheus_client import Counter, Gauge, Histogram

TRANSACTIONS = Counter("streaming_transactions_total", "Committed transactions", ["app"])
ABORTS = Counter(
    "streaming_aborts_total", "Transactions aborted, or given up before they began", ["app"]
)
AHEAD = Counter(
    "streaming_ahead_total", "Batches worked on while the one before was committed", ["app"]
)
RECORDS = Counter("streaming_records_total", "Records processed and committed", ["app"])
OUTPUTS = Counter("streaming_outputs_total", "Records written by agents and committed", ["app"])
DEAD_LETTERS = Counter("streaming_dead_letters_total", "Records put aside", ["app", "topic"])
BATCH_SIZE = Histogram(
    "streaming_batch_records",
    "Records per transaction",
    ["app"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
COMMIT_S = Histogram(
    "streaming_commit_seconds",
    "From the outputs handed over to the committed transaction",
    ["app"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RESTORE_S = Gauge("streaming_restore_seconds", "Duration of the last restore", ["app"])
RESTORED = Counter("streaming_restored_records_total", "Changelog records read to restore", ["app"])
TAKEOVER_WAIT_S = Gauge(
    "streaming_takeover_wait_seconds",
    "Waiting so far for another worker's open transaction",
    ["app"],
)
STANDBY_RECORDS = Counter(
    "streaming_standby_records_total", "Changelog records read into standby copies", ["app"]
)
STANDBY_BEHIND = Gauge(
    "streaming_standby_behind_partitions",
    "Standby copies that have not yet reached the end of their changelog",
    ["app"],
)
LAG = Gauge(
    "streaming_lag_records",
    "Committed records of a source not yet read",
    ["app", "topic", "partition"],
)
HELD_S = Gauge(
    "streaming_held_seconds",
    "A source gives nothing for so long because a producer's transaction is open in it",
    ["app", "topic", "partition"],
)
SUSPECTS = Gauge("streaming_suspect_records", "Records that failed and are tried again", ["app"])
STOPPED = Gauge("streaming_stopped_partitions", "Source partitions stopped by a record", ["app"])
READY = Gauge("streaming_ready", "1 when all assigned partitions are restored and read", ["app"])
