-- What became of a notification: over which channel it went, how often it was tried, and what is left.

ALTER TABLE notifications ADD COLUMN channel VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'in_app';
ALTER TABLE notifications ADD COLUMN kind VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL DEFAULT '';
ALTER TABLE notifications ADD COLUMN status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'delivered';
ALTER TABLE notifications ADD COLUMN attempt BIGINT NOT NULL DEFAULT 0; -- tries so far
ALTER TABLE notifications ADD COLUMN tries_before BIGINT NOT NULL DEFAULT 0; -- those that its schedule does not count
ALTER TABLE notifications ADD COLUMN detail MEDIUMTEXT NOT NULL DEFAULT (''); -- of the last one that failed
ALTER TABLE notifications ADD COLUMN due_ms BIGINT; -- when it is looked at again
ALTER TABLE notifications ADD COLUMN number BIGINT; -- in the user's list
ALTER TABLE notifications ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE notifications ADD COLUMN updated_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE notifications ADD COLUMN data JSON NOT NULL DEFAULT ('{}'); -- what the template fills in
