package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

const (
	// Commits must not wait for a checkpoint: one on the writing connection costs
	// tens of milliseconds at p99, one on another connection hardly any. The
	// writer steps in only when the log has reached this many pages of 4 KiB, by
	// when most of it is checkpointed already, so that the log stays bounded.
	writerCheckpointPages = 4000
	checkpointEvery       = time.Second

	// A larger cache was measured to be slower, and every connection has its own.
	cacheKiB = 2000
	readers  = 4
)

func openSQLite(ctx context.Context, cfg Config, dir string) (_ *DB, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("database directory %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("database directory: %w", err)
	}
	path := filepath.Join(dir, cfg.Room+".db")
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := createPrivate(path); err != nil {
		return nil, err
	}

	db := &DB{Dialect: SQLite, room: cfg.Room, migrations: cfg.Migrations}
	if db.write, err = sql.Open("sqlite", sqliteDSN(path, "immediate", fmt.Sprintf("wal_autocheckpoint(%d)", writerCheckpointPages))); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	db.turns.held = make(chan struct{}, 1)
	if db.read, err = sql.Open("sqlite", sqliteDSN(path, "deferred", "query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.write.Close())
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	db.read.SetConnMaxIdleTime(time.Minute)

	if err := migrate(ctx, goose.DialectSQLite3, db.write, cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	db.stop = db.checkpointInBackground(context.WithoutCancel(ctx), path+"-wal", cfg.Log)
	return db, nil
}

func sqliteDSN(path, txlock, pragma string) string {
	query := url.Values{
		"_txlock": {txlock},
		"_pragma": {
			"busy_timeout(5000)", // first: the others may meet a lock
			"journal_mode(WAL)",
			"synchronous(FULL)",
			"foreign_keys(1)",
			"temp_store(MEMORY)",
			fmt.Sprintf("cache_size(-%d)", cacheKiB),
			pragma,
		},
	}
	file := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	return file.String()
}

// lockFile keeps other processes out while the database is created and
// migrated; the kernel lets go of the lock when a process dies.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("database lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("database lock %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// createPrivate makes the file readable to its owner only; SQLite gives the
// files beside it the same mode. A file that exists is never opened here: closing
// it would drop the locks this process holds on it.
func createPrivate(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("database file: %w", err)
	}
	return file.Close()
}

// checkpointInBackground moves the write-ahead log into the database file on a
// reading connection whenever the log was written to. The function it returns
// stops that and waits for the end of it.
func (db *DB) checkpointInBackground(ctx context.Context, wal string, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(checkpointEvery)
		defer tick.Stop()
		var last time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			info, err := os.Stat(wal)
			if err != nil || info.ModTime().Equal(last) {
				continue // not written to, or not there yet
			}
			last = info.ModTime()
			if _, err := db.read.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "checkpoint of the database was put off", "file", wal, "error", err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
