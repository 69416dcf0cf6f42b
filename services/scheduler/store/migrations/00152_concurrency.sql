-- oldest: 70
-- A scheduler that knows nothing of groups has its builds in none; what it ends leaves its
-- group with the next sweep of a newer one.

-- +goose Up

-- Tier of trust and name of the concurrency group that a build is in: while it waits for its
-- turn, and has it; empty before and after.
ALTER TABLE builds ADD COLUMN concurrency TEXT NOT NULL DEFAULT '';
CREATE INDEX builds_concurrency ON builds (repository_id, concurrency) WHERE concurrency <> '';

-- Repositories that have had groups: who changes one locks its row.
CREATE TABLE concurrency_locks (repository_id BIGINT PRIMARY KEY);
