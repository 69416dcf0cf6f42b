-- oldest: 1
-- +goose Up
-- What of a repository a delivery tells of. Deliveries that were decided before are not found by these.
ALTER TABLE deliveries ADD COLUMN pull_request BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN sha TEXT NOT NULL DEFAULT '';
CREATE INDEX deliveries_pull_request ON deliveries (pull_request, id) WHERE pull_request > 0;
CREATE INDEX deliveries_sha ON deliveries (sha, id) WHERE sha <> '';
CREATE INDEX deliveries_repository_event ON deliveries (repository, event, id);

-- +goose Down
DROP INDEX deliveries_repository_event;
DROP INDEX deliveries_sha;
DROP INDEX deliveries_pull_request;
ALTER TABLE deliveries DROP COLUMN sha;
ALTER TABLE deliveries DROP COLUMN pull_request;
