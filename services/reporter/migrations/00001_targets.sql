-- oldest: 1
-- +goose Up
CREATE TABLE targets (
    id               TEXT NOT NULL PRIMARY KEY, -- of kind, repository and what is told, see targetID
    kind             BIGINT NOT NULL,           -- forge.reporter.v1.Target.Kind
    repository_id    BIGINT NOT NULL,
    owner            TEXT NOT NULL DEFAULT '',
    name             TEXT NOT NULL DEFAULT '',
    installation_id  BIGINT NOT NULL DEFAULT 0,
    sha              TEXT NOT NULL DEFAULT '',
    context          TEXT NOT NULL DEFAULT '',
    head             TEXT NOT NULL DEFAULT '',  -- of a promotion
    base             TEXT NOT NULL DEFAULT '',
    build_id         TEXT NOT NULL DEFAULT '',
    traceparent      TEXT NOT NULL DEFAULT '',

    -- What GitHub should show.
    version          BIGINT NOT NULL DEFAULT 0,
    want_state       TEXT NOT NULL DEFAULT '',
    want_description TEXT NOT NULL DEFAULT '',
    want_url         TEXT NOT NULL DEFAULT '',

    -- What GitHub was told last; no state where that is not known.
    told_version     BIGINT NOT NULL DEFAULT 0,
    told_state       TEXT NOT NULL DEFAULT '',
    told_description TEXT NOT NULL DEFAULT '',
    told_url         TEXT NOT NULL DEFAULT '',
    told             BIGINT NOT NULL DEFAULT 0,
    pull_request     BIGINT NOT NULL DEFAULT 0,

    state            BIGINT NOT NULL DEFAULT 0, -- forge.reporter.v1.Target.State
    due              BIGINT NOT NULL DEFAULT 0, -- of the next try; 0: none
    lease            BIGINT NOT NULL DEFAULT 0, -- till when somebody is telling it; 0: nobody is
    attempts         BIGINT NOT NULL DEFAULT 0, -- that failed since the last success
    error            TEXT NOT NULL DEFAULT '',
    updated          BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX targets_due ON targets (due) WHERE due > 0;
CREATE INDEX targets_updated ON targets (updated, id);
CREATE INDEX targets_sha ON targets (sha);
CREATE INDEX targets_repository ON targets (repository_id);
CREATE INDEX targets_installation ON targets (installation_id, state);

-- +goose Down
DROP TABLE targets;
