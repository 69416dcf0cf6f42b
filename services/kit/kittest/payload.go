package kittest

import (
	"embed"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed payloads/*.json
var examples embed.FS

// ExamplePayloads are payloads of webhooks by event and action, like
// "pull_request.opened", written after
// https://docs.github.com/webhooks/webhook-events-and-payloads. They have every kind
// of event that Forge decodes, and some that it does not.
func ExamplePayloads(t testing.TB) map[string][]byte {
	t.Helper()
	return payloads(t, examples, "payloads")
}

// RealPayloads are payloads that GitHub sent, named as in ExamplePayloads. They need
// Require(t, "payloads") before; without them there are none.
func RealPayloads(t testing.TB) map[string][]byte {
	t.Helper()
	folder := payloadFolder()
	if folder == "" {
		return nil
	}
	return payloads(t, os.DirFS(folder), ".")
}

func payloads(t testing.TB, files fs.FS, folder string) map[string][]byte {
	t.Helper()
	names, err := fs.Glob(files, path.Join(folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(path.Base(name), ".json")] = content
	}
	return found
}

// payloadFolder is where real payloads lie: TEST_PAYLOADS, or shared/webhooks beside
// this repository; "" for nowhere.
func payloadFolder() string {
	folder := os.Getenv("TEST_PAYLOADS")
	if folder == "" {
		root, err := os.Getwd()
		if err != nil {
			return ""
		}
		for !isFile(filepath.Join(root, "go.work")) {
			if root == filepath.Dir(root) {
				return ""
			}
			root = filepath.Dir(root)
		}
		folder = filepath.Join(root, "..", "shared", "webhooks")
	}
	if files, err := filepath.Glob(filepath.Join(folder, "*.json")); err != nil || len(files) == 0 {
		return ""
	}
	return folder
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
