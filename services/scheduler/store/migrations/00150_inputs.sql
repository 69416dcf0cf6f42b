-- oldest: 70
-- +goose Up

-- What somebody gave for a build by hand. Secret values go with the end of the build.
CREATE TABLE inputs (
  build_id TEXT NOT NULL,
  position BIGINT NOT NULL, -- in the file
  name TEXT NOT NULL,
  variable TEXT NOT NULL,
  key_id TEXT NOT NULL, -- what it is encrypted with; empty: it is no secret
  value {{BYTES}} NOT NULL,
  PRIMARY KEY (build_id, position)
);
