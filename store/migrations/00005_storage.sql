-- How much each key has in blobs, and of feedback: the sums of its rows, so that a quota costs the same however many they are.
-- Whoever adds or deletes rows changes it in the same transaction.

-- +goose Up
CREATE TABLE storage (
    api_key TEXT NOT NULL,
    kind    TEXT NOT NULL,   -- blobs, feedback
    bytes   BIGINT NOT NULL,
    PRIMARY KEY (api_key, kind)
);
INSERT INTO storage SELECT api_key, 'blobs', CAST(SUM(bytes) AS BIGINT) FROM blobs GROUP BY api_key;
INSERT INTO storage SELECT api_key, 'feedback', CAST(SUM(LENGTH(counts) + LENGTH(comment)) AS BIGINT) FROM feedback GROUP BY api_key;
DROP INDEX blobs_api_key;
