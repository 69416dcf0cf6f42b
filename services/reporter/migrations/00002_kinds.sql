-- oldest: 2
-- An older binary takes every target for a status.
-- +goose Up
ALTER TABLE targets ADD COLUMN unfinished BOOLEAN NOT NULL DEFAULT FALSE; -- what GitHub should show is not final
ALTER TABLE targets ADD COLUMN payload {{BYTES}};                 -- what a check run, a deployment or an answer is made of
ALTER TABLE targets ADD COLUMN github_id BIGINT NOT NULL DEFAULT 0; -- of what was made on GitHub; 0: nothing, or not known
ALTER TABLE targets ADD COLUMN begun BOOLEAN NOT NULL DEFAULT FALSE; -- GitHub may have made it
ALTER TABLE targets ADD COLUMN since BIGINT NOT NULL DEFAULT 0;   -- since when GitHub was to be told; 0: it was
ALTER TABLE targets ADD COLUMN verify BIGINT NOT NULL DEFAULT 0;  -- when to read back what GitHub shows; 0: never
ALTER TABLE targets ADD COLUMN verified BIGINT NOT NULL DEFAULT 0;
CREATE INDEX targets_verify ON targets (verify) WHERE verify > 0;
CREATE INDEX targets_since ON targets (since) WHERE since > 0;

CREATE TABLE calls (
    id         {{ID}},
    target_id  TEXT NOT NULL,
    time       BIGINT NOT NULL,
    took       BIGINT NOT NULL, -- µs
    request    TEXT NOT NULL,
    status     BIGINT NOT NULL, -- 0: no answer
    error      TEXT NOT NULL,
    request_id TEXT NOT NULL,
    version    BIGINT NOT NULL
);
CREATE INDEX calls_target ON calls (target_id, id);

-- +goose Down
DROP TABLE calls;
DROP INDEX targets_since;
DROP INDEX targets_verify;
ALTER TABLE targets DROP COLUMN verified;
ALTER TABLE targets DROP COLUMN verify;
ALTER TABLE targets DROP COLUMN since;
ALTER TABLE targets DROP COLUMN begun;
ALTER TABLE targets DROP COLUMN github_id;
ALTER TABLE targets DROP COLUMN payload;
ALTER TABLE targets DROP COLUMN unfinished;
