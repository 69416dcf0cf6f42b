-- oldest: 1
-- +goose Up

-- One row: the name by which engines know the containers of this Forge.
CREATE TABLE instance (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL
);
