package web

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// hands is a scheduler that is asked for builds by hand.
type hands struct {
	answers

	got *schedulerv1.CreateBuildRequest
	err error
}

func (h *hands) Invoke(ctx context.Context, method string, request, reply any, opts ...grpc.CallOption) error {
	if asked, is := request.(*schedulerv1.CreateBuildRequest); is {
		h.got = proto.CloneOf(asked)
		if h.err != nil {
			return h.err
		}
	}
	return h.answers.Invoke(ctx, method, request, reply, opts...)
}

func TestFormRunsWhatIsOfferedByHand(t *testing.T) {
	room := &hands{answers: answers{
		schedulerv1.ManualService_GetManual_FullMethodName: &schedulerv1.GetManualResponse{Offered: true, Sha: "0123456789", Inputs: []*configv1.Input{
			{Name: "version", Default: "1.0", Required: true, Description: evil}, {Name: "where", Options: []string{"here", "there"}, Default: "there"}, {Name: "key", Secret: true},
		}},
		schedulerv1.BuildService_CreateBuild_FullMethodName: &schedulerv1.CreateBuildResponse{Build: &schedulerv1.Build{Id: "b7"}},
	}}
	p, err := New(Deps{Scheduler: room, Config: room, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return at(0).AsTime() }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p.Register(mux)
	ask := func(method, csrf string, form url.Values) *httptest.ResponseRecorder {
		ctx := context.WithValue(t.Context(), viewerKey{}, viewer{Known: csrf != "", CSRF: "mine"})
		sent := url.Values{"csrf": {csrf}}
		maps.Copy(sent, form)
		req := httptest.NewRequestWithContext(ctx, method, "/repositories/acme/shop/run", strings.NewReader(sent.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, req)
		return answer
	}

	body := ask(http.MethodGet, "mine", nil).Body.String()
	for _, want := range []string{`name="input.version"`, ">1.0</textarea>", "<option selected>there</option>", `type="password" name="secret.key"`, "Run at 0123456", "&lt;script&gt;"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if body := ask(http.MethodGet, "", nil).Body.String(); strings.Contains(body, "textarea") || !strings.Contains(body, "write access") {
		t.Errorf("a stranger sees a form:\n%s", body)
	}

	given := url.Values{"input.version": {"2.0\r\n$(reboot)"}, "input.where": {"here"}, "secret.key": {""}, "branch": {"1.x"}}
	answer := ask(http.MethodPost, "mine", given)
	if answer.Code != http.StatusSeeOther || answer.Header().Get("Location") != "/builds/b7" {
		t.Errorf("%d, %s", answer.Code, answer.Header().Get("Location"))
	}
	want := &schedulerv1.CreateBuildRequest{
		Repository: "acme/shop", Branch: "1.x", Action: schedulerv1.Build_ACTION_MANUAL, Inputs: map[string]string{"version": "2.0\n$(reboot)", "where": "here"},
	}
	if !proto.Equal(room.got, want) {
		t.Errorf("asked for %v", room.got)
	}

	// What is refused keeps what was given, but for secrets.
	room.err = fault.New(fault.Invalid, "input where: one of here and there")
	given.Set("secret.key", "hush-hush")
	answer = ask(http.MethodPost, "mine", given)
	if body := answer.Body.String(); answer.Code != http.StatusUnprocessableEntity || !strings.Contains(body, "one of here and there") || !strings.Contains(body, "$(reboot)</textarea>") || strings.Contains(body, "hush") {
		t.Errorf("%d\n%s", answer.Code, body)
	}

	room.got = nil
	for _, csrf := range []string{"", "another's"} {
		if answer := ask(http.MethodPost, csrf, given); answer.Code < 400 || room.got != nil {
			t.Errorf("with the token %q: %d, %v", csrf, answer.Code, room.got)
		}
	}
}

func TestRunPageSaysWhatIsNotThere(t *testing.T) {
	if _, body := shown(t, answers{schedulerv1.ManualService_GetManual_FullMethodName: &schedulerv1.GetManualResponse{}}, "/repositories/acme/shop/run"); !strings.Contains(body, "nothing to be run by hand there") {
		t.Error(body)
	}
	if code, body := shown(t, answers{}, "/repositories/acme/shop/run?branch=nope"); code != http.StatusOK || !strings.Contains(body, "Nothing was built of it") {
		t.Errorf("%d %s", code, body)
	}
}
