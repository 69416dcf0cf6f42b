-- oldest: 70
-- +goose Up

-- How many spans of its tools an attempt has had, so that it has no more than it may.
ALTER TABLE attempts ADD COLUMN spans BIGINT NOT NULL DEFAULT 0;
