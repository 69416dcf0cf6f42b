-- oldest: 70
-- +goose Up

-- Whom the default branch's file has told of builds: forge.config.v1.BuildConfig, with that
-- alone; null where the file has not been read since this was kept.
ALTER TABLE schedule_files ADD COLUMN notify {{BYTES}};
