package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	format = 1
	// manifestName is the last entry of an archive: without it the archive was cut off.
	manifestName = "manifest.json"
	blobFolder   = "blobs"
)

// Manifest says what is in an archive.
type Manifest struct {
	Format    int        `json:"format"`
	Version   string     `json:"version"`  // of the Forge that made it
	Instance  string     `json:"instance"` // whose state it is
	Time      time.Time  `json:"time"`
	Databases []Database `json:"databases"`
	Files     []File     `json:"files"` // all that is in the archive, databases included
	Gone      []string   `json:"gone"`  // blobs that were removed while it was made
	Elsewhere string     `json:"elsewhere,omitempty"`
	Keys      []string   `json:"keys"` // files with keys that the state had, and that are not in the archive
}

// Database is that of a room.
type Database struct {
	Room   string `json:"room"`
	Schema int64  `json:"schema"`
}

// File is one of an archive.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// keyFile is a file with keys.
type keyFile struct {
	Format   int               `json:"format"`
	Instance string            `json:"instance"`
	Files    map[string][]byte `json:"files"`
}

func readKeys(path, instance string) (map[string][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	var k keyFile
	if err := json.Unmarshal(text, &k); err != nil || k.Format != format {
		return nil, fmt.Errorf("%s holds no keys that forge backup has written: %w", path, err)
	}
	if k.Instance != instance {
		return nil, fmt.Errorf("the keys in %s are those of another Forge (%s), the backup is of %s", path, k.Instance, instance)
	}
	for name := range k.Files {
		if !isKey(name) {
			return nil, fmt.Errorf("%s holds a key that is none: %q", path, name)
		}
	}
	return k.Files, nil
}

func isKey(name string) bool {
	for _, k := range keys() {
		if k.path == name {
			return true
		}
	}
	return false
}

// fresh makes a file that was not there, for its owner alone, and has it there whole or not
// at all.
func fresh(path string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already", path)
	}
	part := path + ".part"
	file, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(part) //nolint:errcheck // it has its name by then
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}
