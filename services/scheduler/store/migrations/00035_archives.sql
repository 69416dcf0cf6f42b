-- oldest: 35
-- An older binary does not find the logs that have moved.
-- +goose Up

-- The logs of attempts that have ended, on their way from log_chunks into a blob and, when they are old, out of it.
CREATE TABLE archives (
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  blob TEXT NOT NULL, -- its key; empty: the log is all in log_chunks
  frames {{BYTES}} NOT NULL, -- varints: how much of the log a frame of the blob holds, then the size of each frame
  old BOOLEAN NOT NULL, -- nobody reads it any more; the blob, then the row is removed
  due_time BIGINT NOT NULL, -- when there is something to do
  tries BIGINT NOT NULL,
  PRIMARY KEY (build_id, attempt)
);
CREATE INDEX archives_due ON archives (due_time);
CREATE INDEX archives_blob ON archives (blob);

INSERT INTO archives (build_id, attempt, blob, frames, old, due_time, tries)
  SELECT build_id, attempt, '', '', FALSE, 0, 0 FROM attempts WHERE ended AND log_size > 0;
