-- oldest: 190
-- An older binary takes the deploy of a pull request to its preview for one to an environment.
-- +goose Up

ALTER TABLE environments ADD COLUMN pull_request INTEGER NOT NULL DEFAULT 0; -- whose preview it is
CREATE INDEX environments_pull_request ON environments (repository_id, pull_request) WHERE pull_request <> 0;

-- What open pull requests are to have: which commit, and the file that holds the
-- previews, as it was when the event came.
CREATE TABLE previews (
  repository_id BIGINT NOT NULL,
  pull_request INTEGER NOT NULL,
  sha TEXT NOT NULL,
  labels TEXT NOT NULL, -- the pull request's, one a line
  config {{BYTES}} NOT NULL, -- forge.config.v1.BuildConfig; empty where the file has errors
  PRIMARY KEY (repository_id, pull_request)
);
