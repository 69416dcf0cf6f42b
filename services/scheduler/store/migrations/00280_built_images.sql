-- oldest: 70
-- An older binary leaves what was loaded in the engine until a newer one forgets it.
-- +goose Up

-- What image steps hand on to the jobs that need theirs: what is loaded is noted before the
-- engine has it, so that it is forgotten whatever becomes of the step.
CREATE TABLE built_images (
	build_id TEXT NOT NULL,
	attempt BIGINT NOT NULL, -- 0: of the build that is repeated
	step BIGINT NOT NULL,
	output TEXT NOT NULL, -- the variable
	loaded TEXT NOT NULL, -- its name in the engine; empty: it is not there
	pushed TEXT NOT NULL, -- name@digest; empty: it was not
	built BOOLEAN NOT NULL,
	PRIMARY KEY (build_id, attempt, step, loaded)
);
CREATE INDEX built_images_loaded ON built_images (loaded) WHERE loaded <> '';
