package bulletin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const chatToken = "Azq7tokens3cret"

// addressesAt are those of the services whose address names the host.
func addressesAt(host string) map[string]string {
	return map[string]string{
		"mattermost": "mattermost://" + host + "/" + chatToken + "?disabletls=yes",
		"rocketchat": "rocketchat://" + host + "/" + chatToken + "/" + chatToken,
		"gotify":     "gotify://" + host + "/" + chatToken + "?disabletls=yes",
		"ntfy":       "ntfy://u:" + chatToken + "@" + host + "/topic?scheme=http",
	}
}

// saying tells a chat whose address a repository has in a secret.
func saying(t *testing.T, address string, private bool, log *bytes.Buffer) error {
	t.Helper()
	s := &Service{Deps: Deps{Log: slog.New(slog.NewTextHandler(log, nil)), Chats: Chats{
		Private: private,
		Secret:  func(context.Context, int64, string) (string, string, error) { return address, "", nil },
	}}, client: egress.Client(true), internet: egress.Client(false)}
	defer s.client.CloseIdleConnections()
	return s.trySaying(t.Context(), store.Notice{Address: "chats/7/secret/CHAT", Event: []byte("acme/shop main: forge/push failed")})
}

func TestAChatOnThePrivateNetworkIsNotCalled(t *testing.T) {
	var called atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[fd00::1]", "10.0.0.1"} {
		for name, address := range addressesAt(host + port) {
			err := saying(t, address, false, &bytes.Buffer{})
			if _, final := errors.AsType[refusal](err); !final || !errors.Is(err, egress.ErrPrivate) || strings.Contains(err.Error(), chatToken) {
				t.Errorf("%s at %s: %v", name, host, err)
			}
		}
	}
	if n := called.Load(); n > 0 {
		t.Errorf("%d calls came", n)
	}
}

func TestAChatWhereTheServerAllowsItIsTold(t *testing.T) {
	for _, name := range []string{"mattermost", "gotify", "ntfy"} { // rocketchat speaks TLS alone
		var got atomic.Value
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got.Store(string(body))
			io.WriteString(w, "{}")
		}))
		err := saying(t, addressesAt(strings.TrimPrefix(server.URL, "http://"))[name], true, &bytes.Buffer{})
		server.Close()
		if text, _ := got.Load().(string); err != nil || !strings.Contains(text, "acme/shop main: forge/push failed") {
			t.Errorf("%s: %v, it got %q", name, err, text)
		}
	}
}

func TestWhatAChatAnswersDoesNoHarm(t *testing.T) {
	var followed atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer inner.Close()
	zeros := make([]byte, 1<<20)
	for what, answer := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, inner.URL, http.StatusTemporaryRedirect)
		},
		"10 GB": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			for range 10 << 10 {
				if _, err := w.Write(zeros); err != nil {
					return
				}
			}
		},
		"its address": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"`+chatToken+`"}`, http.StatusForbidden)
		},
	} {
		server := httptest.NewServer(answer)
		for name, address := range addressesAt(strings.TrimPrefix(server.URL, "http://")) {
			var log bytes.Buffer
			err := saying(t, address, true, &log)
			if err == nil || strings.Contains(err.Error()+log.String(), chatToken) {
				t.Errorf("%s by %s: %v", what, name, err)
			}
			if _, final := errors.AsType[refusal](err); final {
				t.Errorf("%s by %s is not tried again: %v", what, name, err)
			}
		}
		server.Close()
	}
	if n := followed.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestAddressesOfNoChatAreRefused(t *testing.T) {
	for _, address := range []string{
		"", "generic://127.0.0.1/s3cret", "generic+http://127.0.0.1/s3cret", "https://127.0.0.1/s3cret", "smtp://u:s3cret@127.0.0.1:25/?to=a@b", "logger://", "script:///s3cret",
		"zulip://u:s3cret@127.0.0.1", "teams://s3cret@127.0.0.1/a/b/c?host=127.0.0.1", "googlechat://127.0.0.1/v1?key=s3cret", "matrix://u:s3cret@127.0.0.1",
		"slack://s3cret", "mattermost://", "ntfy://", "\x00://s3cret", "slack://hook:s3cret\r\nX: y@webhook",
	} {
		err := saying(t, address, true, &bytes.Buffer{})
		if _, final := errors.AsType[refusal](err); !final || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestWhatAChatIsToldIsNoMarkup(t *testing.T) {
	for text, want := range map[string]string{
		"<!channel> @all &amp;":                "‹!channel› ＠all ＆amp;",
		"[here](https://evil.example)\r\nX: y": "(here)(https:∕∕evil.example) X: y",
		"\x1b[31m`rm`\u202e":                   "(31m'rm'",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
