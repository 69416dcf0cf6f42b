package github

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

func TestKeyIsReadAnewWhenItsFileChanges(t *testing.T) {
	var keys []*rsa.PrivateKey
	var texts [][]byte
	for range 2 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		texts = append(texts, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	}
	signedBy := -1
	url, _ := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		signedBy = -1
		for n, key := range keys {
			_, err := jwt.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
			if err == nil {
				signedBy = n
			}
		}
		_, _ = w.Write([]byte(`{}`))
	})
	path := filepath.Join(t.TempDir(), "app.pem")
	var log bytes.Buffer
	base := NewTransport()
	t.Cleanup(base.CloseIdleConnections)
	client, err := NewApp(Config{APIURL: url, Base: base, Log: slog.New(slog.NewTextHandler(&log, nil))}, App{ID: 42, Key: texts[0], KeyFile: path})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for _, c := range []struct {
		name string
		file []byte // nil: none
		want int
		says string
	}{
		{"no file any more", nil, 0, ""},
		{"the same key", texts[0], 0, ""},
		{"half of a key", texts[1][:500], 0, "level=WARN msg=\"the App's new key is not taken"},
		{"another key", texts[1], 1, "level=INFO msg=\"the App's key is read anew\""},
		{"no change", texts[1], 1, ""},
		{"nonsense", []byte("s3cret"), 1, "level=WARN"},
		{"the first again, its line ends escaped", bytes.ReplaceAll(texts[0], []byte("\n"), []byte(`\n`)), 0, "level=INFO"},
	} {
		log.Reset()
		at = at.Add(time.Second)
		_ = os.Remove(path)
		if c.file != nil {
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // said once
			if _, _, err := client.Apps.Get(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			if signedBy != c.want {
				t.Errorf("%s: signed by key %d, want %d", c.name, signedBy, c.want)
			}
		}
		if (log.Len() == 0) != (c.says == "") || !strings.Contains(log.String(), c.says) || strings.Count(log.String(), "\n") > 1 {
			t.Errorf("%s: logged %q, want once %q", c.name, &log, c.says)
		}
		if strings.Contains(log.String(), "PRIVATE") || strings.Contains(log.String(), "s3cret") {
			t.Errorf("%s: the log shows the key", c.name)
		}
	}
}
