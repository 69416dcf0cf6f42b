-- A scheduler that does not know of it shows a certificate of its own, as before.
-- oldest: 70
-- +goose Up

-- What the runner address shows where none is set, by the host that runners dial: the same for all schedulers.
CREATE TABLE runner_certificates (
  host TEXT PRIMARY KEY,
  certificate {{BYTES}} NOT NULL, -- PEM
  key_id TEXT NOT NULL, -- what its key is encrypted with, as with secrets
  sealed {{BYTES}} NOT NULL
);
