-- SQLite and PostgreSQL both read this file: BYTEA and BIGINT are what PostgreSQL calls types that SQLite does not care
-- about. Times are microseconds since 1970, 0 for never.

-- +goose Up
CREATE TABLE api_keys (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    scopes         TEXT NOT NULL,              -- separated by spaces
    rate           BIGINT NOT NULL,            -- requests in rate_window_us, 0 for any number
    rate_window_us BIGINT NOT NULL,
    concurrency    BIGINT NOT NULL,            -- requests at once, 0 for any number
    secret_hash    BYTEA NOT NULL,             -- SHA-256
    old_hash       BYTEA,                      -- of the secret before the last rotation
    old_until_us   BIGINT NOT NULL DEFAULT 0,  -- when that one stops working
    created_us     BIGINT NOT NULL,
    expires_us     BIGINT NOT NULL DEFAULT 0,
    revoked_us     BIGINT NOT NULL DEFAULT 0
);

-- What a key has used in a day (UTC, as 2026-11-22).
CREATE TABLE usage (
    api_key  TEXT NOT NULL,
    day      TEXT NOT NULL,
    requests BIGINT NOT NULL,
    pictures BIGINT NOT NULL,
    gpu_us   BIGINT NOT NULL,
    PRIMARY KEY (api_key, day)
);

-- The last batch of usage that each gateway has written, so that none counts twice.
CREATE TABLE usage_batches (
    gateway  TEXT PRIMARY KEY,
    seq      BIGINT NOT NULL,
    taken_us BIGINT NOT NULL
);

CREATE TABLE idempotency (
    api_key      TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    owner        TEXT NOT NULL,             -- which attempt may store the answer
    done         BIGINT NOT NULL DEFAULT 0, -- 1 once the answer is stored
    answer       BYTEA,
    expires_us   BIGINT NOT NULL,
    PRIMARY KEY (api_key, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires_us);

-- What is left of a key's rate, for all gateways.
CREATE TABLE rate_buckets (
    api_key    TEXT PRIMARY KEY,
    tokens     DOUBLE PRECISION NOT NULL,
    updated_us BIGINT NOT NULL
);

-- How many requests of a key each gateway may have under way.
CREATE TABLE slot_leases (
    api_key    TEXT NOT NULL,
    gateway    TEXT NOT NULL,
    slots      BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (api_key, gateway)
);
