-- What is held on accounts.

ALTER TABLE balances ADD COLUMN held_minor BIGINT NULL; -- NULL: nothing is held

CREATE TABLE IF NOT EXISTS holds (
    hold_id VARCHAR(383) COLLATE utf8mb4_0900_bin NOT NULL,
    account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    destination_account_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    reason VARCHAR(64) COLLATE utf8mb4_0900_bin NULL,
    captured_minor BIGINT NOT NULL,
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL, -- of the capture
    description MEDIUMTEXT NOT NULL,
    reference MEDIUMTEXT NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (hold_id),
    KEY of_account (account_id, created_ms, hold_id),
    CONSTRAINT holds_account FOREIGN KEY (account_id) REFERENCES accounts (account_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
