-- oldest: 1
-- +goose Up
-- When somebody had a delivery decided again: tries are counted from then. 0: nobody did.
ALTER TABLE forwards ADD COLUMN reopened BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE forwards DROP COLUMN reopened;
