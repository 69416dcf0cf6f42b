-- oldest: 70
-- +goose Up

-- Tokens that are bound to a repository, as hashes.
CREATE TABLE repository_tokens (
  repository_id BIGINT NOT NULL,
  name TEXT NOT NULL,
  repository TEXT NOT NULL, -- owner/name when it was made
  hash {{BYTES}} NOT NULL, -- SHA-256 of the token
  create_time BIGINT NOT NULL,
  use_time BIGINT NOT NULL, -- to a minute; 0: never
  expire_time BIGINT NOT NULL, -- 0: never
  PRIMARY KEY (repository_id, name)
);
CREATE UNIQUE INDEX repository_tokens_hash ON repository_tokens (hash);
