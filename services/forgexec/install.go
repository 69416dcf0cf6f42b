package forgexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	installedPrefix = "forgexec-"
	// unfinished begins the names of copies under way.
	unfinished = ".forgexec-"
	// A file that is touched daily and was not for longer than freshFor is not looked
	// after; one that was not for staleAfter is of a version that nobody runs any more.
	touchEvery = 24 * time.Hour
	freshFor   = 2 * touchEvery
	staleAfter = 30 * 24 * time.Hour
)

// installation is a copy of this program for containers that see the folder.
type installation struct {
	dir, name string
	now       func() time.Time
}

// install makes the copy, and with stay looks after the folder until it is told to
// end.
func (i installation) install(ctx context.Context, stay bool, log *slog.Logger) error {
	if err := i.place(); err != nil {
		return fmt.Errorf("install forgexec in %s: %w", i.dir, err)
	}
	log.InfoContext(ctx, "forgexec is installed", "path", filepath.Join(i.dir, i.name))
	if !stay {
		return nil
	}
	told, forget := untilTold(ctx)
	defer forget()
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		if err := i.removeStale(); err != nil {
			log.WarnContext(ctx, "what nobody runs any more is not removed", "error", err)
		}
		select {
		case <-told.Done():
			return nil
		case <-tick.C:
		}
		if err := i.place(); err != nil {
			return fmt.Errorf("install forgexec in %s: %w", i.dir, err)
		}
	}
}

// place has the file be there, with this program's content and today's time. Who
// runs a file that is replaced runs on.
func (i installation) place() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close() //nolint:errcheck // it was not written to
	target, now := filepath.Join(i.dir, i.name), i.now()
	same, err := sameContent(self, target)
	if err != nil {
		return err
	}
	if same {
		return errors.Join(os.Chmod(target, 0o555), os.Chtimes(target, now, now)) //nolint:gosec // whoever a build's user is runs it
	}
	copied, err := os.CreateTemp(i.dir, unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(copied.Name()) //nolint:errcheck // it has its name by then
	_, err = io.Copy(copied, self)
	if err := errors.Join(err, copied.Chmod(0o555), copied.Close()); err != nil {
		return err
	}
	return errors.Join(os.Chtimes(copied.Name(), now, now), os.Rename(copied.Name(), target))
}

// sameContent leaves self at its beginning.
func sameContent(self *os.File, target string) (bool, error) {
	file, err := os.Open(target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	ours, err := contentHash(self)
	if err != nil {
		return false, err
	}
	theirs, err := contentHash(file)
	if err != nil {
		return false, err
	}
	_, err = self.Seek(0, io.SeekStart)
	return bytes.Equal(ours, theirs), err
}

func contentHash(file io.Reader) ([]byte, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return nil, err
	}
	return hash.Sum(nil), nil
}

// removeStale removes what no installer has touched for long.
func (i installation) removeStale() error {
	entries, err := os.ReadDir(i.dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range entries {
		name := entry.Name()
		after := staleAfter
		if strings.HasPrefix(name, unfinished) { // by one that was killed
			after = touchEvery
		} else if !strings.HasPrefix(name, installedPrefix) || name == i.name {
			continue
		}
		if info, err := entry.Info(); err == nil && i.now().Sub(info.ModTime()) > after {
			failed = append(failed, os.Remove(filepath.Join(i.dir, name)))
		}
	}
	return errors.Join(failed...)
}

// check is an error where the file is not there, cannot be run, or is not looked
// after.
func (i installation) check() error {
	path := filepath.Join(i.dir, i.name)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.Mode() != 0o555:
		return fmt.Errorf("%s has mode %v", path, info.Mode())
	case i.now().Sub(info.ModTime()) > freshFor:
		return fmt.Errorf("%s was not touched since %v", path, info.ModTime())
	}
	return nil
}

// ownName is that of a copy where none is asked for: it says what is in it.
func ownName() (string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close() //nolint:errcheck // it was not written to
	hash, err := contentHash(self)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%x", installedPrefix, hash[:4]), nil
}

// installOrCheck does what --install or --installed asks for.
func installOrCheck(ctx context.Context, into, checked, name string, stay bool, log *slog.Logger) int {
	if name == "" {
		own, err := ownName()
		if err != nil {
			log.ErrorContext(ctx, "forgexec cannot read itself", "error", err)
			return exitFailed
		}
		name = own
	}
	var err error
	if into != "" {
		err = installation{into, name, time.Now}.install(ctx, stay, log)
	} else {
		err = installation{checked, name, time.Now}.check()
	}
	if err != nil {
		log.ErrorContext(ctx, "forgexec is not installed", "error", err)
		return exitFailed
	}
	return exitReported
}
