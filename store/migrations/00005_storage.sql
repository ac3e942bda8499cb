-- How much each key has in blobs: the sum of its rows, so that a quota costs the same however many they are. Whoever adds or
-- deletes rows changes it in the same transaction.

-- +goose Up
CREATE TABLE storage (
    api_key TEXT PRIMARY KEY,
    bytes   BIGINT NOT NULL
);
INSERT INTO storage SELECT api_key, CAST(SUM(bytes) AS BIGINT) FROM blobs GROUP BY api_key;
DROP INDEX blobs_api_key;
