-- Reports that were asked for, and those that are made again and again. Their rows are files.

CREATE TABLE IF NOT EXISTS report_schedules (
    schedule_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    definition JSON NOT NULL,
    cron VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- five fields, by the bank's clock
    period VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL, -- the last whole one before a run
    active BOOLEAN NOT NULL,
    next_ms BIGINT NOT NULL,
    runs BIGINT NOT NULL,
    last_report_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (schedule_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS reports (
    report_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL, -- of a schedule's run: schedule_id.time
    schedule_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- empty: a person asked for it
    definition JSON NOT NULL,
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL, -- not in the period any more
    as_of_ms BIGINT NOT NULL, -- the logs as they were then
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    attempt BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    file_bytes BIGINT NOT NULL,
    sha256 VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- of the file, hex
    detail MEDIUMTEXT NOT NULL, -- why it failed
    due_ms BIGINT NOT NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (report_id),
    KEY of_schedule (schedule_id, created_ms),
    KEY by_time (created_ms, report_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
