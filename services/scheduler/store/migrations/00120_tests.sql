-- oldest: 100
-- A scheduler that knows nothing of these tables takes no results, and removes builds without them; they go once a
-- newer one prunes.

-- +goose Up

-- What names a test in its repository, once however often it has run. It is whoever's runs it: nothing else that they
-- say of the test is kept here.
CREATE TABLE test_names (
  id {{ID}},
  repository_id BIGINT NOT NULL,
  hash {{BYTES}} NOT NULL UNIQUE, -- of repository, suite, class and name
  suite TEXT NOT NULL,
  class TEXT NOT NULL,
  name TEXT NOT NULL,
  seen_time BIGINT NOT NULL -- when a result came, give or take a week
);
CREATE INDEX test_names_name ON test_names (repository_id, name);
CREATE INDEX test_names_seen ON test_names (seen_time);

-- An attempt that has reported something.
CREATE TABLE test_runs (
  id {{ID}},
  build_id TEXT NOT NULL, -- the build, or the job
  attempt BIGINT NOT NULL,
  latest BOOLEAN NOT NULL, -- no newer attempt has taken its place
  whole_id TEXT NOT NULL, -- the build that the job is of, or the build itself
  repository_id BIGINT NOT NULL,
  context TEXT NOT NULL, -- what it is told as: the same ones can be compared
  job TEXT NOT NULL,
  sha TEXT NOT NULL,
  tested TEXT NOT NULL, -- that commit and, where it was merged to be tested, what into
  scope TEXT NOT NULL, -- empty: what main does; else whose results these are alone
  pull_request BIGINT NOT NULL,
  branch TEXT NOT NULL,
  create_time BIGINT NOT NULL,
  reported BIGINT NOT NULL, -- results that came
  messages BIGINT NOT NULL, -- of failures that were kept
  findings BIGINT NOT NULL,
  left_out BIGINT NOT NULL,
  ended BOOLEAN NOT NULL, -- nothing more comes, and these are counted:
  passed BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  errored BIGINT NOT NULL
);
CREATE UNIQUE INDEX test_runs_build ON test_runs (build_id, attempt);
CREATE INDEX test_runs_whole ON test_runs (whole_id);
CREATE INDEX test_runs_tested ON test_runs (repository_id, tested);
CREATE INDEX test_runs_branch ON test_runs (repository_id, scope, branch, id);
CREATE INDEX test_runs_created ON test_runs (create_time);

-- Of millions of rows each byte counts: these have numbers alone.
CREATE TABLE test_results (
  test_id BIGINT NOT NULL,
  run_id BIGINT NOT NULL,
  state BIGINT NOT NULL, -- forge.scheduler.v1.Test.State
  flaky BOOLEAN NOT NULL, -- it has passed and failed in this attempt
  duration BIGINT NOT NULL, -- microseconds
  PRIMARY KEY (test_id, run_id)
);
CREATE INDEX test_results_run ON test_results (run_id, state DESC, test_id);
CREATE INDEX test_results_slow ON test_results (run_id, duration DESC, test_id) WHERE duration >= 50000;

CREATE TABLE test_failures (
  run_id BIGINT NOT NULL,
  test_id BIGINT NOT NULL,
  file TEXT NOT NULL,
  line BIGINT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (run_id, test_id)
);

CREATE TABLE test_findings (
  run_id BIGINT NOT NULL,
  number BIGINT NOT NULL, -- from 1, as they came
  level BIGINT NOT NULL, -- forge.scheduler.v1.Finding.Level
  tool TEXT NOT NULL,
  rule TEXT NOT NULL,
  file TEXT NOT NULL,
  line BIGINT NOT NULL,
  end_line BIGINT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (run_id, number)
);
CREATE INDEX test_findings_level ON test_findings (run_id, level DESC, number);

-- A test that has passed and failed on one commit.
CREATE TABLE test_flakes (
  repository_id BIGINT NOT NULL,
  scope TEXT NOT NULL,
  test_id BIGINT NOT NULL,
  tested TEXT NOT NULL,
  sha TEXT NOT NULL,
  failed_build_id TEXT NOT NULL,
  passed_build_id TEXT NOT NULL,
  seen_time BIGINT NOT NULL,
  PRIMARY KEY (repository_id, scope, test_id, tested)
);
CREATE INDEX test_flakes_tested ON test_flakes (repository_id, tested);
CREATE INDEX test_flakes_seen ON test_flakes (seen_time);
