-- oldest: 70
-- +goose Up

-- What a remote run was asked for: forge.scheduler.v1.CreateRemoteBuildRequest, compressed by
-- zstd. It is kept as long as its build.
CREATE TABLE differences (
	build_id TEXT PRIMARY KEY,
	request  {{BYTES}} NOT NULL
);
