-- oldest: 70
-- +goose Up

-- Repositories whose default branch is looked at for schedules.
CREATE TABLE schedule_files (
  repository_id BIGINT PRIMARY KEY,
  repository {{BYTES}} NOT NULL, -- forge.event.v1.Repository
  installation_id BIGINT NOT NULL,
  due_time BIGINT NOT NULL, -- when the file is read next
  tries BIGINT NOT NULL,
  problem TEXT NOT NULL -- why it cannot be read now; empty: it can
);
CREATE INDEX schedule_files_due ON schedule_files (due_time);

-- What the files asked for when they could last be read.
CREATE TABLE schedules (
  repository_id BIGINT NOT NULL,
  name TEXT NOT NULL,
  repository TEXT NOT NULL, -- owner/name in lower case
  config {{BYTES}} NOT NULL, -- forge.config.v1.BuildConfig, with this schedule alone
  next_time BIGINT NOT NULL, -- the time it is to run for next
  due_time BIGINT NOT NULL, -- when that is looked at
  tries BIGINT NOT NULL,
  last_time BIGINT NOT NULL, -- the time it was run for last; 0: never
  last_build TEXT NOT NULL,
  message TEXT NOT NULL, -- what became of that time, or what it waits for
  PRIMARY KEY (repository_id, name)
);
CREATE INDEX schedules_due ON schedules (due_time);
