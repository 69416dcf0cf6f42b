-- oldest: 1
-- Times are microseconds since 1970, 0 for none. A due time of the greatest BIGINT means never.

-- +goose Up

-- What was decided about a delivery, answered again when it comes again.
CREATE TABLE decisions (
  delivery_id TEXT PRIMARY KEY,
  decision {{BYTES}} NOT NULL, -- forge.event.v1.Decision
  create_time BIGINT NOT NULL
);

-- The newest that is known of a pull request. Whoever plans for one locks its row.
CREATE TABLE pull_requests (
  repository_id BIGINT NOT NULL,
  number BIGINT NOT NULL,
  update_time BIGINT NOT NULL,
  closed BOOLEAN NOT NULL,
  moves TEXT NOT NULL, -- of the head at update_time: "before>after before>after"
  PRIMARY KEY (repository_id, number)
);

-- The columns before `build` repeat what is asked for in queries.
CREATE TABLE builds (
  number {{ID}},
  id TEXT NOT NULL UNIQUE,
  repository_id BIGINT NOT NULL,
  repository TEXT NOT NULL, -- owner/name in lower case
  pull_request BIGINT NOT NULL,
  sha TEXT NOT NULL,
  action BIGINT NOT NULL,
  state BIGINT NOT NULL,
  priority BIGINT NOT NULL, -- the lowest is placed first
  due_time BIGINT NOT NULL, -- queued: not before; starting: the lease of who starts it
  tries BIGINT NOT NULL, -- to start the attempt
  cancel_time BIGINT NOT NULL,
  cancel_reason BIGINT NOT NULL,
  cancel_message TEXT NOT NULL,
  traceparent TEXT NOT NULL,
  build {{BYTES}} NOT NULL, -- forge.scheduler.v1.Build without steps
  config {{BYTES}} NOT NULL -- forge.config.v1.BuildConfig
);
CREATE INDEX builds_queue ON builds (state, priority, number);
CREATE INDEX builds_content ON builds (repository_id, pull_request, sha, action);
CREATE INDEX builds_repository ON builds (repository, number);
CREATE INDEX builds_sha ON builds (sha, number);

-- One row; who counts places and takes some locks it.
CREATE TABLE places (id BIGINT PRIMARY KEY);
INSERT INTO places (id) VALUES (1);

CREATE TABLE attempts (
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  placed BOOLEAN NOT NULL, -- the engine has said that it started
  runner_id TEXT NOT NULL, -- empty until one has said hello
  sequence BIGINT NOT NULL, -- the last report stored
  log_size BIGINT NOT NULL,
  contact_time BIGINT NOT NULL, -- the runner was heard then, or the container started
  deadline BIGINT NOT NULL, -- the scheduler itself ends the attempt then
  ended BOOLEAN NOT NULL, -- nothing more is taken from its runner
  stop_time BIGINT NOT NULL, -- when the engine is to be asked (again) to stop the container
  stop_tries BIGINT NOT NULL,
  PRIMARY KEY (build_id, attempt)
);
CREATE INDEX attempts_live ON attempts (build_id) WHERE NOT ended;
CREATE INDEX attempts_stop ON attempts (stop_time);

-- SHA-256 of what runners show. An attempt has several when its start was tried
-- several times: nobody can tell which try made the container.
CREATE TABLE tokens (
  hash {{BYTES}} PRIMARY KEY,
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL
);

-- What runners told of steps; a step without a row was not begun.
CREATE TABLE steps (
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  number BIGINT NOT NULL,
  step {{BYTES}} NOT NULL, -- forge.scheduler.v1.Step
  PRIMARY KEY (build_id, attempt, number)
);

CREATE TABLE log_chunks (
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  position BIGINT NOT NULL, -- of the first byte in the attempt's log
  size BIGINT NOT NULL,
  compressed BOOLEAN NOT NULL, -- as an S2 block
  data {{BYTES}} NOT NULL,
  PRIMARY KEY (build_id, attempt, position)
);

-- Where a repository is deployed to, and by which build just now.
CREATE TABLE environments (
  repository_id BIGINT NOT NULL,
  name TEXT NOT NULL,
  build_id TEXT NOT NULL, -- empty: free
  PRIMARY KEY (repository_id, name)
);

-- Per commit status: the build it shows, and what the reporter is still to be told.
CREATE TABLE targets (
  repository_id BIGINT NOT NULL,
  sha TEXT NOT NULL,
  context TEXT NOT NULL,
  build_number BIGINT NOT NULL,
  build_id TEXT NOT NULL,
  version BIGINT NOT NULL,
  due_time BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  traceparent TEXT NOT NULL,
  PRIMARY KEY (repository_id, sha, context)
);
CREATE INDEX targets_due ON targets (due_time);

-- Promotions the reporter is still to be asked for.
CREATE TABLE promotions (
  repository_id BIGINT NOT NULL,
  head TEXT NOT NULL,
  base TEXT NOT NULL,
  version BIGINT NOT NULL,
  due_time BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  traceparent TEXT NOT NULL,
  request {{BYTES}} NOT NULL, -- forge.reporter.v1.PromoteRequest
  PRIMARY KEY (repository_id, head, base)
);
CREATE INDEX promotions_due ON promotions (due_time);
