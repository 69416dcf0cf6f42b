package wire_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// holds calls the JSON API with a token, and returns the answer and its code.
func holds(t *testing.T, w *world, token, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, w.http+path, strings.NewReader(body))
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(text)
}

// A program that has a token of a repository asks for builds there, by HTTP and by command
// line, also where the services run apart; it opens nothing else, and is in no log.
func TestATokenOfARepositoryAsksForBuildsByHand(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true}} {
		t.Run(d.String(), func(t *testing.T) {
			w := newWorld(t, map[string]string{".forge.yml": publishable()})
			w.env = append(w.env, "FORGE_DEBUG=true", "OTEL_TRACES_EXPORTER=console")
			w.deploy(t, d)
			w.awaitServing(t)
			name, address := owner+"/"+repo, "--grpc-address="+w.grpc
			if d.apart {
				address = "--grpc-address=" + w.apart["scheduler"]
			}
			made, err := w.verb(t, "tokens", "create", "chat-bot", "--repo="+name, "--expires=90d", address)
			must(t, err)
			token := strings.TrimSpace(made)
			if code, text := holds(t, w, token, http.MethodGet, "/v1/manual/"+name, ""); code != http.StatusOK || !strings.Contains(text, "What to publish") {
				t.Errorf("what is asked for: %d %s", code, text)
			}
			code, text := holds(t, w, token, http.MethodPost, "/v1/builds", `{"repository": "`+name+`", "inputs": {"version": "1.4.2"}}`)
			if code != http.StatusOK {
				t.Fatalf("%d %s", code, text)
			}
			first := created(t, []byte(text))
			w.shows(t, first.GetSha(), "forge/manual", "success")
			if code, text := holds(t, w, token, http.MethodGet, "/v1/builds", ""); code != http.StatusOK || strings.Count(text, `"forge/manual"`) != 1 || !strings.Contains(text, "token chat-bot") {
				t.Errorf("its builds: %d %s", code, text)
			}
			out, err := w.verb(t, "builds", "create", name, "--input=version=2", "--admin-token="+token, address)
			if err != nil || !strings.Contains(out, "token chat-bot") {
				t.Errorf("by command line: %v %s", err, out)
			}
			for call, body := range map[string]string{
				"POST /v1/builds/" + first.GetId() + ":cancel": "{}", "POST /v1/builds/" + first.GetId() + ":retry": "{}", "POST /v1/builds/" + first.GetId() + ":approve": "{}",
				"PUT /v1/secrets/" + name + "/X": `{"value": "x"}`, "GET /v1/secrets": "", "GET /v1/tokens": "", "POST /v1/tokens/" + name: `{"name": "x"}`, "DELETE /v1/tokens/" + name + "/chat-bot": "",
				"GET /v1/deliveries": "", "GET /v1/targets": "", "GET /v1/installations": "", "GET /v1/environments": "", "GET /v1/schedules": "", "GET /v1/caches": "",
				"POST /v1/environments/" + name + "/staging:freeze": "{}", "POST /v1/builds": `{"repository": "` + name + `", "action": "ACTION_TEST"}`,
				"GET /v1/builds?repository=acme/other": "", "GET /v1/manual/acme/other": "",
			} {
				method, path, _ := strings.Cut(call, " ")
				if code, text := holds(t, w, token, method, path, body); code != http.StatusForbidden {
					t.Errorf("%s: %d %s", call, code, text)
				}
			}
			if all := w.builds(t, first.GetSha()); len(all) != 2 || all[0].GetAction() != schedulerv1.Build_ACTION_MANUAL {
				t.Errorf("built %v", all)
			}
			w.says(t, "chat-bot", "tokens", "list", address)
			w.says(t, "is deleted", "tokens", "delete", "chat-bot", "--repo="+name, address)
			if code, text := holds(t, w, token, http.MethodPost, "/v1/builds", `{"repository": "`+name+`", "inputs": {"version": "3"}}`); code != http.StatusUnauthorized {
				t.Errorf("once deleted: %d %s", code, text)
			}
			holdsNowhere(t, w, token)
		})
	}
}
