-- An older binary knows of the commands that it has run itself, as it did before: beside it the gate does not hold.
-- oldest: 70
-- +goose Up

-- Builds of images whose commands run, or wait for their turn, before each BuildKit.
CREATE TABLE image_gate (
	number BIGINT PRIMARY KEY, -- the order in which they came
	buildkit TEXT NOT NULL, -- the daemon, whatever it is reached by
	build TEXT NOT NULL, -- what BuildKit calls it
	tier TEXT NOT NULL,
	inside BOOLEAN NOT NULL, -- its commands may run
	lease_time BIGINT NOT NULL
);
CREATE INDEX image_gate_line ON image_gate (buildkit, number);

-- One row: whoever comes locks it, so that numbers are committed in their order.
CREATE TABLE image_gate_last (
	id BIGINT PRIMARY KEY,
	number BIGINT NOT NULL
);
INSERT INTO image_gate_last (id, number) VALUES (1, 0);
