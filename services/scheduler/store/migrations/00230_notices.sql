-- oldest: 70
-- A scheduler that knows nothing of these tells nobody outside.

-- +goose Up

-- What others are to be told of builds. Of one build and one address only the oldest is due.
CREATE TABLE notices (
    id          {{ID}},
    address     TEXT NOT NULL, -- by its name
    build_id    TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    event       {{BYTES}} NOT NULL,
    create_time BIGINT NOT NULL,
    due_time    BIGINT NOT NULL,
    tries       BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX notices_due ON notices (address, id);
CREATE INDEX notices_build ON notices (address, build_id, id);
CREATE INDEX notices_age ON notices (create_time);

-- How addresses do. One that did not answer is left alone until due_time.
CREATE TABLE notice_addresses (
    name       TEXT NOT NULL PRIMARY KEY,
    due_time   BIGINT NOT NULL DEFAULT 0,
    tries      BIGINT NOT NULL DEFAULT 0,
    sent       BIGINT NOT NULL DEFAULT 0,
    refused    BIGINT NOT NULL DEFAULT 0,
    dropped    BIGINT NOT NULL DEFAULT 0,
    send_time  BIGINT NOT NULL DEFAULT 0,
    error      TEXT NOT NULL DEFAULT '',
    error_time BIGINT NOT NULL DEFAULT 0
);
