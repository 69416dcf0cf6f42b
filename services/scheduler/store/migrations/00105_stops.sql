-- A scheduler that does not note when a stop was asked for makes it look younger, and no more.
-- oldest: 70
-- +goose Up

-- Since when the engine is asked to stop the container of an attempt; 0: before that was kept.
ALTER TABLE attempts ADD COLUMN stop_asked_time BIGINT NOT NULL DEFAULT 0;
