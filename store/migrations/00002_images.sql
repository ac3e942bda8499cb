-- Pictures that clients have sent, and what is kept of them outside the database.

-- +goose Up

-- One row an object in the bucket. It is written before the object and deleted before it, and no name is used twice: an
-- object without a row belongs to nobody.
CREATE TABLE blobs (
    name       TEXT PRIMARY KEY,
    api_key    TEXT NOT NULL,   -- whose storage it takes
    bytes      BIGINT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX blobs_api_key ON blobs (api_key);
CREATE INDEX blobs_created ON blobs (created_us);

CREATE TABLE images (
    api_key    TEXT NOT NULL,
    id         TEXT NOT NULL,   -- img_ and the SHA-256 of the bytes
    blob       TEXT NOT NULL REFERENCES blobs (name),
    width      BIGINT NOT NULL, -- of the upright picture
    height     BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (api_key, id)
);
CREATE INDEX images_created ON images (api_key, created_us, id);
CREATE INDEX images_expires ON images (expires_us);
CREATE INDEX images_blob ON images (blob);
