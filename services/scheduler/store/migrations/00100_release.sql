-- oldest: 70
-- +goose Up

-- Why the build that holds an environment, and has ended, cannot let go of it.
ALTER TABLE environments ADD COLUMN held_message TEXT NOT NULL DEFAULT '';
