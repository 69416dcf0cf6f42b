package wire_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// Builds that reach the scheduler by TLS, as from other machines, survive its
// restart like those at the socket; strangers find nothing there.
func TestBuildsReachTheSchedulerByTLS(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true, certificates: true}} {
		t.Run(d.String(), func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate")
			w := newWorld(t, gated(gate))
			address := kittest.FreeAddress(t)
			w.env = append(w.env, "FORGE_RUNNER_ADDRESS="+address)
			w.deploy(t, d)
			_, sha := w.propose(t, "change", files("greeting", "hello\n"))
			page := w.shows(t, sha, "forge/test", "pending").TargetURL
			for _, p := range w.processes {
				p.kill()
				p.begin(t)
			}
			w.awaitUp(t)
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			w.shows(t, sha, "forge/test", "success")
			if log := w.log(t, page); !strings.HasSuffix(log, "waiting\ndone\n") {
				t.Errorf("the build printed %q", log)
			}

			secure := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
			for name, c := range map[string]struct {
				transport credentials.TransportCredentials
				ask       func(grpc.ClientConnInterface) error
				want      codes.Code
			}{
				"without TLS": {insecure.NewCredentials(), attach(t.Context()), codes.Unavailable},
				"no token":    {secure, attach(t.Context()), codes.Unauthenticated},
				"health": {secure, func(conn grpc.ClientConnInterface) error {
					_, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
					return err
				}, codes.Unimplemented},
				"builds": {secure, func(conn grpc.ClientConnInterface) error {
					_, err := schedulerv1.NewBuildServiceClient(conn).ListBuilds(asAdmin(t.Context()), &schedulerv1.ListBuildsRequest{})
					return err
				}, codes.Unimplemented},
			} {
				conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(c.transport))
				if err != nil {
					t.Fatal(err)
				}
				if err := c.ask(conn); status.Code(err) != c.want {
					t.Errorf("%s: %v, want %v", name, err, c.want)
				}
				_ = conn.Close()
			}
		})
	}
}

func attach(ctx context.Context) func(grpc.ClientConnInterface) error {
	return func(conn grpc.ClientConnInterface) error {
		stream, err := schedulerv1.NewRunnerServiceClient(conn).Attach(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
}
