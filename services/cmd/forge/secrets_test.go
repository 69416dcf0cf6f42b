package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

// keeper is a Forge that keeps secrets.
type keeper struct {
	schedulerv1.UnimplementedSecretServiceServer
	kept map[string]string
}

func (k *keeper) SetSecret(_ context.Context, req *schedulerv1.SetSecretRequest) (*schedulerv1.SetSecretResponse, error) {
	k.kept[req.GetRepository()+"/"+req.GetEnvironment()+"/"+req.GetName()] = req.GetValue()
	secret := &schedulerv1.Secret{Environment: req.GetEnvironment(), Uses: req.GetUses(), Branches: req.GetBranches()}
	if len(req.GetValue()) < 4 {
		return &schedulerv1.SetSecretResponse{Secret: secret, Warning: "it is short"}, nil
	}
	return &schedulerv1.SetSecretResponse{Secret: secret}, nil
}

func (k *keeper) ListSecrets(_ context.Context, req *schedulerv1.ListSecretsRequest) (*schedulerv1.ListSecretsResponse, error) {
	at := timestamppb.New(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	if req.GetPageToken() == "" {
		return &schedulerv1.ListSecretsResponse{NextPageToken: "more", Secrets: []*schedulerv1.Secret{{Repository: "acme/shop", Name: "TOKEN", UpdateTime: at, Uses: []schedulerv1.Secret_Use{schedulerv1.Secret_USE_TAGS}, Branches: []string{"main"}}}}, nil
	}
	return &schedulerv1.ListSecretsResponse{Secrets: []*schedulerv1.Secret{{Repository: "acme/shop", Environment: "staging", Name: "KEY", UpdateTime: at}}}, nil
}

func (k *keeper) DeleteSecret(_ context.Context, req *schedulerv1.DeleteSecretRequest) (*schedulerv1.DeleteSecretResponse, error) {
	key := req.GetRepository() + "/" + req.GetEnvironment() + "/" + req.GetName()
	if _, ok := k.kept[key]; !ok {
		return nil, fault.New(fault.NotFound, "there is none")
	}
	delete(k.kept, key)
	return &schedulerv1.DeleteSecretResponse{}, nil
}

// serve has the keeper listen and returns how it is reached.
func (k *keeper) serve(t *testing.T) remote {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "keeper", AdminToken: "admin", Access: map[string]rpc.Access{
		schedulerv1.SecretService_SetSecret_FullMethodName:    {},
		schedulerv1.SecretService_ListSecrets_FullMethodName:  {},
		schedulerv1.SecretService_DeleteSecret_FullMethodName: {},
	}})
	schedulerv1.RegisterSecretServiceServer(server, k)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return remote{Common: settings.Common{AdminToken: "admin"}, GRPC: settings.GRPC{GRPCAddress: lis.Addr().String()}}
}

func TestSecretsAreSetListedAndDeleted(t *testing.T) {
	k := &keeper{kept: map[string]string{}}
	forge := k.serve(t)
	var out strings.Builder
	token := secretOf{Name: "TOKEN", Repo: "acme/shop"}
	key := secretOf{Name: "KEY", Repo: "acme/shop", Environment: "staging"}
	for _, err := range []error{
		setSecret{remote: forge, secretOf: token, For: []string{"tags", "production", "pull-requests"}}.set(&out, "hunter2"),
		setSecret{remote: forge, secretOf: key, Branches: []string{"main"}}.set(&out, "no"),
		deleteSecret{forge, token}.delete(&out),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	all, err := listSecrets{query: query{remote: forge}}.fetch()
	if err != nil {
		t.Error(err)
	}
	printSecrets(&out, all)
	const want = `secret TOKEN of acme/shop is set for deploys to production
secret TOKEN of acme/shop is set for tags, pull requests
secret KEY of acme/shop is set for deploys to staging of main
mind: it is short
secret TOKEN of acme/shop is deleted
REPOSITORY  NAME   FOR                 SET
acme/shop   TOKEN  tags of main        2026-11-25 12:00:00
acme/shop   KEY    deploys to staging  2026-11-25 12:00:00
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", &out, want)
	}
	if got := fmt.Sprint(k.kept); got != "map[acme/shop/production/TOKEN:hunter2 acme/shop/staging/KEY:no]" {
		t.Errorf("kept is %s", got)
	}
	if err := (deleteSecret{forge, token}).delete(&out); err == nil || !strings.Contains(err.Error(), "(FORGE_GRPC_ADDRESS): there is none") {
		t.Errorf("deleted again: %v", err)
	}
	if err := (setSecret{remote: forge, secretOf: token, For: []string{"pulls"}}).set(&out, "x"); err == nil || !strings.Contains(err.Error(), "--for pulls: expected pull-requests, pushes, tags, deploys, staging or production") {
		t.Errorf("for nothing there is: %v", err)
	}
	if err := (setSecret{remote: forge, secretOf: key, For: []string{"tags"}}).set(&out, "x"); err == nil {
		t.Error("--environment and --for were both taken")
	}
	stranger := remote{Common: settings.Common{DataDir: t.TempDir() + "/none"}, GRPC: forge.GRPC}
	if _, err := (listSecrets{query: query{remote: stranger}}).fetch(); err == nil || !strings.Contains(err.Error(), "no admin token: set FORGE_ADMIN_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
}

func TestASecretIsReadWithoutTheLineEndOfEcho(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"hunter2", "hunter2"},
		{"hunter2\n", "hunter2"},
		{"hunter2\r\n", "hunter2"},
		{" hunter2 \n", " hunter2 "},
		{"one\ntwo\n", "one\ntwo\n"},
		{"", ""},
		{"\n", ""},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, c.text)
		w.Close()
		if got, err := readSecret(r, io.Discard, "TOKEN"); got != c.want || err != nil {
			t.Errorf("%q is read as %q, %v", c.text, got, err)
		}
		r.Close()
	}
}

// However a question for a secret ends, the terminal shows again what is typed.
func TestAQuestionForASecretCanBeLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(*testing.T, *tty)
		code int
		says string
	}{
		"Ctrl-C":  {func(t *testing.T, s *tty) { s.types(t, "\x03") }, exitInterrupted, "\r\nforge: interrupted\r\n"},
		"SIGTERM": {func(_ *testing.T, s *tty) { _ = s.cmd.Process.Signal(syscall.SIGTERM) }, exitInterrupted, "\r\nforge: interrupted\r\n"},
		"Ctrl-D":  {func(t *testing.T, s *tty) { s.types(t, "\x04") }, exitFailed, "\r\nforge: nothing is taken: Enter was not pressed\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTerminalForge(t).at(t, "secrets", "set", "TOKEN", "--repo", "acme/shop")
			s.shows(t, "Value of TOKEN: ")
			s.becomesRaw(t)
			c.end(t, s)
			s.ends(t, c.code)
			s.shows(t, c.says)
		})
	}
}

func TestAHiddenLineIsCorrectedAsItIsTyped(t *testing.T) {
	for keys, want := range map[string]string{
		"hush\rmore":           "hush",
		"hush\n":               "hush",
		"huß\x7fsh\r":          "hush",
		"\x7fx\x15hux\x08sh\r": "hush",
		"a\x1ab\tc\r":          "ab\tc",
		"\r":                   "",
	} {
		if got, err := typedLine(strings.NewReader(keys)); got != want || err != nil {
			t.Errorf("%q becomes %q, %v, want %q", keys, got, err, want)
		}
	}
	if _, err := typedLine(strings.NewReader("hush")); err == nil {
		t.Error("a terminal that is gone has typed a line")
	}
}

func TestASecretThatIsTypedIsNotShown(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		value string
		err   error
	}
	prompt, asked := io.Pipe()
	read := make(chan answer, 1)
	go func() {
		value, err := readSecret(terminal, asked, "TOKEN")
		asked.Close()
		terminal.Close()
		read <- answer{value, err}
	}()
	question := make([]byte, 100)
	n, err := prompt.Read(question)
	if err != nil || string(question[:n]) != "Value of TOKEN: " {
		t.Errorf("it asks %q, %v", question[:n], err)
	}
	go func() { _, _ = io.Copy(io.Discard, prompt) }()
	kittest.Eventually(t, time.Minute, func() error {
		attributes, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
		if err == nil && attributes.Lflag&unix.ECHO != 0 {
			err = errors.New("what is typed is shown")
		}
		return err
	})
	if _, err := io.WriteString(master, "hunter2\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got.value != "hunter2" || got.err != nil {
		t.Errorf("read %q, %v", got.value, got.err)
	}
	shown, _ := io.ReadAll(master) // ends with an error, as nobody has the terminal open
	if strings.Contains(string(shown), "hunter2") {
		t.Errorf("the terminal shows %q", shown)
	}
}
