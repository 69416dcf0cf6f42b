-- oldest: 160
-- +goose Up

-- What a build deploys to; empty for what deploys nothing.
ALTER TABLE builds ADD COLUMN environment TEXT NOT NULL DEFAULT '';
UPDATE builds SET environment = 'staging' WHERE action = 3;
UPDATE builds SET environment = 'production' WHERE action = 4;
CREATE INDEX builds_environment ON builds (repository_id, environment, number) WHERE environment <> '';

-- The files of deploys that others follow: .forge.yml as it was when the deploy was
-- planned.
CREATE TABLE deploy_files (
  build_id TEXT PRIMARY KEY,
  config {{BYTES}} NOT NULL -- forge.config.v1.BuildConfig
);
