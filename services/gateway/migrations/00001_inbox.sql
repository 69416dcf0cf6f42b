-- oldest: 1
-- +goose Up
CREATE TABLE deliveries (
    id              {{ID}},
    guid            TEXT NOT NULL UNIQUE,
    event           TEXT NOT NULL,
    headers         TEXT NOT NULL, -- JSON
    size            BIGINT NOT NULL,
    traceparent     TEXT NOT NULL,
    received        BIGINT NOT NULL,
    -- Known once the payload was read.
    action          TEXT NOT NULL DEFAULT '',
    repository      TEXT NOT NULL DEFAULT '',
    installation_id BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_event ON deliveries (event, id);
CREATE INDEX deliveries_repository ON deliveries (repository, id);

-- Apart, so that a change of a delivery does not write its payload again.
CREATE TABLE payloads (
    delivery BIGINT NOT NULL PRIMARY KEY REFERENCES deliveries (id) ON DELETE CASCADE,
    snappy   {{BYTES}} NOT NULL
);

CREATE TABLE forwards (
    delivery BIGINT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    receiver TEXT NOT NULL,
    state    BIGINT NOT NULL DEFAULT 1, -- forge.gateway.v1.Delivery.State
    due      BIGINT NOT NULL,           -- of the next try; during a try, when its lease is over
    attempts BIGINT NOT NULL DEFAULT 0,
    decision {{BYTES}},                 -- forge.event.v1.Decision
    error    TEXT NOT NULL DEFAULT '',
    decided  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (delivery, receiver)
);
CREATE INDEX forwards_due ON forwards (receiver, due) WHERE state = 1;
CREATE INDEX forwards_open ON forwards (state, delivery) WHERE state <> 2;

-- +goose Down
DROP TABLE forwards;
DROP TABLE payloads;
DROP TABLE deliveries;
