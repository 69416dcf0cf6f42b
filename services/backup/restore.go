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
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Target is what is restored, and to where.
type Target struct {
	From     string // the archive
	KeysFrom string // the file with the keys; "": there is none
	DataDir  string
	Force    bool // a state that is there is replaced
}

// Restored is what came of it.
type Restored struct {
	Manifest *Manifest
	// Missing are keys that the state had, and what it costs to be without each.
	Missing []string
}

// mostManifest bounds a manifest, in bytes.
const mostManifest = 1 << 30

// Restore puts the state of an archive into a data directory that no Forge uses. What is
// there is touched once all of the archive was found to be right.
func Restore(ctx context.Context, t Target) (*Restored, error) {
	if err := os.MkdirAll(t.DataDir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lock(t.DataDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := finish(t.DataDir); err != nil {
		return nil, err
	}
	if err := t.free(ctx); err != nil {
		return nil, err
	}
	staging, err := os.MkdirTemp(t.DataDir, stagingName)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(staging) //nolint:errcheck // it has another name by then
	m, err := unpack(t.From, staging)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be restored, and nothing was changed: %w", t.From, err)
	}
	if err := check(ctx, m, staging); err != nil {
		return nil, fmt.Errorf("%s cannot be restored, and nothing was changed: %w", t.From, err)
	}
	done := &Restored{Manifest: m}
	if done.Missing, err = t.addKeys(m, staging); err != nil {
		return nil, err
	}
	if err := commit(t.DataDir, staging); err != nil {
		return nil, err
	}
	return done, finish(t.DataDir)
}

// free is nil where the directory may be taken.
func (t Target) free(ctx context.Context) error {
	for _, r := range rooms() {
		if _, err := os.Stat(filepath.Join(t.DataDir, r.name+".db")); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if !t.Force {
			return fmt.Errorf("%s holds the state of a Forge (%s.db): choose another FORGE_DATA_DIR, or say --force to have it replaced", t.DataDir, r.name)
		}
		if err := sqldb.Alone(ctx, t.DataDir, r.name); err != nil {
			return fmt.Errorf("stop the Forge that uses %s first: %w", t.DataDir, err)
		}
	}
	return nil
}

// unpack writes the files of an archive into a folder, and holds them against its manifest.
func unpack(from, into string) (*Manifest, error) {
	file, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it is only read
	plain, err := zstd.NewReader(file)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	archive := tar.NewReader(plain)
	found := map[string]File{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is cut off: its manifest is missing")
		}
		if err != nil {
			return nil, fmt.Errorf("it is damaged or cut off: %w", err)
		}
		if header.Name == manifestName {
			return readManifest(archive, found)
		}
		if !expected(header) {
			return nil, fmt.Errorf("it holds %q, which is nothing of a backup", header.Name)
		}
		one, err := extract(archive, header.Name, into)
		if err != nil {
			return nil, fmt.Errorf("it is damaged or cut off, at %s: %w", header.Name, err)
		}
		found[header.Name] = one
	}
}

// expected reports whether an entry is a database or a blob: a file below the folder it is
// unpacked into.
func expected(header *tar.Header) bool {
	if header.Typeflag != tar.TypeReg || path.Clean(header.Name) != header.Name || !filepath.IsLocal(filepath.FromSlash(header.Name)) {
		return false
	}
	return strings.HasPrefix(header.Name, blobFolder+"/scheduler/") ||
		slices.ContainsFunc(rooms(), func(r room) bool { return header.Name == r.name+".db" })
}

func extract(from io.Reader, name, into string) (File, error) {
	target := filepath.Join(into, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return File{}, err
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return File{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), from)
	if err := errors.Join(err, file.Close()); err != nil {
		return File{}, err
	}
	return File{name, size, hex.EncodeToString(sum.Sum(nil))}, nil
}

func readManifest(from io.Reader, found map[string]File) (*Manifest, error) {
	m := &Manifest{}
	if err := json.NewDecoder(io.LimitReader(from, mostManifest)).Decode(m); err != nil {
		return nil, fmt.Errorf("its manifest is damaged: %w", err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("it is of format %d, and this Forge knows %d", m.Format, format)
	}
	for _, want := range m.Files {
		if got := found[want.Path]; got != want {
			return nil, fmt.Errorf("%s is not what was written: it has %d bytes with the checksum %s, want %d with %s", want.Path, got.Size, got.SHA256, want.Size, want.SHA256)
		}
		delete(found, want.Path)
	}
	for name := range found {
		return nil, fmt.Errorf("it holds %s, which its manifest does not name", name)
	}
	return m, nil
}

// check opens each database: it is intact, and this Forge can run on it.
func check(ctx context.Context, m *Manifest, staging string) error {
	for _, r := range rooms() {
		if !slices.ContainsFunc(m.Databases, func(d Database) bool { return d.Room == r.name }) {
			return fmt.Errorf("the database of %s is missing", r.name)
		}
		db, err := sqldb.Open(ctx, sqldb.Config{Dir: staging, Room: r.name, Migrations: r.migrations})
		if err != nil {
			return err
		}
		if err := errors.Join(db.Intact(ctx), db.Close()); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		for _, beside := range []string{"-wal", "-shm", ".lock"} {
			if err := os.RemoveAll(filepath.Join(staging, r.name+".db"+beside)); err != nil {
				return err
			}
		}
	}
	return nil
}

// addKeys puts the keys beside the rest. It returns what of them is missing.
func (t Target) addKeys(m *Manifest, staging string) (missing []string, err error) {
	given := map[string][]byte{}
	if t.KeysFrom != "" {
		if given, err = readKeys(t.KeysFrom, m.Instance); err != nil {
			return nil, err
		}
	}
	for _, k := range keys() {
		text, has := given[k.path]
		if !has && slices.Contains(m.Keys, k.path) {
			missing = append(missing, k.path+": "+k.cost)
		}
		if !has {
			continue
		}
		target := filepath.Join(staging, filepath.FromSlash(k.path))
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(target, text, 0o600); err != nil {
			return nil, err
		}
	}
	return missing, nil
}
