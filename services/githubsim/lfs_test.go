package githubsim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
)

const lfsType = "application/vnd.git-lfs+json"

type lfsAnswer struct {
	Message string `json:"message"`
	Objects []struct {
		Error *struct {
			Code int `json:"code"`
		} `json:"error"`
		Actions struct {
			Download *struct {
				Href      string    `json:"href"`
				ExpiresIn int       `json:"expires_in"`
				ExpiresAt time.Time `json:"expires_at"`
			} `json:"download"`
		} `json:"actions"`
	} `json:"objects"`
}

// batch asks for objects of a repository.
func (w *world) batch(token, path, body string) (status int, told lfsAnswer, header http.Header) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/"+path+"/info/lfs/objects/batch", strings.NewReader(body))
	w.must(err)
	req.Header.Set("Accept", lfsType)
	req.Header.Set("Content-Type", lfsType+"; charset=utf-8")
	if token != "" {
		req.SetBasicAuth("x-access-token", token)
	}
	answer, err := http.DefaultClient.Do(req)
	w.must(err)
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != lfsType {
		w.t.Errorf("answered as %s", kind)
	}
	w.must(json.NewDecoder(answer.Body).Decode(&told))
	return answer.StatusCode, told, answer.Header
}

func (w *world) download(address, token string) (status int, content string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, address, nil)
	w.must(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(req)
	w.must(err)
	defer answer.Body.Close()
	return answer.StatusCode, readAll(w.t, answer.Body)
}

func lfsWant(operation string, objects ...string) string {
	return `{"operation": "` + operation + `", "transfers": ["basic"], "objects": [` + strings.Join(objects, ", ") + `]}`
}

func TestLargeFilesAreDownloaded(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("large ", 1000)
	pointer, err := w.sim.PutLFS("acme", "shop", []byte(content))
	w.must(err)
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	if want := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 6000\n"; pointer != want {
		t.Errorf("got pointer %q, want %q", pointer, want)
	}
	w.commit("main", map[string]string{"large.bin": pointer, ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})

	object := `{"oid": "` + oid + `", "size": 6000}`
	status, told, _ := w.batch(w.token(nil), "acme/shop.git", lfsWant("download", object, `{"oid": "`+strings.Repeat("0", 64)+`", "size": 1}`,
		`{"oid": "../x", "size": 1}`, `{"oid": "`+oid+`", "size": 1}`))
	if status != http.StatusOK || len(told.Objects) != 4 {
		t.Fatalf("got %d, %v", status, told)
	}
	one := told.Objects[0].Actions.Download
	if one == nil || one.ExpiresIn <= 0 || !one.ExpiresAt.Equal(w.clock.Now().Add(time.Duration(one.ExpiresIn)*time.Second)) {
		t.Fatalf("got %v", told.Objects[0])
	}
	for i, code := range map[int]int{1: 404, 2: 422, 3: 422} {
		if problem := told.Objects[i].Error; problem == nil || problem.Code != code || told.Objects[i].Actions.Download != nil {
			t.Errorf("object %d: got %v, want error %d", i, problem, code)
		}
	}
	if status, got := w.download(one.Href, ""); status != http.StatusOK || got != content {
		t.Errorf("got %d and %d bytes", status, len(got))
	}
	if status, said := w.download(one.Href, w.token(nil)); status != http.StatusBadRequest {
		t.Errorf("with a token beside the signature: got %d %s", status, said)
	}
	if status, _ := w.download(one.Href+"x", ""); status != http.StatusForbidden {
		t.Errorf("with another signature: got %d", status)
	}
	w.must(w.sim.DropLFS("acme", "shop", pointer))
	if status, _ := w.download(one.Href, ""); status != http.StatusNotFound {
		t.Errorf("once it is dropped: got %d", status)
	}
	w.clock.advance(time.Hour)
	if status, _ := w.download(one.Href, ""); status != http.StatusForbidden {
		t.Errorf("an hour later: got %d", status)
	}
}

func TestLargeFilesAskWhoCalls(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "open", Public: true}))
	token, want := w.token(nil), lfsWant("download", `{"oid": "`+strings.Repeat("0", 64)+`", "size": 1}`)
	for name, test := range map[string]struct {
		token, path, body string
		status            int
	}{
		"as the installation": {token, "acme/shop.git", want, 200},
		"without .git":        {token, "acme/shop", want, 200},
		"nobody":              {"", "acme/shop.git", want, 401},
		"nobody, public":      {"", "acme/open.git", want, 200},
		"an invented token":   {"ghs_invented", "acme/shop.git", want, 401},
		"not installed":       {token, "zeta/other.git", want, 404},
		"upload":              {token, "acme/shop.git", lfsWant("upload", `{"oid": "x", "size": 1}`), 403},
		"another operation":   {token, "acme/shop.git", lfsWant("delete", `{"oid": "x", "size": 1}`), 422},
		"no objects":          {token, "acme/shop.git", lfsWant("download"), 422},
		"no JSON":             {token, "acme/shop.git", "{", 400},
		"another hash":        {token, "acme/shop.git", `{"operation": "download", "hash_algo": "md5"}`, 409},
	} {
		t.Run(name, func(t *testing.T) {
			status, told, header := w.batch(test.token, test.path, test.body)
			if status != test.status || (told.Message == "") != (status == http.StatusOK) {
				t.Errorf("got %d %q, want %d", status, told.Message, test.status)
			}
			if (header.Get("Lfs-Authenticate") != "") != (status == http.StatusUnauthorized) {
				t.Errorf("LFS-Authenticate %q with %d", header.Get("Lfs-Authenticate"), status)
			}
		})
	}
}

// A fork has the objects of what it was forked from.
func TestForkSharesLargeFiles(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.Fork("acme", "shop", "mallory"))
	pointer, err := w.sim.PutLFS("mallory", "shop", []byte("from the fork"))
	w.must(err)
	_, oid, _ := strings.Cut(strings.Split(pointer, "\n")[1], ":")
	_, told, _ := w.batch(w.token(nil), "acme/shop.git", lfsWant("download", `{"oid": "`+oid+`", "size": 13}`))
	if len(told.Objects) != 1 || told.Objects[0].Error != nil {
		t.Errorf("got %v", told)
	}
}
