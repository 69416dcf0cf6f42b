package services_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// Each BuildKit that deploy/ has is the same release, without root on its machine, keeps what it runs from
// itself, and where it is reached over TCP, knows who may drive it.
func TestBuildKitsOfDeployAreKeptFromWhatTheyRun(t *testing.T) {
	var releases []string
	for _, file := range []string{"compose.yaml", "swarm/buildkit.yaml", "kubernetes/buildkit.yaml"} {
		text, err := os.ReadFile(filepath.Join("../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var document map[string]any
			if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		found := regexp.MustCompile(`moby/buildkit:(v[0-9.]+)(-rootless)?`).FindAllStringSubmatch(string(text), -1)
		if len(found) != 1 {
			t.Fatalf("%s names %q", file, found)
		}
		releases = append(releases, found[0][1])
		said := string(text)
		ofThePod := strings.Contains(said, "hostUsers: false")
		if strings.Contains(said, "no-process-sandbox") || !ofThePod && (strings.Contains(said, "privileged: true") || found[0][2] == "") {
			t.Errorf("%s lets a RUN reach the daemon, or the host", file)
		}
		if strings.Contains(said, "tcp://0.0.0.0") {
			for _, flag := range []string{"--tlscacert=", "--tlscert=", "--tlskey="} {
				if !strings.Contains(said, flag) {
					t.Errorf("%s lets anybody drive it: it has no %s", file, flag)
				}
			}
		}
	}
	for _, release := range releases {
		if release != releases[0] {
			t.Errorf("releases differ: %q", releases)
		}
	}
}
