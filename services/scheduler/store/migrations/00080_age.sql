-- oldest: 70
-- +goose Up

-- What is removed by its age, or with its build, is found without reading all that is kept.
CREATE INDEX decisions_created ON decisions (create_time);
CREATE INDEX answers_created ON answers (create_time);
CREATE INDEX tokens_build ON tokens (build_id);
CREATE INDEX pull_requests_closed ON pull_requests (update_time) WHERE closed;

-- When the attempt ended; 0: an older Forge has not said.
ALTER TABLE archives ADD COLUMN end_time BIGINT NOT NULL DEFAULT 0;
UPDATE archives SET end_time = COALESCE((SELECT builds.end_time FROM builds WHERE builds.id = archives.build_id), 0);
CREATE INDEX archives_kept ON archives (end_time) WHERE NOT old;

-- When the queue last asked for the group, or gave it up; 0: an older Forge has not said.
ALTER TABLE merge_groups ADD COLUMN update_time BIGINT NOT NULL DEFAULT 0;
UPDATE merge_groups SET update_time = (SELECT COALESCE(max(create_time), 0) FROM decisions);
CREATE INDEX merge_groups_updated ON merge_groups (update_time) WHERE update_time > 0;
