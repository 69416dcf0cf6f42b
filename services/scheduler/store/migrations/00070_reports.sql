-- +goose Up

-- What the reporter is still to be told, of each build and each job. Builds of one
-- commit may share a context: its commit status shows those that are not hidden.
DROP INDEX targets_due;
ALTER TABLE targets RENAME TO shared_targets;
CREATE TABLE targets (
  build_id TEXT PRIMARY KEY,
  repository_id BIGINT NOT NULL,
  sha TEXT NOT NULL,
  context TEXT NOT NULL,
  version BIGINT NOT NULL, -- grows over all of one context
  hidden BOOLEAN NOT NULL, -- the commit status shows another build
  due_time BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  traceparent TEXT NOT NULL
);
INSERT INTO targets (build_id, repository_id, sha, context, version, hidden, due_time, tries, traceparent)
  SELECT build_id, repository_id, sha, context, version, FALSE, due_time, tries, traceparent FROM shared_targets;
DROP TABLE shared_targets;
CREATE INDEX targets_due ON targets (due_time);
CREATE INDEX targets_context ON targets (repository_id, sha, context, version);
