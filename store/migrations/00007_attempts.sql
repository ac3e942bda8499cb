-- An attempt that was given up, or whose gateway died, is remembered as long as an answer is: whoever tries the same again
-- makes the same of it.

-- +goose Up
ALTER TABLE idempotency ADD COLUMN begun_us BIGINT NOT NULL DEFAULT 0; -- when the first attempt began
ALTER TABLE idempotency ADD COLUMN lease_us BIGINT NOT NULL DEFAULT 0; -- until when the attempt is its owner's
UPDATE idempotency SET lease_us = expires_us;

-- One row a key that has made jobs, which is locked to count the items that it has open.
CREATE TABLE job_keys (
    api_key TEXT PRIMARY KEY
);
