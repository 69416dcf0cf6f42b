-- oldest: 1
-- +goose Up
-- Which state of a pull request a delivery tells of, so that a sweep leaves out
-- what was told: repository id, number and sha.
ALTER TABLE deliveries ADD COLUMN pull TEXT NOT NULL DEFAULT '';
CREATE INDEX deliveries_pull ON deliveries (pull) WHERE pull <> '';

-- +goose Down
DROP INDEX deliveries_pull;
ALTER TABLE deliveries DROP COLUMN pull;
