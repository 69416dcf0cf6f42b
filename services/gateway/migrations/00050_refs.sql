-- oldest: 1
-- +goose Up

-- The branches and tags that a look at GitHub found last, of those that .forge.yml
-- names. The row without a ref says by which patterns.
CREATE TABLE refs (
  repository_id BIGINT NOT NULL,
  ref TEXT NOT NULL,
  sha TEXT NOT NULL,
  PRIMARY KEY (repository_id, ref)
);
