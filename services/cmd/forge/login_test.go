package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// forgeOverHTTP is a Forge where somebody signs in whose code is entered after two
// questions, and which has builds and secrets for who shows the token.
type forgeOverHTTP struct {
	gatewayv1.UnimplementedSignInServiceServer
	schedulerv1.UnimplementedBuildServiceServer
	schedulerv1.UnimplementedSecretServiceServer
	questions  int
	denied     bool
	ended      int
	everywhere bool
	secret     *schedulerv1.SetSecretRequest
	listed     *schedulerv1.ListBuildsRequest
}

const shownToken = "forge_pat_hush"

func (f *forgeOverHTTP) StartSignIn(context.Context, *gatewayv1.StartSignInRequest) (*gatewayv1.StartSignInResponse, error) {
	return &gatewayv1.StartSignInResponse{DeviceCode: "dev", UserCode: "WDJB-MJHT", Address: "https://github.example/login/device", Pause: durationpb.New(5 * time.Second)}, nil
}

func (f *forgeOverHTTP) FinishSignIn(_ context.Context, req *gatewayv1.FinishSignInRequest) (*gatewayv1.FinishSignInResponse, error) {
	f.questions++
	switch {
	case req.GetDeviceCode() != "dev" || req.GetName() != "laptop":
		return nil, status.Error(codes.InvalidArgument, "another request")
	case f.denied:
		return nil, status.Error(codes.PermissionDenied, "GitHub did not sign you in: you, or it, said no")
	case f.questions < 3:
		return &gatewayv1.FinishSignInResponse{Slower: f.questions == 1}, nil
	}
	return &gatewayv1.FinishSignInResponse{Token: shownToken, Login: "rita"}, nil
}

func (f *forgeOverHTTP) SignOut(_ context.Context, req *gatewayv1.SignOutRequest) (*gatewayv1.SignOutResponse, error) {
	f.ended, f.everywhere = f.ended+1, req.GetEverywhere()
	return &gatewayv1.SignOutResponse{}, nil
}

func (f *forgeOverHTTP) ListBuilds(_ context.Context, req *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsResponse, error) {
	f.listed = req
	return &schedulerv1.ListBuildsResponse{Builds: []*schedulerv1.Build{{Id: "b1", Title: "Mend the door"}}}, nil
}

func (f *forgeOverHTTP) SetSecret(_ context.Context, req *schedulerv1.SetSecretRequest) (*schedulerv1.SetSecretResponse, error) {
	f.secret = req
	return &schedulerv1.SetSecretResponse{}, nil
}

// serveForge serves it, to who shows the token or signs in.
func serveForge(t *testing.T) (*forgeOverHTTP, string) {
	t.Helper()
	f, mux := &forgeOverHTTP{}, runtime.NewServeMux()
	for _, err := range []error{
		gatewayv1.RegisterSignInServiceHandlerServer(t.Context(), mux, f), schedulerv1.RegisterBuildServiceHandlerServer(t.Context(), mux, f),
		schedulerv1.RegisterSecretServiceHandlerServer(t.Context(), mux, f),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/builds/b1/log":
			_, _ = w.Write([]byte(`{"result":{"data":"aGVsbG8=","offset":"0"}}` + "\n" + `{"error":{"code":7,"message":"you may no more"}}` + "\n"))
		case r.URL.Path == "/v1/builds/moved":
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		case !strings.HasPrefix(r.URL.Path, "/v1/sign-in:") && r.Header.Get("Authorization") != "Bearer "+shownToken:
			http.Error(w, `{"code":16,"message":"sign in to see this"}`, http.StatusUnauthorized)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return f, server.URL
}

// atOnce waits for nothing, and notes how long it was to.
func atOnce(waited *[]time.Duration) func(time.Duration) <-chan time.Time {
	return func(d time.Duration) <-chan time.Time {
		*waited = append(*waited, d)
		now := make(chan time.Time, 1)
		now <- time.Time{}
		return now
	}
}

func TestSomebodyLogsInAndAsksAndLogsOut(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	f, address := serveForge(t)
	var waited []time.Duration
	var said bytes.Buffer
	k, err := login{Address: address + "/", Name: "laptop"}.signIn(t.Context(), &said, atOnce(&waited))
	if err != nil || k != (kept{address, "rita", shownToken}) {
		t.Fatalf("%+v, %v", k, err)
	}
	if want := "Enter the code WDJB-MJHT at https://github.example/login/device\n"; said.String() != want || strings.Contains(said.String(), shownToken) {
		t.Errorf("it says %q", said.String())
	}
	if len(waited) != 3 || waited[0] != 5*time.Second || waited[1] != 10*time.Second || waited[2] != 10*time.Second {
		t.Errorf("it waits %v", waited)
	}
	if err := k.keep(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(config, "forge", "login.json")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if all, err := os.ReadDir(filepath.Dir(file)); err != nil || len(all) != 1 {
		t.Errorf("left %v, %v", all, err)
	}

	// Verbs find it where they find no admin token.
	r := remote{}
	r.DataDir = t.TempDir()
	err = r.call(time.Minute, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		answer, err := schedulerv1.NewBuildServiceClient(conn).ListBuilds(ctx, &schedulerv1.ListBuildsRequest{
			Repository: "acme/shop", PageSize: 7, States: []schedulerv1.Build_State{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_QUEUED},
		})
		if err == nil && (answer.GetBuilds()[0].GetTitle() != "Mend the door" || f.listed.GetRepository() != "acme/shop" || f.listed.GetPageSize() != 7 || len(f.listed.GetStates()) != 2) {
			t.Errorf("%v of %v", answer, f.listed)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := schedulerv1.NewSecretServiceClient(k.conn()).SetSecret(t.Context(), &schedulerv1.SetSecretRequest{Repository: "acme/shop", Name: "A", Value: "b/c?d"}); err != nil ||
		f.secret.GetRepository() != "acme/shop" || f.secret.GetName() != "A" || f.secret.GetValue() != "b/c?d" {
		t.Errorf("%v, %v", f.secret, err)
	}

	if err := (logout{Everywhere: true}).Run(); err != nil || f.ended != 1 || !f.everywhere {
		t.Errorf("%v, %+v", err, f)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the token is kept: %v", err)
	}
	if err := (logout{}).Run(); err == nil || err.Error() != "you are not signed in" {
		t.Errorf("twice: %v", err)
	}
}

func TestALoginThatFailsKeepsNothing(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	f, address := serveForge(t)
	f.denied = true
	var waited []time.Duration
	if _, err := (login{Address: address, Name: "laptop"}).signIn(t.Context(), &bytes.Buffer{}, atOnce(&waited)); err == nil || !strings.Contains(err.Error(), "said no") {
		t.Errorf("got %v", err)
	}
	for _, wrong := range []string{"", "forge.example.com", "ftp://forge.example.com", "https://"} {
		if err := (login{Address: wrong}).Run(); err == nil || !strings.Contains(err.Error(), "is no address of Forge's pages") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if _, err := readKept(); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("kept something: %v", err)
	}
}

func TestErrorsComeOverHTTPAsTheyAre(t *testing.T) {
	_, address := serveForge(t)
	signedIn := schedulerv1.NewBuildServiceClient(overHTTP{address, shownToken})
	if _, err := schedulerv1.NewBuildServiceClient(overHTTP{address: address}).GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: "b1"}); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "sign in to see this") {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := signedIn.GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: "../../evil"}); status.Code(err) == codes.OK {
		t.Error("a path left its place")
	}
	if _, err := signedIn.GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: "moved"}); status.Code(err) != codes.Unavailable {
		t.Errorf("a redirect: %v", err)
	}
	log, err := signedIn.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: "b1"})
	if err != nil {
		t.Fatal(err)
	}
	if line, err := log.Recv(); err != nil || string(line.GetData()) != "hello" {
		t.Errorf("%v, %v", line, err)
	}
	if _, err := log.Recv(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "you may no more") {
		t.Errorf("got %v", err)
	}
	if _, err := schedulerv1.NewArtifactServiceClient(overHTTP{address, shownToken}).DownloadArtifact(t.Context(), &schedulerv1.DownloadArtifactRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("what is not bound: %v", err)
	}
	if _, err := schedulerv1.NewBuildServiceClient(overHTTP{address: "http://127.0.0.1:1"}).GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: "b1"}); status.Code(err) != codes.Unavailable {
		t.Errorf("nobody there: %v", err)
	}
}
