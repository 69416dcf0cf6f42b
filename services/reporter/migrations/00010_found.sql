-- oldest: 3
-- +goose Up

-- What is listed of a repository, and the deployments that a new one replaces, are
-- found without reading all that is kept.
CREATE INDEX targets_name ON targets (lower(owner), lower(name), updated, id);
-- Kind 4 is a deployment.
CREATE INDEX targets_deployed ON targets (repository_id, context) WHERE kind = 4 AND want_state = 'success';

-- +goose Down
DROP INDEX targets_deployed;
DROP INDEX targets_name;
