-- +goose Up
ALTER TABLE jobs ADD COLUMN request_id TEXT NOT NULL DEFAULT '';       -- of the request that made it
ALTER TABLE job_webhooks ADD COLUMN river_id BIGINT NOT NULL DEFAULT 0; -- of what tells it
ALTER TABLE feedback ADD COLUMN item BIGINT NOT NULL DEFAULT 0;        -- the index of the picture among those of the request
