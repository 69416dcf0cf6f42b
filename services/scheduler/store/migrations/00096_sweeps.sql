-- oldest: 70

-- +goose Up

-- One row: replicas take turns in looking after attempts.
CREATE TABLE sweeps (
  id BIGINT PRIMARY KEY,
  next_time BIGINT NOT NULL
);
INSERT INTO sweeps (id, next_time) VALUES (1, 0);
