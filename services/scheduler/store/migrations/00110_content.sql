-- oldest: 70
-- +goose Up

-- Caches and artifacts: what they are called, and the blob that says of which chunks
-- they consist.
CREATE TABLE contents (
	id TEXT PRIMARY KEY,
	repository_id BIGINT NOT NULL,
	repository TEXT NOT NULL,
	kind BIGINT NOT NULL,
	-- Who may read it, and what goes first where there is too much.
	scope TEXT NOT NULL,
	tier BIGINT NOT NULL,
	-- Of a cache a hash of its paths, of an artifact the build.
	version TEXT NOT NULL,
	name TEXT NOT NULL,
	build_id TEXT NOT NULL,
	attempt BIGINT NOT NULL,
	size BIGINT NOT NULL,
	files BIGINT NOT NULL,
	pack TEXT NOT NULL,
	digest {{BYTES}} NOT NULL,
	create_time BIGINT NOT NULL,
	use_time BIGINT NOT NULL,
	expire_time BIGINT NOT NULL
);
CREATE UNIQUE INDEX contents_name ON contents (repository_id, kind, scope, version, name);
CREATE INDEX contents_expire ON contents (expire_time);
CREATE INDEX contents_build ON contents (build_id);
CREATE INDEX contents_newest ON contents (create_time);

-- Blobs that hold chunks. One that nothing uses any more goes a while after free_time.
CREATE TABLE packs (
	id TEXT PRIMARY KEY,
	repository_id BIGINT NOT NULL,
	kind BIGINT NOT NULL,
	size BIGINT NOT NULL,
	free_time BIGINT NOT NULL,
	dying BOOLEAN NOT NULL,
	broken BOOLEAN NOT NULL
);
CREATE INDEX packs_free ON packs (free_time);
CREATE INDEX packs_repository ON packs (repository_id, kind);

CREATE TABLE pack_uses (
	content_id TEXT NOT NULL,
	pack_id TEXT NOT NULL,
	PRIMARY KEY (content_id, pack_id)
);
CREATE INDEX pack_uses_pack ON pack_uses (pack_id);
