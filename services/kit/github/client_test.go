package github

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v4"
	gogithub "github.com/google/go-github/v62/github"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// tokens hands out token-1, and the next one each time one is expired.
type tokens struct {
	mu      sync.Mutex
	number  int
	expired []string
	err     error
}

func (s *tokens) Token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("token-%d", s.number+1), s.err
}

func (s *tokens) Expire(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = append(s.expired, token)
	s.number++
}

// received is what a fake GitHub was sent.
type received struct {
	mu    sync.Mutex
	calls []string // "method path authorization body"
}

func (r *received) add(req *http.Request) int {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", req.Method, req.URL.Path, req.Header.Get("Authorization"), body)))
	return len(r.calls)
}

func (r *received) want(t *testing.T, calls ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.calls, calls) {
		t.Errorf("GitHub received\n  %s\nwant\n  %s", strings.Join(r.calls, "\n  "), strings.Join(calls, "\n  "))
	}
}

// fakeGitHub answers the numbered call, counted from 1.
func fakeGitHub(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, call int)) (string, *received) {
	t.Helper()
	got := &received{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, got.add(r))
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func newClient(t *testing.T, url string, source TokenSource) *gogithub.Client {
	t.Helper()
	base := NewTransport()
	t.Cleanup(base.CloseIdleConnections)
	client, err := New(Config{APIURL: url, Tokens: source, Log: kittest.Log(t), Base: base})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestTokenIsRenewedOnceAfter401AndTheCallSentAgain(t *testing.T) {
	url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, call int) {
		if call == 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	source := &tokens{}
	_, _, err := newClient(t, url+"/api/v3", source).Repositories.CreateStatus(t.Context(), "octo", "shop", "abc", &gogithub.RepoStatus{State: new("pending")})
	if err != nil {
		t.Fatal(err)
	}
	got.want(t,
		`POST /api/v3/repos/octo/shop/statuses/abc Bearer token-1 {"state":"pending"}`,
		`POST /api/v3/repos/octo/shop/statuses/abc Bearer token-2 {"state":"pending"}`)
	if !slices.Equal(source.expired, []string{"token-1"}) {
		t.Errorf("expired %v, want the first token", source.expired)
	}
}

func TestSecond401IsGivenToTheCaller(t *testing.T) {
	url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"message":"Bad credentials"}`)
	})
	_, _, err := newClient(t, url, &tokens{}).Repositories.Get(t.Context(), "octo", "shop")
	if outcome := Classify(err); outcome.Kind != fault.Unauthenticated || outcome.Retry {
		t.Errorf("outcome %+v, want unauthenticated", outcome)
	}
	got.want(t, "GET /repos/octo/shop Bearer token-1", "GET /repos/octo/shop Bearer token-2")
}

func TestWithoutATokenNothingIsSent(t *testing.T) {
	url, got := fakeGitHub(t, func(http.ResponseWriter, *http.Request, int) {})
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{
			fault.New(fault.Denied, "installation 7 is suspended"),
			Outcome{Kind: fault.Denied, Text: "no token for GitHub: installation 7 is suspended; could not read octo/shop"},
		},
		{
			errors.New("the database is gone"),
			Outcome{Kind: fault.Internal, Retry: true, Text: "no token for GitHub: the database is gone; could not read octo/shop"},
		},
	} {
		_, _, err := newClient(t, url, &tokens{err: c.err}).Repositories.Get(t.Context(), "octo", "shop")
		if outcome := Classify(err); outcome != c.want {
			t.Errorf("outcome %+v, want %+v", outcome, c.want)
		}
	}
	got.want(t)
}

func TestReadsSurviveAHiccup(t *testing.T) {
	for name, hiccup := range map[string]func(w http.ResponseWriter){
		"502":            func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"503":            func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"504":            func(w http.ResponseWriter) { w.WriteHeader(http.StatusGatewayTimeout) },
		"cut connection": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, call int) {
				if call == 1 {
					hiccup(w)
					return
				}
				_, _ = io.WriteString(w, `{"name":"shop"}`)
			})
			repository, _, err := newClient(t, url, &tokens{}).Repositories.Get(t.Context(), "octo", "shop")
			if err != nil || repository.GetName() != "shop" {
				t.Fatalf("got %v, %v", repository, err)
			}
			got.want(t, "GET /repos/octo/shop Bearer token-1", "GET /repos/octo/shop Bearer token-1")
		})
	}
}

func TestReadsGiveUpAfterThreeTries(t *testing.T) {
	url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusBadGateway) })
	_, _, err := newClient(t, url, &tokens{}).Repositories.Get(t.Context(), "octo", "shop")
	if outcome := Classify(err); outcome.Kind != fault.Unavailable || !outcome.Retry {
		t.Errorf("outcome %+v, want unavailable", outcome)
	}
	got.want(t, slices.Repeat([]string{"GET /repos/octo/shop Bearer token-1"}, 3)...)
}

func TestNotTriedAgain(t *testing.T) {
	t.Run("a change", func(t *testing.T) {
		url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusBadGateway) })
		_, _, err := newClient(t, url, &tokens{}).Repositories.CreateStatus(t.Context(), "octo", "shop", "abc", &gogithub.RepoStatus{})
		if err == nil {
			t.Error("no error of the 502")
		}
		got.want(t, "POST /repos/octo/shop/statuses/abc Bearer token-1 {}")
	})
	t.Run("an answer that says how long to wait", func(t *testing.T) {
		url, got := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		_, _, err := newClient(t, url, &tokens{}).Repositories.Get(t.Context(), "octo", "shop")
		if outcome := Classify(err); outcome.After.Seconds() != 9 {
			t.Errorf("outcome %+v, want a wait of 9 s", outcome)
		}
		got.want(t, "GET /repos/octo/shop Bearer token-1")
	})
}

func TestTarballIsFollowedWithoutTheTokenAndItsLinkStaysSecret(t *testing.T) {
	archive, fromArchive := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Query().Get("token") != "s3cret" {
			t.Errorf("the link was followed as %s", r.URL)
		}
		if strings.HasSuffix(r.URL.Path, "gone") {
			http.NotFound(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, "cut") {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "archive")
	})
	url, _ := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		ref := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if ref == "unknown" {
			http.NotFound(w, r)
			return
		}
		http.Redirect(w, r, archive+"/octo/"+ref+"?token=s3cret", http.StatusFound)
	})
	spans := tracetest.NewSpanRecorder()
	base := NewTransport()
	t.Cleanup(base.CloseIdleConnections)
	client, err := New(Config{
		APIURL: url, Tokens: &tokens{}, Base: base,
		Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	})
	if err != nil {
		t.Fatal(err)
	}

	body, err := Tarball(t.Context(), client, "octo", "shop", "abc")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || string(text) != "archive" {
		t.Errorf("read %q, %v", text, err)
	}
	fromArchive.want(t, "GET /octo/abc")

	for ref, kind := range map[string]fault.Kind{"gone": fault.NotFound, "unknown": fault.NotFound, "cut": fault.Unavailable} {
		_, err := Tarball(t.Context(), client, "octo", "shop", ref)
		if outcome := Classify(err); outcome.Kind != kind || !strings.Contains(outcome.Text, "download the source of octo/shop") {
			t.Errorf("%s: outcome %+v, want %v", ref, outcome, kind)
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v, want one without the link's token", ref, err)
		}
	}
	if len(spans.Ended()) == 0 {
		t.Error("no span")
	}
	for _, span := range spans.Ended() {
		if said := fmt.Sprint(span.Name(), span.Attributes(), span.Events(), span.Status()); strings.Contains(said, "s3cret") {
			t.Errorf("the link's token is in span %s", said)
		}
		if span.Name() != "GitHub: download the source of octo/shop" {
			t.Errorf("span %q", span.Name())
		}
	}
}

func TestTokenStaysWithTheAPIHost(t *testing.T) {
	elsewhere, got := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, call int) {
		if call == 1 {
			http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	})
	url, _ := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		http.Redirect(w, r, elsewhere+"/moved", http.StatusTemporaryRedirect)
	})
	if _, _, err := newClient(t, url, &tokens{}).Repositories.Get(t.Context(), "octo", "shop"); err != nil {
		t.Fatal(err)
	}
	got.want(t, "GET /moved", "GET /again")
}

func TestRenamedRepositoryIsFollowedWithTheToken(t *testing.T) {
	url, got := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, call int) {
		if call == 1 {
			http.Redirect(w, r, "/repositories/7/statuses/abc", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	if _, _, err := newClient(t, url, &tokens{}).Repositories.CreateStatus(t.Context(), "octo", "shop", "abc", &gogithub.RepoStatus{}); err != nil {
		t.Fatal(err)
	}
	got.want(t, "POST /repos/octo/shop/statuses/abc Bearer token-1 {}", "POST /repositories/7/statuses/abc Bearer token-1 {}")
}

func TestAppSignsWithItsKey(t *testing.T) {
	key := kittest.AppKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	for name, text := range map[string][]byte{
		"PKCS#1":            pkcs1,
		"PKCS#8":            pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"escaped line ends": []byte(strings.ReplaceAll(string(pkcs1), "\n", `\n`)),
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := fakeGitHub(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				claims := jwt.RegisteredClaims{}
				_, err := jwt.ParseWithClaims(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &claims,
					func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
				if err != nil || claims.Issuer != "42" {
					t.Errorf("JWT of %q: %v", claims.Issuer, err)
				}
				_, _ = io.WriteString(w, `{"slug":"forge"}`)
			})
			base := NewTransport()
			t.Cleanup(base.CloseIdleConnections)
			client, err := NewApp(Config{APIURL: url + "/", Base: base}, App{ID: 42, Key: text})
			if err != nil {
				t.Fatal(err)
			}
			app, _, err := client.Apps.Get(t.Context(), "")
			if err != nil || app.GetSlug() != "forge" {
				t.Errorf("got %v, %v", app, err)
			}
		})
	}
}

func TestWrongConfigurationIsSaidPlainly(t *testing.T) {
	for want, build := range map[string]func() (*gogithub.Client, error){
		"the App's private key is not a PEM RSA key: download it from the App's settings page under 'Private keys'": func() (*gogithub.Client, error) {
			return NewApp(Config{}, App{ID: 1, Key: []byte("s3cret")})
		},
		"the App's id is a positive number, not 0: it is on the App's settings page under 'About'": func() (*gogithub.Client, error) {
			return NewApp(Config{}, App{})
		},
		`GitHub API URL "github.example.com": expected something like https://github.example.com/api/v3`: func() (*gogithub.Client, error) {
			return New(Config{APIURL: "github.example.com", Tokens: &tokens{}})
		},
		"GitHub client: no token source": func() (*gogithub.Client, error) { return New(Config{}) },
	} {
		if _, err := build(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
