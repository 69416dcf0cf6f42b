-- oldest: 61
-- An older binary starts a build that has jobs as if it were one.
-- +goose Up

-- A build whose file has jobs is a row that is never placed itself; each of its
-- jobs is a row that names it.
ALTER TABLE builds ADD COLUMN part_of TEXT NOT NULL DEFAULT ''; -- of a job: the id of its build
ALTER TABLE builds ADD COLUMN jobs BIGINT NOT NULL DEFAULT 0; -- how many the build has
CREATE INDEX builds_jobs ON builds (part_of, number) WHERE part_of <> '';

-- Variables that a job hands on to those that need it.
CREATE TABLE outputs (
  build_id TEXT NOT NULL, -- of the job
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (build_id, name)
);
