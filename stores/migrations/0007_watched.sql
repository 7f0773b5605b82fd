-- What audit and analytics make of all facts: a link for each entry of a chain, windows of figures.

CREATE TABLE IF NOT EXISTS audit_logs (
    entry VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- <topic>-<partition>-<offset>
    chain VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- <topic>-<partition>
    log_offset BIGINT NOT NULL,
    number BIGINT NOT NULL, -- in the chain, from 0
    link CHAR(64) COLLATE utf8mb4_0900_bin NOT NULL, -- SHA-256, hex
    at_ms BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (entry),
    KEY in_chain (chain, number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS analytics_events (
    window_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- span/start_ms/share
    span VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL, -- minute, hour or day
    start_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    figures JSON NOT NULL, -- by type/currency
    revision BIGINT NOT NULL,
    start_at DATETIME(3) AS (CASE WHEN start_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL start_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (window_id),
    KEY in_span (span, start_ms, window_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
