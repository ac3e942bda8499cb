-- What clients say about masks.

-- +goose Up
CREATE TABLE feedback (
    id         TEXT PRIMARY KEY,
    api_key    TEXT NOT NULL,
    request_id TEXT NOT NULL,   -- of the request that was answered with the mask
    result     BIGINT NOT NULL, -- the index of the result
    verdict    TEXT NOT NULL,   -- good, bad, or nothing
    rating     BIGINT NOT NULL, -- 1 to 5, 0 for none
    height     BIGINT NOT NULL, -- of the mask as it should be, 0 for none
    width      BIGINT NOT NULL,
    counts     TEXT NOT NULL,   -- its compressed run lengths
    comment    TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX feedback_created ON feedback (created_us, id);
CREATE INDEX feedback_request ON feedback (request_id);
