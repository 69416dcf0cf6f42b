package github

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync"

	"github.com/bradleyfalzon/ghinstallation/v2"
)

// App is the GitHub App as which a client signs.
type App struct {
	ID  int64
	Key []byte // PEM, PKCS#1 or PKCS#8; line ends may be written \n
	// KeyFile is where Key is from, "" if from no file. When it changes it is read
	// again, so that a key can be replaced while clients are in use.
	KeyFile string
}

// appTransport signs as the App with the newest key there is.
type appTransport struct {
	app  App
	log  *slog.Logger
	next http.RoundTripper

	mu      sync.Mutex
	signing http.RoundTripper
	read    fs.FileInfo // of the key's file when it was last read; nil: not since the start
}

func newAppTransport(cfg Config, app App) (*appTransport, error) {
	t := &appTransport{app: app, log: cfg.Log, next: cfg.transport()}
	return t, t.sign(app.Key)
}

func (t *appTransport) sign(key []byte) error {
	// Keys in environment files often have their line ends escaped.
	signing, err := ghinstallation.NewAppsTransport(t.next, t.app.ID, bytes.ReplaceAll(key, []byte(`\n`), []byte("\n")))
	if err != nil { // the cause might show some of it
		return errors.New("the App's private key is not a PEM RSA key: download it from the App's settings page under 'Private keys'")
	}
	t.signing, t.app.Key = signing, key
	return nil
}

func (t *appTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.current(req).RoundTrip(req)
}

// current signs with the key as its file has it now. While that cannot be read,
// or holds no key, the one before stays good.
func (t *appTransport) current(req *http.Request) http.RoundTripper {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.app.KeyFile == "" {
		return t.signing
	}
	now, err := os.Stat(t.app.KeyFile)
	if err != nil || t.read != nil && now.ModTime().Equal(t.read.ModTime()) && now.Size() == t.read.Size() {
		return t.signing
	}
	key, err := os.ReadFile(t.app.KeyFile)
	t.read = now
	if err == nil && bytes.Equal(bytes.TrimSpace(key), bytes.TrimSpace(t.app.Key)) {
		return t.signing
	}
	if err == nil {
		err = t.sign(key)
	}
	if err != nil {
		t.log.WarnContext(req.Context(), "the App's new key is not taken, the one before stays in use", "file", t.app.KeyFile, "error", err)
	} else {
		t.log.InfoContext(req.Context(), "the App's key is read anew", "file", t.app.KeyFile)
	}
	return t.signing
}
