package wire_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// measured is what Prometheus has of a Forge: each metric's series, as their labels.
type measured map[string][]map[string]string

// scrape asks each service of Forge for its metrics, as Prometheus does.
func (s *server) scrape(t *testing.T) (text string, all measured) {
	t.Helper()
	addresses, scheme := slices.Collect(maps.Values(s.apart)), "http"
	if s.apart == nil {
		addresses = []string{s.grpc}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if s.tls != nil {
		scheme, transport.TLSClientConfig = "https", &tls.Config{RootCAs: s.tls.RootCAs, NextProtos: []string{"h2", "http/1.1"}}
	}
	defer transport.CloseIdleConnections()
	var told strings.Builder
	for _, address := range addresses {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if kind := answer.Header.Get("Content-Type"); err != nil || answer.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "application/openmetrics-text") {
			t.Fatalf("%s answers %s, %s, %v: %s", address, answer.Status, kind, err, body)
		}
		if !strings.HasSuffix(string(body), "# EOF\n") {
			t.Errorf("%s answers no whole OpenMetrics", address)
		}
		told.Write(body)
	}
	return told.String(), readMetrics(t, told.String())
}

// readMetrics reads what Prometheus is told.
func readMetrics(t *testing.T, text string) measured {
	t.Helper()
	line := regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+(?: # .*)?$`)
	label := regexp.MustCompile(`([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"`)
	all := measured{}
	for one := range strings.Lines(text) {
		one = strings.TrimSuffix(one, "\n")
		if strings.HasPrefix(one, "#") {
			continue
		}
		found := line.FindStringSubmatch(one)
		if found == nil {
			t.Fatalf("no metric: %q", one)
		}
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(found[2], -1) {
			labels[l[1]] = l[2]
		}
		all[found[1]] = append(all[found[1]], labels)
	}
	return all
}

// has reports whether a series has such a label.
func (m measured) has(name, label, value string) bool {
	return slices.ContainsFunc(m[name], func(labels map[string]string) bool { return labels[label] == value })
}

// busy is a Forge that has done a little of everything. It has been asked by strangers for
// what is not there, too.
func busy(t *testing.T, d deployment) *world {
	w := newWorld(t, map[string]string{".forge.yml": lines(
		"image: busybox", "execute:", "  - {name: print, run: 'echo hello'}", "  - {name: fail, run: 'test ! -e broken'}",
	)})
	w.deploy(t, d)
	w.awaitServing(t)
	_, good := w.propose(t, "good", files("greeting", "hello\n"))
	w.shows(t, good, "forge/test", "success")
	_, bad := w.propose(t, "bad", files("broken", "\n"))
	w.shows(t, bad, "forge/test", "failure")
	for _, ask := range []struct{ method, path, host string }{
		{http.MethodGet, "/builds/x-of-a-stranger", ""},
		{"BREW", "/v1/listen", ""},
		{http.MethodPost, "/v1/listen", "host-of-a-stranger"},
		{http.MethodGet, "/path-of-a-stranger/and/more", ""},
		{http.MethodGet, "/v1/builds/id-of-a-stranger", ""},
	} {
		request, err := http.NewRequestWithContext(t.Context(), ask.method, w.http+ask.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = ask.host
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	for room := range w.apart { // and a method that nobody serves
		err := w.dial(t, room).Invoke(t.Context(), "/service-of-a-stranger/Call", &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", room, err)
		}
	}
	return w
}

// No name of a repository or a person, no id, and nothing that a stranger has said is a
// label: there are as many series in a year as there are in a week.
func TestMetricsHaveFewLabels(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true, certificates: true}} {
		t.Run(fmt.Sprintf("apart %t", d.apart), func(t *testing.T) {
			w := busy(t, d)
			text, all := w.scrape(t)
			allowed := map[string]bool{"le": true, "quantile": true, "version": true}
			for _, key := range telemetry.Labels() {
				allowed[strings.ReplaceAll(string(key), ".", "_")] = true
			}
			series := 0
			for name, points := range all {
				series += len(points)
				if name == "target_info" {
					continue
				}
				for _, labels := range points {
					for label := range labels {
						if !allowed[label] {
							t.Errorf("%s has the label %s", name, label)
						}
					}
				}
			}
			for _, never := range []string{owner, repo, "stranger", "busybox", "octocat", "127.0.0.1"} {
				if at := strings.Index(text, never); at >= 0 {
					t.Errorf("%q is told: …%s…", never, text[max(0, at-200):min(len(text), at+100)])
				}
			}
			if id := regexp.MustCompile(`="[0-9a-f-]{20,}"|[a-z]="\d{4,}"`).FindString(text); id != "" {
				t.Errorf("an id is told: %s", id)
			}
			t.Logf("%d series of %d metrics", series, len(all))
		})
	}
}

// Each metric and label that a dashboard or a rule asks for is there. What is asked for and
// never comes would be an empty graph, and an alert that stays silent.
func TestDashboardAndRulesAskForWhatIsMeasured(t *testing.T) {
	w := busy(t, deployment{apart: true, certificates: true})
	var all measured
	kittest.Eventually(t, patience, func() error { // the last call of GitHub is counted after GitHub shows it
		if _, all = w.scrape(t); !all.has("forge_reporter_calls_total", "outcome", "done") {
			return errors.New("no call is counted")
		}
		return nil
	})
	for from, expressions := range map[string][]string{"rules": rules(t), "dashboard": dashboard(t)} {
		if len(expressions) < 10 {
			t.Errorf("%s: %d expressions", from, len(expressions))
		}
		for _, expression := range expressions {
			for _, wrong := range all.lacks(readQuery(expression)) {
				t.Errorf("%s: %s: %s", from, expression, wrong)
			}
		}
	}
}
