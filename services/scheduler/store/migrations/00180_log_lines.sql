-- oldest: 35
-- An older binary stores no rows here; whoever then asks for a line has the log read through.
-- +goose Up

-- What is known of the lines of each chunk of a log, so that a line is found without reading those before it.
CREATE TABLE log_lines (
  build_id TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  position BIGINT NOT NULL, -- as in log_chunks
  pieces {{BYTES}} NOT NULL, -- see scheduler/logs/piece.go
  PRIMARY KEY (build_id, attempt, position)
);
