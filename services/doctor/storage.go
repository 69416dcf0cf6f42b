package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// database looks at the schema of each room.
func (d *doctor) database(ctx context.Context, r *report) {
	const check = "database"
	var fresh, old []string
	for _, room := range []struct {
		name       string
		migrations fs.FS
	}{{"gateway", gateway.Migrations()}, {"reporter", reporter.Migrations()}, {"scheduler", scheduler.Migrations()}} {
		found, err := sqldb.Inspect(ctx, d.Settings.Database(room.name, room.migrations, d.Log))
		switch {
		case err != nil && found.Current > found.Known:
			r.broken(check, err.Error(), "run the newer Forge again, or restore the backup")
			return
		case err != nil && found.Exists:
			r.broken(check, room.name+": "+err.Error(), "have it take writes: its disk, its owner, and whether it is a copy that is read from alone")
			return
		case err != nil:
			r.broken(check, room.name+": "+err.Error(), databaseFix(d.Settings.DatabaseURL))
			return
		case !found.Exists:
			fresh = append(fresh, room.name)
		case found.Current < found.Known:
			old = append(old, room.name)
		}
	}
	switch {
	case len(old) > 0 && d.runs:
		r.warn(check, "the schema of "+strings.Join(old, ", ")+" is older than this program, which is not the one that runs", "restart Forge: it brings the schema up to date")
	case len(old) > 0:
		r.finef(check, "answers, and takes writes; the schema of %s is brought up to date at the next start", strings.Join(old, ", "))
	case len(fresh) > 0:
		r.finef(check, "answers; %s is made at the first start", strings.Join(fresh, ", "))
	default:
		r.finef(check, "answers, takes writes, and its schema is up to date")
	}
}

func databaseFix(address string) string {
	if address == "" {
		return "restore the file from a backup, or move it away to begin anew"
	}
	return "start PostgreSQL, and check FORGE_DATABASE_URL: its host, user, password and database"
}

// blobs writes, reads and removes a probe.
func (d *doctor) blobs(ctx context.Context, r *report) {
	const check = "blobs"
	fix := "check the folder's owner and its disk"
	if d.Settings.BlobURL != "" {
		fix = "check FORGE_BLOB_URL, its credentials (AWS_…), and what they may do there"
	}
	s := d.Settings
	store, err := blobs.Open(ctx, blobs.Config{URL: s.BlobURL, Dir: filepath.Join(s.DataDir, "blobs"), Room: "doctor"})
	if err != nil {
		r.broken(check, err.Error(), fix)
		return
	}
	defer store.Close() //nolint:errcheck // all is written
	key, want := strings.ToLower(rand.Text()), []byte(rand.Text())
	err = store.Put(ctx, key, func(w io.Writer) error {
		_, err := w.Write(want)
		return err
	})
	if err != nil {
		r.broken(check, err.Error(), fix)
		return
	}
	got, err := read(ctx, store, key)
	removed := store.Remove(context.WithoutCancel(ctx), key)
	switch {
	case err != nil:
		r.broken(check, err.Error(), fix)
	case !bytes.Equal(got, want):
		r.broken(check, "what was written is read as something else", fix)
	case removed != nil:
		r.broken(check, removed.Error(), fix)
	default:
		r.finef(check, "wrote, read and removed a probe in %s", place(s.BlobURL, s.DataDir))
	}
}

func place(address, dataDir string) string {
	if address == "" {
		return filepath.Join(dataDir, "blobs")
	}
	where, _, _ := strings.Cut(address, "?")
	return where
}

func read(ctx context.Context, store *blobs.Store, key string) ([]byte, error) {
	blob, err := store.Read(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(blob)
	return text, errors.Join(err, blob.Close())
}

// How much room the data directory is to have.
const (
	littleDisk = 5 << 30
	noDisk     = 500 << 20
)

func (d *doctor) disk(_ context.Context, r *report) {
	const check = "disk"
	for folder := d.Settings.DataDir; ; folder = filepath.Dir(folder) {
		var stat syscall.Statfs_t
		err := syscall.Statfs(folder, &stat)
		if errors.Is(err, fs.ErrNotExist) && folder != filepath.Dir(folder) {
			continue // it is made at the first start
		}
		if err != nil {
			r.broken(check, fmt.Sprintf("%s: %v", folder, err), "set FORGE_DATA_DIR to a folder that Forge can use")
			return
		}
		free := uint64(stat.Bavail) * uint64(stat.Bsize) //nolint:gosec,unconvert // systems differ in the types
		left := humanize.IBytes(free) + " are free in " + folder
		at := slices.IndexFunc([]uint64{noDisk, littleDisk}, func(least uint64) bool { return free < least })
		switch at {
		case 0:
			r.broken(check, left, "make room: FORGE_CACHE_LIMIT, FORGE_MIRRORS_DISK and FORGE_LOG_RETENTION bound what Forge keeps")
		case 1:
			r.warn(check, left, "make room: FORGE_CACHE_LIMIT, FORGE_MIRRORS_DISK and FORGE_LOG_RETENTION bound what Forge keeps")
		default:
			r.finef(check, "%s", left)
		}
		return
	}
}
