-- oldest: 22
-- Builds that an older binary ends have no end_time, and stay for good.
-- +goose Up

ALTER TABLE builds ADD COLUMN end_time BIGINT NOT NULL DEFAULT 0;
CREATE INDEX builds_ended ON builds (end_time) WHERE end_time > 0;
