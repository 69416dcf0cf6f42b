package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	stagingName = ".restore-unpacked-"
	// committedName is the folder with what is still to be moved into its place. What lies
	// in the data directory under the same names is of the state before.
	committedName = ".restore-committed"
	lockName      = ".restore.lock"
)

// lock keeps other processes from moving files in a data directory; the kernel lets go of
// it when a process dies.
func lock(dataDir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dataDir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// commit has the new state be the one there is: by one rename.
func commit(dataDir, staging string) error {
	// An archive without blobs leaves none of the state before.
	if err := os.MkdirAll(filepath.Join(staging, blobFolder), 0o700); err != nil {
		return err
	}
	// All of it is on disk before its name says so.
	err := filepath.WalkDir(staging, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return sync(path)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(staging, filepath.Join(dataDir, committedName)); err != nil {
		return err
	}
	return sync(dataDir)
}

// Finish moves what a restore has committed and was killed before it moved. Whoever opens
// the state of a data directory calls it first.
func Finish(dataDir string) error {
	left, err := filepath.Glob(filepath.Join(dataDir, ".restore-*"))
	if err != nil || len(left) == 0 {
		return err
	}
	unlock, err := lock(dataDir)
	if err != nil {
		return fmt.Errorf("finish the restore of %s: %w", dataDir, err)
	}
	defer unlock()
	return finish(dataDir)
}

// finish can be done again from its beginning, wherever it broke off: what is in the folder
// is new, and what has left it is in its place.
func finish(dataDir string) error {
	committed := filepath.Join(dataDir, committedName)
	entries, err := os.ReadDir(committed)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("finish the restore of %s: %w", dataDir, err)
	}
	for _, entry := range entries {
		old := filepath.Join(dataDir, entry.Name())
		// The log beside a database is of the database before, which must not be read with it.
		beside := []string{old + "-wal", old + "-shm"}
		if entry.IsDir() {
			beside = []string{old}
		}
		for _, path := range beside {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("finish the restore of %s: %w", dataDir, err)
			}
		}
		if err := os.Rename(filepath.Join(committed, entry.Name()), old); err != nil {
			return fmt.Errorf("finish the restore of %s: %w", dataDir, err)
		}
		if err := sync(dataDir); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(committed), removeUnpacked(dataDir))
}

// removeUnpacked removes what a restore has unpacked that was killed before its commit.
func removeUnpacked(dataDir string) error {
	entries, err := os.ReadDir(dataDir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), stagingName) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dataDir, entry.Name())))
		}
	}
	return err
}

// sync makes a file, or the names in a directory, survive a loss of power.
func sync(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
