-- A scheduler that writes no changes makes those who wait for them look late, and no more.
-- oldest: 70

-- +goose Up

-- What changed that other processes wait for, for as long as it takes them to look. Only PostgreSQL has several.
CREATE TABLE changes (
  topic TEXT NOT NULL,
  xid XID8 NOT NULL, -- the transaction that made the change
  written_time BIGINT NOT NULL -- by the clock of the database, which all processes share
);
CREATE INDEX changes_xid ON changes (xid);
