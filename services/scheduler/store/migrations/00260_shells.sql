-- A scheduler that knows nothing of kept containers removes them when it starts, and keeps none.
-- oldest: 70
-- +goose Up

-- The runner can keep its container, and until when that is kept once the attempt has ended; 0: not at all.
ALTER TABLE attempts ADD COLUMN keeps BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE attempts ADD COLUMN kept_until BIGINT NOT NULL DEFAULT 0;
CREATE INDEX attempts_kept ON attempts (kept_until) WHERE kept_until > 0;

-- Shells in kept containers. They are gone soon after they were closed.
CREATE TABLE shells (
  id TEXT NOT NULL PRIMARY KEY,
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  person TEXT NOT NULL, -- who alone types into it
  request {{BYTES}} NOT NULL, -- forge.scheduler.v1.OpenShellRequest
  opened {{BYTES}} NOT NULL, -- forge.scheduler.v1.AuditEntry
  secrets BOOLEAN NOT NULL, -- it is given those of the job
  create_time BIGINT NOT NULL,
  alive_time BIGINT NOT NULL, -- when whoever has opened it was heard of last
  begun BOOLEAN NOT NULL, -- a runner has it
  close_time BIGINT NOT NULL, -- 0: it is open
  exit_code BIGINT NOT NULL,
  problem TEXT NOT NULL
);
CREATE INDEX shells_open ON shells (build_id, attempt) WHERE close_time = 0;

-- What is on its way to and from them.
CREATE TABLE shell_frames (
  shell_id TEXT NOT NULL,
  outward BOOLEAN NOT NULL, -- printed; else typed
  number BIGINT NOT NULL,
  size BIGINT NOT NULL,
  key_id TEXT NOT NULL,
  frame {{BYTES}} NOT NULL, -- encrypted: forge.scheduler.v1.ShellOutput or ShellInput
  PRIMARY KEY (shell_id, outward, number)
);
