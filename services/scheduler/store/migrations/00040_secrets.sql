-- oldest: 35
-- +goose Up

-- Encrypted, and bound to the columns of the primary key.
CREATE TABLE secrets (
  repository_id BIGINT NOT NULL,
  environment TEXT NOT NULL, -- empty: every build of the repository
  name TEXT NOT NULL,
  repository TEXT NOT NULL, -- owner/name, as GitHub spelled it when the secret was set
  key_id TEXT NOT NULL, -- of the key it is encrypted with
  sealed {{BYTES}} NOT NULL,
  update_time BIGINT NOT NULL,
  PRIMARY KEY (repository_id, environment, name)
);
