-- A kind is whatever its template is called: of any length that a text may have.

ALTER TABLE notifications MODIFY COLUMN kind MEDIUMTEXT COLLATE utf8mb4_0900_bin NOT NULL DEFAULT ('');
