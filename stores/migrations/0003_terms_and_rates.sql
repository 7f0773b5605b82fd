-- The terms of orders, of transactions, payments and reviews; rates, their history, quotes.

ALTER TABLE transactions ADD COLUMN terms JSON NULL; -- what only some orders have
ALTER TABLE payments ADD COLUMN terms JSON NULL; -- what only some orders have
ALTER TABLE reviews ADD COLUMN terms JSON NULL; -- what only some orders have

CREATE TABLE IF NOT EXISTS rates (
    pair VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- both currencies in the order of the alphabet
    base VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    quote VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    rate VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- decimal: units of `quote` for one of `base`
    spread_ppm BIGINT NOT NULL,
    source VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    as_of_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    at_ms BIGINT NOT NULL, -- when it was set
    revision BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (pair),
    KEY in_time (at_ms, pair)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS rate_history (
    entry VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- pair/place
    pair VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    base VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    quote VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    rate VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- decimal: units of `quote` for one of `base`
    spread_ppm BIGINT NOT NULL,
    source VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    as_of_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    at_ms BIGINT NOT NULL, -- when it was set
    revision BIGINT NOT NULL,
    at DATETIME(3) AS (CASE WHEN at_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (entry),
    KEY of_pair (pair, at_ms, entry)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS quotes (
    quote_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    user_id VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    destination_currency VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL,
    amount_minor BIGINT NULL, -- NULL: any amount
    destination_amount_minor BIGINT NULL,
    rate VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- decimal, of the customer
    mid_rate VARCHAR(191) COLLATE utf8mb4_0900_bin NOT NULL, -- decimal, of the market
    spread_ppm BIGINT NOT NULL,
    status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL,
    transaction_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL, -- of the exchange that used it
    expires_ms BIGINT NOT NULL,
    request_hash MEDIUMTEXT NOT NULL,
    version BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_at DATETIME(3) AS (CASE WHEN created_ms BETWEEN 0 AND 253402300799999 THEN
        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL created_ms * 1000 MICROSECOND END) VIRTUAL,
    PRIMARY KEY (quote_id),
    KEY of_user (user_id, created_ms, quote_id),
    CONSTRAINT quotes_user FOREIGN KEY (user_id) REFERENCES users (user_id),
    CONSTRAINT quotes_transaction FOREIGN KEY (transaction_id)
        REFERENCES transactions (transaction_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
