-- oldest: 1
-- +goose Up
-- What the gateway remembers of the world between two starts.
CREATE TABLE notes (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- What of a delivery is still there: payloads go before rows do.
CREATE INDEX deliveries_received ON deliveries (received);

-- +goose Down
DROP INDEX deliveries_received;
DROP TABLE notes;
