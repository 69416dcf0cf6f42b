-- oldest: 70
-- +goose Up

-- Of an attempt: the host its container is on, where its engine has several; and
-- since when the engine is asked to start it, 0: before that was kept.
ALTER TABLE attempts ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN asked_time BIGINT NOT NULL DEFAULT 0;

-- Since when the engine does not tell what runs; no row: it does.
CREATE TABLE engine_outage (
  id BIGINT PRIMARY KEY,
  since BIGINT NOT NULL
);
