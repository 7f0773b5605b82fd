-- What providers moved in a business day, summed up, and how the bank's statements agree.

CREATE TABLE IF NOT EXISTS settlements (
    batch_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL, -- provider.currency.day
    provider VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    day VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- a business day, YYYY-MM-DD
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    items BIGINT NOT NULL,
    in_minor BIGINT NOT NULL,
    out_minor BIGINT NOT NULL,
    net_minor BIGINT NOT NULL, -- to be transferred; above zero: to us
    closed_by VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    run_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    statement_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    breaks BIGINT NOT NULL, -- of the last statement
    request_hash MEDIUMTEXT NOT NULL,
    due_ms BIGINT NOT NULL,
    closed_ms BIGINT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (batch_id),
    KEY of_day (day, provider, currency)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS settlement_items (
    settlement_item VARCHAR(400) COLLATE utf8mb4_0900_bin NOT NULL, -- batch_id/number
    batch_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    end_to_end_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    payment_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL, -- above zero: the provider owes it to us
    at_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (settlement_item),
    KEY of_batch (batch_id),
    KEY of_payment (payment_id),
    CONSTRAINT settlement_items_batch FOREIGN KEY (batch_id) REFERENCES settlements (batch_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS settlement_breaks (
    settlement_break VARCHAR(400) COLLATE utf8mb4_0900_bin NOT NULL, -- batch_id/number
    batch_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    number BIGINT NOT NULL,
    kind VARCHAR(64) COLLATE utf8mb4_0900_bin NOT NULL,
    end_to_end_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    ours_minor BIGINT NULL,
    theirs_minor BIGINT NULL,
    statement_line BIGINT NULL,
    version BIGINT NOT NULL, -- of the batch
    revision BIGINT NOT NULL,
    PRIMARY KEY (settlement_break),
    KEY of_batch (batch_id, number),
    CONSTRAINT settlement_breaks_batch FOREIGN KEY (batch_id) REFERENCES settlements (batch_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
