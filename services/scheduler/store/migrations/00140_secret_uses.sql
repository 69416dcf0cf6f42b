-- oldest: 140
-- +goose Up

-- Which builds get a secret: bits of 1 << Secret.Use, and globs of branches with line
-- ends between them. Those that are there keep their reach, which is every build. A
-- binary that does not know these would hand secrets to pull requests, so none may run.
ALTER TABLE secrets ADD COLUMN uses BIGINT NOT NULL DEFAULT 30;
ALTER TABLE secrets ADD COLUMN branches TEXT NOT NULL DEFAULT '';
