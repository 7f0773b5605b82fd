-- No text is too long: one that its column can't take lies there shortened, and whole beside it.
-- The ids of a statement's lines are a provider's, of any length that its file may have.

ALTER TABLE users ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE accounts ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE transactions ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE payments ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE notifications ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE reviews ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE blacklist ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE entries ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE audit_trail ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE rates ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE rate_history ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE quotes ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE holds ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE refunds ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE payment_methods ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE statements ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE statement_breaks ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE audit_logs ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE analytics_events ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE settlements ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE settlement_items ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE settlement_breaks ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE report_schedules ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE reports ADD COLUMN long_texts JSON NULL; -- by column, what is longer than it
ALTER TABLE statement_breaks MODIFY COLUMN end_to_end_id MEDIUMTEXT COLLATE utf8mb4_0900_bin NOT NULL;
ALTER TABLE settlement_breaks MODIFY COLUMN end_to_end_id MEDIUMTEXT COLLATE utf8mb4_0900_bin NOT NULL;
