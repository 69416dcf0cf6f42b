-- oldest: 2
-- +goose Up
ALTER TABLE targets ADD COLUMN refused BIGINT NOT NULL DEFAULT 0; -- since when GitHub refuses what it is told; 0: it does not

-- +goose Down
ALTER TABLE targets DROP COLUMN refused;
