-- oldest: 140
-- An older binary leaves the new columns of its builds as they are: branch is filled in later.
-- +goose Up

-- What lists are filtered by. NULL: it was stored by an older Forge, and not looked at since.
ALTER TABLE builds ADD COLUMN branch TEXT;
ALTER TABLE builds ADD COLUMN base_ref TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN actor TEXT NOT NULL DEFAULT ''; -- in lower case
ALTER TABLE builds ADD COLUMN job TEXT NOT NULL DEFAULT ''; -- of a job: its title
CREATE INDEX builds_unfilled ON builds (number) WHERE branch IS NULL;

-- Of what has ended: on which day since 1970, and how many microseconds after its first command; 0 for none.
ALTER TABLE builds ADD COLUMN end_day BIGINT NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN duration BIGINT NOT NULL DEFAULT 0;
CREATE INDEX builds_days ON builds (repository, end_day, state, duration, action, part_of) WHERE part_of = '' AND end_day > 0;

-- A list takes the newest of each state in turn. The columns behind number are there so that what a list leaves out
-- is left out without reading the build.
CREATE INDEX builds_listed ON builds (state, number, action, part_of) WHERE part_of = '';
CREATE INDEX builds_listed_repository ON builds (repository, state, number, action, part_of) WHERE part_of = '';
CREATE INDEX builds_listed_branch ON builds (repository, branch, state, number, action, part_of) WHERE part_of = '';
CREATE INDEX builds_listed_base ON builds (repository, base_ref, state, number, action, part_of) WHERE part_of = '';
CREATE INDEX builds_listed_actor ON builds (actor, state, number, repository, action, branch, base_ref, part_of) WHERE part_of = '';
CREATE INDEX builds_listed_job ON builds (repository, job, number, branch) WHERE part_of <> '';
