package store

import "context"

// CopyArtifacts has one job leave what another has left.
func CopyArtifacts(ctx context.Context, t *Tx, from, to string) error {
	err := t.Exec(ctx, `UPDATE packs SET free_time = 0 WHERE NOT dying AND id IN (
		SELECT pack_id FROM pack_uses JOIN contents ON contents.id = content_id WHERE contents.kind = 2 AND build_id = $1)`, from)
	if err != nil {
		return err
	}
	err = t.Exec(ctx, `INSERT INTO pack_uses (content_id, pack_id) SELECT CAST($2 AS TEXT) || '/' || name, pack_id
		FROM pack_uses JOIN contents ON contents.id = content_id WHERE kind = 2 AND build_id = $1`, from, to)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO contents (id, repository_id, repository, kind, scope, tier, version, name, build_id, attempt,
			size, files, pack, digest, create_time, use_time, expire_time)
		SELECT CAST($2 AS TEXT) || '/' || name, repository_id, repository, kind, scope, tier, CAST($2 AS TEXT), name, CAST($2 AS TEXT), attempt,
			size, files, pack, digest, create_time, use_time, expire_time
		FROM contents WHERE kind = 2 AND build_id = $1`, from, to)
}
