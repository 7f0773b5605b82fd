-- From where somebody did something, and facts of a time whoever they are about.

ALTER TABLE audit_trail ADD COLUMN address VARCHAR(191) COLLATE utf8mb4_0900_bin NULL; -- of the client
ALTER TABLE audit_trail ADD COLUMN request_id VARCHAR(191) COLLATE utf8mb4_0900_bin NULL; -- of the request
ALTER TABLE audit_trail ADD KEY in_time (at_ms, event_id);
