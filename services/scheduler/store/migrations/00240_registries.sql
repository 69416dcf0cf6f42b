-- oldest: 140
-- +goose Up

-- What repositories show to registries. Encrypted, and bound to the columns of the
-- primary key; uses and branches are as those of secrets.
CREATE TABLE registry_credentials (
  repository_id BIGINT NOT NULL,
  environment TEXT NOT NULL, -- empty: every build that uses and branches name
  host TEXT NOT NULL,
  repository TEXT NOT NULL, -- owner/name, as GitHub spelled it when they were set
  username TEXT NOT NULL,
  key_id TEXT NOT NULL, -- of the key that the password is encrypted with
  sealed {{BYTES}} NOT NULL,
  update_time BIGINT NOT NULL,
  uses BIGINT NOT NULL,
  branches TEXT NOT NULL,
  PRIMARY KEY (repository_id, environment, host)
);

-- Images, as host/path, that were pulled with what only some builds may show. A build
-- gets one that is on its machine if the registry gives it to that build.
CREATE TABLE private_images (
  name TEXT NOT NULL PRIMARY KEY,
  mark_time BIGINT NOT NULL -- when one was pulled so last
);
