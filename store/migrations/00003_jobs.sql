-- Work that is done after its request has been answered. River's own tables say when it is done and by whom; these say
-- what it is and what came of it.

-- +goose Up
CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    api_key     TEXT NOT NULL,
    kind        TEXT NOT NULL,
    status      TEXT NOT NULL,             -- queued, running, succeeded, failed, cancelled
    total       BIGINT NOT NULL,           -- items, of which so many have ended in one way or the other:
    succeeded   BIGINT NOT NULL DEFAULT 0,
    failed      BIGINT NOT NULL DEFAULT 0,
    cancelled   BIGINT NOT NULL DEFAULT 0,
    seq         BIGINT NOT NULL DEFAULT 0, -- of the last event
    created_us  BIGINT NOT NULL,
    started_us  BIGINT NOT NULL DEFAULT 0,
    finished_us BIGINT NOT NULL DEFAULT 0,
    expires_us  BIGINT NOT NULL DEFAULT 0  -- known once it has ended
);
CREATE INDEX jobs_created ON jobs (api_key, created_us, id);
CREATE INDEX jobs_expires ON jobs (expires_us);

CREATE TABLE job_items (
    job         TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    item        BIGINT NOT NULL,           -- from 0
    client_id   TEXT NOT NULL,             -- what the client calls it
    status      TEXT NOT NULL,
    request     BYTEA NOT NULL,            -- for whoever does the work
    picture     TEXT REFERENCES blobs (name),
    bytes       BIGINT NOT NULL,           -- of the picture
    deadline_us BIGINT NOT NULL,
    failures    BIGINT NOT NULL DEFAULT 0, -- tries that ended in a fault which may pass
    river_id    BIGINT NOT NULL,
    result      TEXT REFERENCES blobs (name),
    header      BYTEA,                     -- of the result, for whoever hands it out
    problem     BYTEA,
    PRIMARY KEY (job, item)
);
CREATE INDEX job_items_picture ON job_items (picture);
CREATE INDEX job_items_result ON job_items (result);
CREATE INDEX job_items_status ON job_items (status);

CREATE TABLE job_events (
    job  TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq  BIGINT NOT NULL,                  -- from 1, without gaps
    kind TEXT NOT NULL,                    -- job or item
    item BIGINT NOT NULL,                  -- -1 for those of the job
    status TEXT NOT NULL,
    PRIMARY KEY (job, seq)
);

-- Where a job's end is told.
CREATE TABLE job_webhooks (
    job        TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    id         TEXT NOT NULL,              -- the same at every try
    url        TEXT NOT NULL,
    status     TEXT NOT NULL,              -- pending, delivered, failed
    attempts   BIGINT NOT NULL DEFAULT 0,
    tried_us   BIGINT NOT NULL DEFAULT 0,
    last_error TEXT NOT NULL DEFAULT ''
);

-- What a key's webhooks are signed with. They must be known, so they are not hashed.
CREATE TABLE webhook_secrets (
    api_key           TEXT PRIMARY KEY,
    secret            TEXT NOT NULL,
    previous          TEXT NOT NULL DEFAULT '',
    previous_until_us BIGINT NOT NULL DEFAULT 0
);
