package image_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/forge-ci/forge/services/scheduler/image"
)

// A secret is where a command reads it, and nowhere else.
func TestASecretIsInNoLayerNoHistoryAndNoLog(t *testing.T) {
	onBoth(t, aSecretIsInNoLayerNoHistoryAndNoLog)
}

func aSecretIsInNoLayerNoHistoryAndNoLog(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	tag := r.registry.name("acme/web:1")
	const secret = "correct horse battery"
	files := workspace{"Dockerfile": "FROM " + base + `
RUN --mount=type=secret,id=TOKEN test "$(cat /run/secrets/TOKEN)" = "` + "correct ${NOTHING}horse battery" + `"
RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; head -c 9 /run/secrets/TOKEN; sleep 0.3; tail -c +10 /run/secrets/TOKEN
RUN ls /run/secrets 2>/dev/null; echo done > /done
`}
	_, log := r.build(t, r.request(pushing(tag), func(q *image.Request) { q.Secrets = map[string][]byte{"TOKEN": []byte(secret)} }), files)
	if strings.Contains(log, secret) || !strings.Contains(log, "***") {
		t.Errorf("log:\n%s", log)
	}
	for platform, img := range r.registry.images(t, tag, authn.Anonymous) {
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(config)
		if err != nil || strings.Contains(string(text), secret) {
			t.Errorf("%s: configuration %s, %v", platform, text, err)
		}
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, layer := range layers {
			from, err := layer.Uncompressed()
			if err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(from)
			if err != nil || bytes.Contains(all, []byte(secret)) {
				t.Errorf("%s: a layer has it, %v", platform, err)
			}
		}
	}
	failing := workspace{"Dockerfile": "FROM " + base + "\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN >&2; exit 1\n"}
	var out bytes.Buffer
	_, err := r.builder.Build(t.Context(), r.request(func(q *image.Request) { q.Secrets = map[string][]byte{"TOKEN": []byte(secret)} }), failing.on(t), &out)
	if err == nil || strings.Contains(err.Error()+out.String(), secret) {
		t.Errorf("%v\n%s", err, out.String())
	}
	if got := refused(t, r.builder, r.request(), failing.on(t)); !strings.Contains(got, "TOKEN") {
		t.Errorf("without a secret: %q", got)
	}
}

// What one tier has run, another runs anew, though every instruction is the same.
func TestNoTierTakesWhatAnotherHasRun(t *testing.T) { onBoth(t, noTierTakesWhatAnotherHasRun) }

func noTierTakesWhatAnotherHasRun(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	files := workspace{"Dockerfile": "FROM " + base + "\nRUN --mount=type=cache,target=/c cat /c/who 2>/dev/null; cat /proc/sys/kernel/random/uuid | tee /id >> /c/who\n"}
	built := func(tier, repository string) (id, log string) {
		tag := r.registry.name("acme/" + repository + ":" + strings.ReplaceAll(tier, "/", "-"))
		_, log = r.build(t, r.request(pushing(tag), func(q *image.Request) { q.Tier = tier }), files)
		id = content(t, r.registry.images(t, tag, authn.Anonymous)["linux/amd64"], "id")
		return strings.TrimSpace(id), log
	}
	fork, _ := built("1/fork/7", "web")
	if again, log := built("1/fork/7", "web"); again != fork || !strings.Contains(log, "CACHED") {
		t.Errorf("the same tier ran it again: %q, %q\n%s", fork, again, log)
	}
	ids := map[string]string{fork: "1/fork/7"}
	for _, tier := range []string{"1/merged", "1/pull/7", "1/environment/production", "2/merged"} {
		id, log := built(tier, "web")
		if before, taken := ids[id]; taken || id == "" {
			t.Errorf("%s has %q of %s", tier, id, before)
		}
		for other, of := range ids {
			if strings.Contains(log, other) {
				t.Errorf("%s reads the cache mount of %s:\n%s", tier, of, log)
			}
		}
		ids[id] = tier
	}
}

// BuildKit believes size and time of a file that it was sent before. Another tier's
// file of the same size and time is another file.
// What runs beside a command could talk to it, and answer in the place of what it asks.
func TestCommandsOfTwoTiersNeverRunAtOnce(t *testing.T) { onBoth(t, commandsOfTwoTiersNeverRunAtOnce) }

func commandsOfTwoTiersNeverRunAtOnce(t *testing.T, r *rig) {
	t.Helper()
	base := r.registry.base(t, "base:1")
	began, ended := &marked{mark: "has begun", seen: make(chan struct{})}, make(chan error, 1)
	go func() {
		_, err := r.builder.Build(t.Context(), r.request(), workspace{"Dockerfile": "FROM " + base + "\nRUN echo has begun " + rand() + "; sleep 3; date +%s.%N\n"}.on(t), began)
		ended <- err
	}()
	<-began.seen
	var log bytes.Buffer
	foreign := r.request(func(q *image.Request) { q.Tier = "1/fork/7" })
	if _, err := r.builder.Build(t.Context(), foreign, workspace{"Dockerfile": "FROM " + base + "\nRUN echo runs, too " + rand() + "\n"}.on(t), &log); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(log.String(), "it waits for the image of another build") {
			t.Errorf("%v, %s", err, &log)
		}
	default:
		t.Error("the fork's has run before the other had ended")
	}
}

// marked is a log that tells when a command has printed its mark.
type marked struct {
	bytes.Buffer
	mark string
	seen chan struct{}
	once sync.Once
}

func (m *marked) Write(piece []byte) (int, error) {
	n, err := m.Buffer.Write(piece)
	for line := range strings.Lines(m.String()) {
		if strings.Contains(line, m.mark) && !strings.Contains(line, "RUN") {
			m.once.Do(func() { close(m.seen) })
		}
	}
	return n, err
}

func TestNoTierTakesFilesThatAnotherHasSent(t *testing.T) {
	onBoth(t, noTierTakesFilesThatAnotherHasSent)
}

func noTierTakesFilesThatAnotherHasSent(t *testing.T, r *rig) {
	t.Helper()
	tags := map[string]string{}
	for _, tier := range []string{"1/fork/7", "1/merged"} {
		files := workspace{"Dockerfile": "FROM scratch\nCOPY file /file\n", "file": "of " + tier[:5]}.on(t)
		setTimes(t, files.root)
		tag := r.registry.name("acme/web:" + strings.ReplaceAll(tier, "/", "-"))
		if _, err := r.builder.Build(t.Context(), r.request(pushing(tag), func(q *image.Request) { q.Tier = tier }), files, io.Discard); err != nil {
			t.Fatal(err)
		}
		tags[tier] = tag
	}
	for tier, tag := range tags {
		if text := content(t, r.registry.images(t, tag, authn.Anonymous)["linux/amd64"], "file"); text != "of "+tier[:5] {
			t.Errorf("%s has the file %q", tier, text)
		}
	}
}
