package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
)

// Source is what is copied, and to where.
type Source struct {
	DataDir string
	To      string // the archive, which is not there yet
	KeysTo  string // a file for the keys, which is not there yet; "": they are left out
	// BlobsElsewhere says where blobs are that are not in the data directory; "": they are.
	BlobsElsewhere string
	Version        string // of this Forge
	Now            func() time.Time
}

// Create makes an archive of the state in a data directory, which may be in use.
func Create(ctx context.Context, s Source) (*Manifest, error) {
	for _, r := range rooms() {
		if _, err := os.Stat(filepath.Join(s.DataDir, r.name+".db")); err != nil {
			return nil, fmt.Errorf("there is no Forge in %s (FORGE_DATA_DIR): %w", s.DataDir, err)
		}
	}
	staging, err := os.MkdirTemp(filepath.Dir(s.To), ".forge-backup-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(staging) //nolint:errcheck // what was copied is in the archive
	m := &Manifest{Format: format, Version: s.Version, Time: s.Now().UTC(), Elsewhere: s.BlobsElsewhere}
	for _, r := range rooms() {
		version, err := sqldb.Snapshot(ctx, s.DataDir, r.name, filepath.Join(staging, r.name+".db"))
		if err != nil {
			return nil, err
		}
		m.Databases = append(m.Databases, Database{r.name, version})
	}
	blobs, err := named(ctx, staging, m)
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, k := range keys() {
		text, err := os.ReadFile(filepath.Join(s.DataDir, k.path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[k.path], m.Keys = text, append(m.Keys, k.path)
	}
	if err := fresh(s.To, func(w io.Writer) error { return s.pack(ctx, w, staging, blobs, m) }); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if s.KeysTo == "" {
		return m, nil
	}
	err = fresh(s.KeysTo, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(keyFile{Format: format, Instance: m.Instance, Files: found})
	})
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return m, nil
}

// named are the keys of the blobs that a copy of the scheduler's database names, below the
// folder of blobs. It opens a copy of that copy: who opens a database may change it.
func named(ctx context.Context, staging string, m *Manifest) (paths []string, err error) {
	look := filepath.Join(staging, "look")
	if err := os.Mkdir(look, 0o700); err != nil {
		return nil, err
	}
	if _, err := sqldb.Snapshot(ctx, staging, "scheduler", filepath.Join(look, "scheduler.db")); err != nil {
		return nil, err
	}
	db, err := sqldb.Open(ctx, sqldb.Config{Dir: look, Room: "scheduler"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(look)) }()
	if m.Instance, err = scheduler.Instance(ctx, db); err != nil {
		return nil, err
	}
	if m.Elsewhere != "" {
		return nil, nil
	}
	keys, err := scheduler.BlobKeys(ctx, db)
	for _, key := range keys {
		paths = append(paths, filepath.Join("scheduler", m.Instance, filepath.FromSlash(key)))
	}
	return paths, err
}

// pack writes the archive.
func (s Source) pack(ctx context.Context, w io.Writer, staging string, blobs []string, m *Manifest) error {
	compressed, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, r := range rooms() {
		file, err := add(archive, filepath.Join(staging, r.name+".db"), r.name+".db")
		if err != nil {
			return err
		}
		m.Files = append(m.Files, file)
	}
	for _, path := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Join(blobFolder, path))
		file, err := add(archive, filepath.Join(s.DataDir, blobFolder, path), name)
		if errors.Is(err, fs.ErrNotExist) {
			m.Gone = append(m.Gone, name)
			continue
		}
		if err != nil {
			return err
		}
		m.Files = append(m.Files, file)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(text)), ModTime: m.Time}); err != nil {
		return err
	}
	if _, err := archive.Write(text); err != nil {
		return err
	}
	return errors.Join(archive.Close(), compressed.Close())
}

// add writes a file into an archive; fs.ErrNotExist where there is none.
func add(archive *tar.Writer, path, name string) (File, error) {
	from, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer from.Close() //nolint:errcheck // it is only read
	info, err := from.Stat()
	if err != nil {
		return File{}, err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return File{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(archive, sum), from); err != nil {
		return File{}, fmt.Errorf("%s: %w", name, err)
	}
	return File{Path: name, Size: info.Size(), SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}
