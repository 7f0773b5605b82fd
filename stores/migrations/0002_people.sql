-- What else is known of a person: how far the bank knows them, and where they can be reached.

ALTER TABLE users ADD COLUMN kyc_level BIGINT NOT NULL DEFAULT 0; -- 0 unverified, 1 basic, 2 full
ALTER TABLE users ADD COLUMN kyc_status VARCHAR(32) COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'unverified';
ALTER TABLE users ADD COLUMN email_confirmed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE users ADD COLUMN phone MEDIUMTEXT NOT NULL DEFAULT (''); -- E.164
ALTER TABLE users ADD COLUMN language MEDIUMTEXT NOT NULL DEFAULT (''); -- BCP 47
ALTER TABLE users ADD COLUMN claim_id MEDIUMTEXT NOT NULL DEFAULT (''); -- by which the address was taken
