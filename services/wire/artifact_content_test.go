package wire_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
)

// A program fetches by HTTP what a build of a private repository has left, with a token of
// somebody who may read it, until its time is over.
func TestArtifactsAreFetchedByHTTPWithAPersonalToken(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}} {
		t.Run(d.String(), func(t *testing.T) {
			w := newWorld(t, map[string]string{
				".forge.yml": lines(
					"image: busybox", "jobs:",
					"  one: {execute: 'mkdir dist; echo of one >dist/out', artifacts: [{name: dist, paths: [dist]}]}",
					"  two: {execute: 'mkdir dist; echo of two >dist/out; echo \"<script>\" >dist/out.html', artifacts: [{name: dist, paths: [dist]}, {name: page, paths: [dist/out.html]}]}",
				),
			})
			w.env = append(w.env, "FORGE_OAUTH_CLIENT_ID=client", "FORGE_OAUTH_CLIENT_SECRET=hush")
			w.sim.SetOAuth(githubsim.OAuth{ClientID: "client", ClientSecret: "hush", DeviceFlow: true})
			must(t, w.sim.SetPermission(owner, repo, "rita", "read"))
			must(t, w.sim.AddRepository(githubsim.Repository{Owner: owner, Name: "other", Files: map[string]string{"a": "a"}}))
			must(t, w.sim.SetPermission(owner, "other", "stan", "admin"))
			w.deploy(t, d)
			_, sha := w.propose(t, "change", files("a", "1\n"))
			whole := w.shows(t, sha, "forge/test", "success").TargetURL
			id := whole[strings.LastIndex(whole, "/")+1:]
			job := w.shows(t, sha, "forge/test/one", "success").TargetURL
			rita, stan := personal(t, w, "rita"), personal(t, w, "stan")
			scheduler := w.grpc
			if d.apart {
				scheduler = w.apart["scheduler"]
			}
			made, err := w.verb(t, "tokens", "create", "chat-bot", "--repo="+owner+"/other", "--expires=90d", "--grpc-address="+scheduler)
			must(t, err)

			path := "/v1/builds/" + id + "/artifacts/dist/content"
			for query, want := range map[string]string{"?file=dist/out&job=one": "of one\n", "?file=dist/out&job=two": "of two\n"} {
				if code, text, _ := fetchContent(t, w, http.MethodGet, path+query, rita, ""); code != http.StatusOK || text != want {
					t.Errorf("%s: %d %q", query, code, text)
				}
			}
			if code, text, _ := fetchContent(t, w, http.MethodGet, "/v1/builds/"+job[strings.LastIndex(job, "/")+1:]+"/artifacts/dist/content?file=dist/out", rita, ""); code != http.StatusOK || text != "of one\n" {
				t.Errorf("of the job: %d %q", code, text)
			}
			if code, text, _ := fetchContent(t, w, http.MethodGet, path+"?file=dist/out&job=two", rita, "bytes=3-5"); code != http.StatusPartialContent || text != "two" {
				t.Errorf("a part: %d %q", code, text)
			}
			if code, text, h := fetchContent(t, w, http.MethodHead, path+"?file=dist/out&job=two", rita, ""); code != http.StatusOK || text != "" || h.Get("Content-Length") != "7" {
				t.Errorf("its headers: %d %q %v", code, text, h)
			}
			html := "/v1/builds/" + id + "/artifacts/page/content?file=dist/out.html"
			if code, _, h := fetchContent(t, w, http.MethodGet, html, rita, ""); code != http.StatusOK || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") || h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" {
				t.Errorf("what a browser would run: %d %v", code, h)
			}
			if code, text, _ := fetchContent(t, w, http.MethodGet, path, rita, ""); code != http.StatusBadRequest || !strings.Contains(text, "which is one of one, two") {
				t.Errorf("of two jobs: %d %s", code, text)
			}
			for name, want := range map[string]string{"page": `"dist/out.html"`, "dist": "several jobs of build " + id + " have left", "none": "has no artifact"} {
				if _, text, _ := fetchContent(t, w, http.MethodGet, "/v1/builds/"+id+"/artifacts/"+name+"/files", rita, ""); !strings.Contains(text, want) {
					t.Errorf("files of %s: %s", name, text)
				}
			}
			for name, c := range map[string]struct {
				token string
				code  int
			}{
				"nobody": {"", http.StatusUnauthorized}, "stan": {stan, http.StatusForbidden},
				"another repository's token": {strings.TrimSpace(made), http.StatusUnauthorized}, "the admin": {adminToken, http.StatusOK},
			} {
				if code, text, _ := fetchContent(t, w, http.MethodGet, html, c.token, ""); code != c.code {
					t.Errorf("%s: %d %s", name, code, text)
				}
			}
			if code, text, _ := fetchContent(t, w, http.MethodGet, "/v1/builds/"+id+"/artifacts/none/content", rita, ""); code != http.StatusNotFound {
				t.Errorf("of another name: %d %s", code, text)
			}
			expireArtifacts(t, w)
			kittest.Eventually(t, patience, func() error {
				if code, text, _ := fetchContent(t, w, http.MethodGet, html, rita, ""); code != http.StatusNotFound || !strings.Contains(text, "the time for which it was kept is over") {
					return fmt.Errorf("past its time: %d %s", code, text)
				}
				return nil
			})
		})
	}
}

// fetchContent asks for what a build has left, or a range of it.
func fetchContent(t *testing.T, w *world, method, path, token, ranges string) (code int, body string, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.http+path, http.NoBody)
	must(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	all, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(all), answer.Header
}

// expireArtifacts has the time of all artifacts be over.
func expireArtifacts(t *testing.T, w *world) {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(w.dir, "*", "scheduler*"))
	must(t, err)
	if len(folders) == 0 {
		t.Fatal("the scheduler's database is not found")
	}
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: filepath.Dir(folders[0]), Room: "scheduler", Migrations: scheduler.Migrations()})
	must(t, err)
	defer db.Close()
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE contents SET expire_time = $1 WHERE kind = 2`, sqldb.Micros(time.Now().Add(-time.Hour)))
		return err
	}))
}
