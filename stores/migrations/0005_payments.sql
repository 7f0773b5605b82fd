-- What a provider charged, gave back, and says in its statements.

ALTER TABLE payments ADD COLUMN method_token MEDIUMTEXT NOT NULL DEFAULT (''); -- of what was charged or paid out to
ALTER TABLE payments ADD COLUMN captured_minor BIGINT NOT NULL DEFAULT 0; -- charged and credited
ALTER TABLE payments ADD COLUMN refunding_minor BIGINT NOT NULL DEFAULT 0; -- of that: reserved for refunds
ALTER TABLE payments ADD COLUMN refunded_minor BIGINT NOT NULL DEFAULT 0; -- of that: given back

CREATE TABLE IF NOT EXISTS refunds (
    refund VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL, -- payment_id/refund_id
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    type VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    source_account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    destination_account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    owner_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    privileged BOOLEAN NOT NULL,
    rail VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    ordered_ms BIGINT NOT NULL,
    deadline_ms BIGINT NOT NULL,
    terms JSON NULL,
    payment_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    refund_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    attempt BIGINT NOT NULL,
    provider_reference MEDIUMTEXT NOT NULL,
    reason VARCHAR(64) COLLATE utf8mb4_0900_bin NULL,
    balances JSON NOT NULL,
    steps JSON NOT NULL,
    due_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (refund),
    KEY of_payment (payment_id, created_ms, refund),
    CONSTRAINT refunds_transaction FOREIGN KEY (transaction_id)
        REFERENCES transactions (transaction_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS payment_methods (
    method_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    kind VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL, -- card or iban
    provider VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    token MEDIUMTEXT NOT NULL, -- the provider's name for the number, which nobody else has
    fingerprint VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- keyed: tells the same number again
    brand VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    last_four VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    expiry_month BIGINT NOT NULL, -- 0: it has none
    expiry_year BIGINT NOT NULL,
    country VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    bank MEDIUMTEXT NOT NULL,
    holder MEDIUMTEXT NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (method_id),
    KEY of_user (user_id, created_ms, method_id),
    KEY by_fingerprint (fingerprint),
    CONSTRAINT payment_methods_user FOREIGN KEY (user_id) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS statements (
    statement_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    provider VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    day VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- of the provider, YYYY-MM-DD
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    line_count BIGINT NOT NULL,
    total_minor BIGINT NOT NULL, -- sum of the lines
    swept BIGINT NOT NULL, -- entries of our list that were looked through
    missing_here BIGINT NOT NULL,
    missing_there BIGINT NOT NULL,
    amount_differs BIGINT NOT NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (statement_id),
    KEY of_day (provider, day, currency, created_ms)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS statement_breaks (
    statement_break VARCHAR(400) COLLATE utf8mb4_0900_bin NOT NULL, -- statement_id/number
    statement_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    number BIGINT NOT NULL,
    kind VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    end_to_end_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    payment_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL, -- NULL: not known here
    provider_reference MEDIUMTEXT NOT NULL,
    ours_minor BIGINT NULL,
    theirs_minor BIGINT NULL,
    statement_line BIGINT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (statement_break),
    KEY of_statement (statement_id, number),
    CONSTRAINT statement_breaks_statement FOREIGN KEY (statement_id)
        REFERENCES statements (statement_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
