package forgexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// workspace is the folder that the source is unpacked into and steps run in. Its
// error is why it cannot be used: the build has to hear of it.
type workspace struct {
	path string
	err  error
}

// openWorkspace makes the folder, which must be empty: it is emptied again when a
// source has to be fetched anew. remove removes it if it is a temporary one.
func openWorkspace(path string) (w *workspace, remove func(), err error) {
	if path == "" {
		around, err := os.MkdirTemp("", "forge-workspace-") // of a home, too
		path := filepath.Join(around, "workspace")
		if err == nil {
			err = os.Mkdir(path, 0o700)
		}
		if err != nil {
			err = fmt.Errorf("make a workspace: %w", err)
			return &workspace{path: os.TempDir(), err: err}, func() {}, err
		}
		return &workspace{path: path}, func() { _ = os.RemoveAll(around) }, nil
	}
	err = prepare(path)
	return &workspace{path: path, err: err}, func() {}, err
}

func prepare(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the workspace %s (%s) is not an absolute path", path, workspaceEnv)
	}
	if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // a step may become another user
		return fmt.Errorf("make the workspace: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("look into the workspace: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("the workspace %s (%s) is not empty: it holds %s", path, workspaceEnv, entries[0].Name())
	}
	return nil
}

// empty removes what an interrupted source has left.
func (w *workspace) empty() error {
	entries, err := os.ReadDir(w.path)
	if err != nil {
		return fmt.Errorf("empty the workspace: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(w.path, entry.Name())); err != nil {
			return fmt.Errorf("empty the workspace: %w", err)
		}
	}
	return nil
}

// folder is where commands run: the workspace, or a folder in it. Its error says, for
// people, why they cannot.
func (w *workspace) folder(name string) (string, error) {
	if err := w.missing(); err != nil || name == "" {
		return w.path, err
	}
	top, err := filepath.EvalSymlinks(w.path)
	if err != nil {
		return "", fmt.Errorf("the workspace: %w", err)
	}
	at, err := filepath.EvalSymlinks(filepath.Join(top, name))
	switch info, statErr := os.Stat(at); {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("there is no folder %s in the workspace, which working_directory names", name)
	case err != nil:
		return "", fmt.Errorf("working_directory %s: %w", name, err)
	case at != top && !strings.HasPrefix(at, top+"/"):
		return "", fmt.Errorf("working_directory %s leads out of the workspace", name)
	case statErr != nil || !info.IsDir():
		return "", fmt.Errorf("working_directory %s is no folder", name)
	}
	return at, nil
}

// missing says why no command can start here, or nil.
func (w *workspace) missing() error {
	info, err := os.Stat(w.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("the workspace is gone: an earlier step removed it")
	case err != nil:
		return fmt.Errorf("the workspace: %w", err)
	case !info.IsDir():
		return fmt.Errorf("the workspace: %w", syscall.ENOTDIR)
	}
	return nil
}
