-- oldest: 1
-- +goose Up

-- Commits of forks that were to be built while forks need approval.
CREATE TABLE fork_heads (
  repository_id BIGINT NOT NULL,
  pull_request BIGINT NOT NULL,
  sha TEXT NOT NULL,
  approved_by TEXT NOT NULL, -- empty: nobody yet
  PRIMARY KEY (repository_id, pull_request, sha)
);

CREATE TABLE merge_groups (
  repository_id BIGINT NOT NULL,
  ref TEXT NOT NULL,
  sha TEXT NOT NULL,
  requests BIGINT NOT NULL, -- how often checks were requested, less how often it was destroyed
  PRIMARY KEY (repository_id, ref, sha)
);
