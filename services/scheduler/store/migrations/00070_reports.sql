-- oldest: 70
-- An older binary knows targets by other columns.
-- +goose Up

-- What the reporter is still to be told, of each build and each job. Builds of one
-- commit may share a context, of which its commit status shows one.
DROP INDEX targets_due;
ALTER TABLE targets RENAME TO shared_targets;
CREATE TABLE targets (
  build_id TEXT PRIMARY KEY,
  repository_id BIGINT NOT NULL,
  sha TEXT NOT NULL,
  context TEXT NOT NULL,
  version BIGINT NOT NULL, -- grows over all of one commit
  standing BIGINT NOT NULL, -- forge.reporter.v1.ReportRequest.Standing; 0: it is shown
  due_time BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  traceparent TEXT NOT NULL
);
INSERT INTO targets (build_id, repository_id, sha, context, version, standing, due_time, tries, traceparent)
  SELECT build_id, repository_id, sha, context, version, 0, due_time, tries, traceparent FROM shared_targets;
DROP TABLE shared_targets;
CREATE INDEX targets_due ON targets (due_time);
