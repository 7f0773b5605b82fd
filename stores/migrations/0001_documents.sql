-- What the projections fill: documents of the services, the ledger's entries, the trail of events.
--
-- Money is minor units, times are Unix milliseconds with a DATETIME (UTC) beside them. Ids are told
-- apart to the last byte, blanks at their end too. `revision` is the place in the log behind what
-- wrote the row: what lies further on replaces it. Foreign keys say what belongs together; topics are
-- read side by side, so a row may come before the one that it refers to, and the projector's
-- sessions do not check them.

CREATE TABLE IF NOT EXISTS users (
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    email MEDIUMTEXT NOT NULL,
    name MEDIUMTEXT NOT NULL,
    roles JSON NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (user_id),
    FULLTEXT KEY words (name, email)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS accounts (
    account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    name MEDIUMTEXT NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    open_legs BIGINT NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (account_id),
    KEY of_user (user_id, created_ms, account_id),
    CONSTRAINT accounts_user FOREIGN KEY (user_id) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS balances (
    account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    overdraft_limit_minor BIGINT NULL, -- NULL: none was named, which is 0
    revision BIGINT NOT NULL, -- the account's
    PRIMARY KEY (account_id, currency),
    CONSTRAINT balances_account FOREIGN KEY (account_id) REFERENCES accounts (account_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS transactions (
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
    description MEDIUMTEXT NOT NULL,
    reference MEDIUMTEXT NOT NULL,
    metadata JSON NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    reason VARCHAR(64) COLLATE utf8mb4_0900_bin NULL,
    review_id VARCHAR(383) COLLATE utf8mb4_0900_bin NULL,
    balances JSON NOT NULL,
    steps JSON NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    completed_ms BIGINT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    completed_at DATETIME(3) AS (CASE WHEN completed_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL completed_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (transaction_id),
    KEY of_owner (owner_id, created_ms, transaction_id),
    KEY from_account (source_account_id, created_ms, transaction_id),
    KEY to_account (destination_account_id, created_ms, transaction_id),
    KEY in_time (created_ms, transaction_id),
    FULLTEXT KEY words (description, reference),
    CONSTRAINT transactions_owner FOREIGN KEY (owner_id) REFERENCES users (user_id),
    CONSTRAINT transactions_source FOREIGN KEY (source_account_id)
        REFERENCES accounts (account_id),
    CONSTRAINT transactions_destination FOREIGN KEY (destination_account_id)
        REFERENCES accounts (account_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS payments (
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
    payment_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
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
    PRIMARY KEY (transaction_id),
    CONSTRAINT payments_transaction FOREIGN KEY (transaction_id)
        REFERENCES transactions (transaction_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS notifications (
    notification_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- its transaction's id
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    template VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    at_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (notification_id),
    KEY of_user (user_id, at_ms, notification_id),
    CONSTRAINT notifications_user FOREIGN KEY (user_id) REFERENCES users (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS reviews (
    review_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    type VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    source_account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    destination_account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    owner_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- who ordered it
    privileged BOOLEAN NOT NULL,
    rail VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    ordered_ms BIGINT NOT NULL,
    deadline_ms BIGINT NOT NULL,
    score BIGINT NOT NULL,
    rules JSON NOT NULL,
    steps JSON NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    decided_by VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    note MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    decided_ms BIGINT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (review_id),
    KEY in_status (status, created_ms, review_id),
    KEY in_time (created_ms, review_id),
    CONSTRAINT reviews_transaction FOREIGN KEY (transaction_id)
        REFERENCES transactions (transaction_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS blacklist (
    entry VARCHAR(300) COLLATE utf8mb4_0900_bin NOT NULL, -- kind/value
    kind VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    value VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    note MEDIUMTEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (entry),
    KEY in_time (at_ms, entry)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS entries (
    entry_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- event_id/number
    event_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    number BIGINT NOT NULL,
    account VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- a customer's, or one of the bank's own
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    balance_minor BIGINT NULL, -- after it; NULL: one of the bank's own accounts
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    at_ms BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (entry_id),
    KEY of_account (account, at_ms, entry_id),
    KEY of_transaction (transaction_id, at_ms, entry_id),
    CONSTRAINT entries_transaction FOREIGN KEY (transaction_id)
        REFERENCES transactions (transaction_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS audit_trail (
    event_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    service VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    type VARCHAR(64) COLLATE utf8mb4_0900_bin NOT NULL,
    aggregate_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    actor_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    correlation_id MEDIUMTEXT NULL,
    causation_id MEDIUMTEXT NULL,
    trace_id MEDIUMTEXT NULL,
    log_partition INT NOT NULL, -- of <service>.events, where it lies
    log_offset BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    data JSON NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (event_id),
    KEY of_aggregate (aggregate_id, at_ms, event_id),
    KEY of_transaction (transaction_id, at_ms, event_id),
    KEY of_type (type, at_ms, event_id),
    KEY by_actor (actor_id, at_ms, event_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS positions (
    topic VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- without the installation's prefix
    number INT NOT NULL, -- of the partition
    following BIGINT NOT NULL, -- the offset from which it is to be read
    PRIMARY KEY (topic, number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
