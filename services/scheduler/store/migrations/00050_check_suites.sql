-- oldest: 35
-- +goose Up

-- Check suites of which all checks were to run again.
CREATE TABLE check_suites (
  repository_id BIGINT NOT NULL,
  suite_id BIGINT NOT NULL,
  sha TEXT NOT NULL,
  update_time BIGINT NOT NULL, -- the suite's, at the newest such wish
  PRIMARY KEY (repository_id, suite_id)
);
CREATE INDEX check_suites_sha ON check_suites (sha);
