package settings

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/settings"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// Admin returns the admin token. Where none is set, the one in the data
// directory counts, which is made at first start and readable by its owner only;
// on PostgreSQL it must be set.
func (c Common) Admin() (string, error) {
	if c.AdminToken != "" {
		return c.AdminToken, nil
	}
	if err := c.sharedWithout("FORGE_ADMIN_TOKEN", "admin-token"); err != nil {
		return "", err
	}
	token, err := c.kept("admin-token", rand.Text)
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	return token, nil
}

// CheckAdmin is the error that Admin would have. It makes nothing.
func (c Common) CheckAdmin() error {
	if c.AdminToken != "" {
		return nil
	}
	return c.sharedWithout("FORGE_ADMIN_TOKEN", "admin-token")
}

// sharedWithout refuses a setting that is missing where the database may have other
// processes, which would make another value for themselves, and says how it is set.
func (c Common) sharedWithout(variable, file string) error {
	if scheme, _, _ := strings.Cut(c.DatabaseURL, ":"); scheme != "postgres" && scheme != "postgresql" {
		return nil
	}
	path := filepath.Join(c.DataDir, file)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%s is missing: all processes on one PostgreSQL must have the same; %s has what was used here before: set %s_FILE=%s", variable, path, variable, path)
	}
	return fmt.Errorf("%s is missing: all processes on one PostgreSQL must have the same; make it by forge secret new", variable)
}

// kept is what a file in the data directory holds. One that is not there is made,
// for its owner only, and by one process if several start at once; "" where fresh is nil.
func (c Common) kept(name string, fresh func() string) (string, error) {
	path := filepath.Join(c.DataDir, name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if fresh == nil {
			return "", nil
		}
		if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
			return "", fmt.Errorf("data directory (FORGE_DATA_DIR): %w", err)
		}
		// Written before it has its name, so that nobody reads a part of it.
		draft := path + "." + rand.Text()
		defer os.Remove(draft) //nolint:errcheck // it may not have been made
		if err := os.WriteFile(draft, []byte(fresh()+"\n"), 0o600); err != nil {
			return "", err
		}
		if err := os.Link(draft, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return "", err
	}
	kept := strings.TrimSpace(string(text))
	if kept == "" {
		return "", fmt.Errorf("%s is empty; without the file a new one is made", path)
	}
	return kept, nil
}

// NewSecret is 256 random bits in 64 hexadecimal digits.
func NewSecret() string {
	bits := make([]byte, 32)
	_, _ = rand.Read(bits) // never returns an error
	return hex.EncodeToString(bits)
}

// Keys returns the keys of secrets, the one that encrypts first. Where none is
// set, those in the data directory count, the first of which is made at first start;
// on PostgreSQL they must be set.
func (s Scheduler) Keys(c Common) ([][]byte, error) {
	return c.keys("FORGE_SECRETS_KEY", s.SecretsKey, s.SecretsKeyFile, "secrets-key", NewSecret)
}

// CheckKeys is the error that Keys would have. It makes nothing.
func (s Scheduler) CheckKeys(c Common) error {
	_, err := c.keys("FORGE_SECRETS_KEY", s.SecretsKey, s.SecretsKeyFile, "secrets-key", nil)
	return err
}

// SessionKeys returns the keys of what people have signed in with, as Keys does.
func (g Gateway) SessionKeys(c Common) ([][]byte, error) {
	return c.keys("FORGE_SESSIONS_KEY", g.SessionsKey, "", "sessions-key", NewSecret)
}

// CheckSessionKeys is the error that SessionKeys would have where people sign in. It makes
// nothing.
func (g Gateway) CheckSessionKeys(c Common) error {
	if g.OAuthClientID == "" {
		return nil
	}
	_, err := c.keys("FORGE_SESSIONS_KEY", g.SessionsKey, "", "sessions-key", nil)
	return err
}

// OpenLinks reports whether a build's address is enough to see the build.
func (g Gateway) OpenLinks() bool {
	return g.BuildLinks == "open" || g.BuildLinks == "" && g.OAuthClientID == ""
}

// keys are those that a setting holds, or its file, or one that is kept in the data
// directory; none where that would have to be made and fresh is nil.
func (c Common) keys(variable, value, file, name string, fresh func() string) ([][]byte, error) {
	text, err := settings.FromFile(value, file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	if text == "" && file == "" {
		if err := c.sharedWithout(variable, name); err != nil {
			return nil, err
		}
		if text, err = c.kept(name, fresh); err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		if text == "" {
			return nil, nil
		}
	}
	var keys [][]byte
	for n, digits := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		key, err := hex.DecodeString(digits)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("%s: key %d is not of 64 hexadecimal digits; forge secret new makes one", variable, n+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s_FILE: %s holds no key", variable, file)
	}
	return keys, nil
}

// Database says which database a room opens.
func (c Common) Database(room string, migrations fs.FS, log *slog.Logger) sqldb.Config {
	return sqldb.Config{URL: c.DatabaseURL, Dir: c.DataDir, Room: room, Migrations: migrations, Log: log}
}

// Key returns the GitHub App, or which of its settings is missing and where to
// get it.
func (a App) Key() (github.App, error) {
	const page = "the App's settings page on GitHub (Settings → Developer settings → GitHub Apps)"
	if a.GitHubAppID == 0 {
		return github.App{}, fmt.Errorf("FORGE_GITHUB_APP_ID is missing: it is the number \"App ID\" on %s", page)
	}
	key, err := settings.FromFile(a.GitHubPrivateKey, a.GitHubPrivateKeyFile)
	if err != nil {
		return github.App{}, fmt.Errorf("FORGE_GITHUB_PRIVATE_KEY: %w", err)
	}
	if key == "" {
		return github.App{}, fmt.Errorf("FORGE_GITHUB_PRIVATE_KEY_FILE is missing: make a key under \"Private keys\" on %s and name the downloaded file", page)
	}
	return github.App{ID: a.GitHubAppID, Key: []byte(key), KeyFile: a.GitHubPrivateKeyFile}, nil
}

// Secrets returns the webhook secrets, or says where to get one.
func (g Gateway) Secrets() ([]string, error) {
	if len(g.WebhookSecrets) == 0 {
		return nil, errors.New("FORGE_WEBHOOK_SECRETS is missing: make up a long random secret and enter the same under \"Webhook secret\" " +
			"on the App's settings page on GitHub (Settings → Developer settings → GitHub Apps)")
	}
	return g.WebhookSecrets, nil
}

// Server says how a room that runs apart serves gRPC at address; who may call
// what is left for the caller to add. It refuses an address beyond loopback where
// the others could not prove themselves.
func (r Rooms) Server(room, address, admin string, tel *telemetry.Telemetry) (rpc.Config, error) {
	config, err := r.tls()
	if err != nil {
		return rpc.Config{}, err
	}
	proven := len(r.RoomTokens) > 0 || config != nil && config.ClientCAs != nil
	if !proven && !loopback(address) {
		return rpc.Config{}, fmt.Errorf("FORGE_GRPC_ADDRESS is %s, which others can reach: set FORGE_ROOM_TOKENS, "+
			"or FORGE_TLS_CERT, FORGE_TLS_KEY and FORGE_TLS_CA, so that services can prove themselves", address)
	}
	return rpc.Config{
		Name: room, AdminToken: admin, RoomTokens: r.RoomTokens, TLS: config, TrustLoopback: !proven,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	}, nil
}

// patience is how long a call of another room waits for a connection: longer than
// a service takes to start again, so that a restart costs a delay and no failure;
// shorter than what any caller allows for the whole call, which so is still told
// why there is no connection, frees its worker and tries again later.
const patience = 5 * time.Second

// Peer says how a room that runs apart calls the others.
func (r Rooms) Peer(room string, tel *telemetry.Telemetry) (rpc.Peer, error) {
	config, err := r.tls()
	if err != nil {
		return rpc.Peer{}, err
	}
	return rpc.Peer{Room: room, Token: r.RoomToken, TLS: config, Patience: patience, Tracer: tel.Tracer, Meter: tel.Meter}, nil
}

// tls returns the configuration for both directions; nil where TLS is not set.
func (r Rooms) tls() (*tls.Config, error) {
	if r.Certificate == (Certificate{}) {
		return nil, nil //nolint:nilnil // nil is gRPC's own word for no TLS
	}
	config, authority, err := r.load()
	if err != nil || authority == nil {
		return config, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	// A caller without a certificate is a person with the admin token.
	config.RootCAs, config.ClientCAs, config.ClientAuth = pool, pool, tls.VerifyClientCertIfGiven
	return config, nil
}

// load reads the files; authority is PEM, nil where none is set.
func (c Certificate) load() (config *tls.Config, authority []byte, err error) {
	if c.TLSCert == "" || c.TLSKey == "" {
		return nil, nil, errors.New("FORGE_TLS_CERT and FORGE_TLS_KEY go together: set both")
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, nil, fmt.Errorf("FORGE_TLS_CERT and FORGE_TLS_KEY: %w", err)
	}
	config = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.TLSCA == "" {
		return config, nil, nil
	}
	if authority, err = os.ReadFile(c.TLSCA); err != nil {
		return nil, nil, fmt.Errorf("FORGE_TLS_CA: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(authority) {
		return nil, nil, fmt.Errorf("FORGE_TLS_CA: %s holds no PEM certificate", c.TLSCA)
	}
	return config, authority, nil
}

// Until is when the certificate ends.
func (c Certificate) Until() (time.Time, error) {
	config, _, err := c.load()
	if err != nil {
		return time.Time{}, err
	}
	return config.Certificates[0].Leaf.NotAfter, nil
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
