-- oldest: 35
-- +goose Up

-- When a fork's commit was first heard of; 0: before that was kept.
ALTER TABLE fork_heads ADD COLUMN heard_time BIGINT NOT NULL DEFAULT 0;
