-- Accounts of blacklisted users are barred without being listed by themselves.

ALTER TABLE blacklist ADD COLUMN listed BOOLEAN NOT NULL DEFAULT TRUE; -- by itself
ALTER TABLE blacklist ADD COLUMN owner_id VARCHAR(191) COLLATE utf8mb4_0900_bin; -- whose account it is
