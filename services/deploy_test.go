package services_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

const happensWithin = 2 * time.Minute // all of it takes a moment; machines are slow

// The images of deploy/Dockerfile as deploy/compose.yaml runs them, down to the
// commands at its top, with GitHub, PostgreSQL and Jaeger's place on this host.
func TestComposedServicesBuildAPullRequest(t *testing.T) {
	kittest.Require(t, "docker")
	kittest.Require(t, "postgres")
	d := newDeployment(t)
	d.buildImages(t)
	d.up(t)
	d.strangersAreRefused(t)

	broken := d.push(t, "image: busybox\nexceute: [true]\n")
	if _, err := d.github.OpenPullRequest(d.owner, "hello", githubsim.PullRequest{Title: "Hello", Head: "change"}); err != nil {
		t.Fatal(err)
	}
	const mistake = ".forge.yml:2:1: unknown key"
	if shown := d.shows(t, broken, "error"); !strings.Contains(shown.Description, mistake) {
		t.Errorf("the status says %q, want %q", shown.Description, mistake)
	}
	kittest.Eventually(t, happensWithin, func() error {
		if list := d.get(t, d.url+"/v1/deliveries"); !strings.Contains(list, mistake) {
			return fmt.Errorf("no delivery was decided with %q: %s", mistake, list)
		}
		return nil
	})

	// The build outlives its scheduler, since the next one's socket is in the same
	// folder of the host's.
	mended := d.push(t, "image: "+d.busybox(t)+`
execute:
  - touch /tmp/waiting
  - until [ -e /tmp/word ]; do sleep 0.1; done
  - cat /tmp/word
`)
	var build string
	kittest.Eventually(t, happensWithin, func() error {
		var err error
		if build, err = docker("ps", "--quiet", "--filter", d.label()); err != nil {
			return err
		}
		_, err = docker("exec", build, "test", "-e", "/tmp/waiting")
		return err
	})
	d.must(t, "restart", d.container("scheduler"))
	d.must(t, "exec", build, "sh", "-c", "echo go on >/tmp/word")
	shown := d.shows(t, mended, "success")
	page := d.url + strings.TrimPrefix(shown.TargetURL, d.variables["FORGE_EXTERNAL_URL"])
	if log := d.get(t, page+"/log"); !strings.Contains(log, "go on") {
		t.Errorf("the build printed %q", log)
	}
	kittest.Eventually(t, happensWithin, func() error {
		if containers, networks := d.ofBuilds(t); len(containers)+len(networks) > 0 {
			return fmt.Errorf("the build has left containers %q and networks %q", containers, networks)
		}
		return nil
	})

	rooms := slices.Collect(maps.Keys(d.built()))
	kittest.Eventually(t, happensWithin, func() error { return d.traces.through(rooms) })
	for _, room := range rooms {
		kittest.Eventually(t, happensWithin, func() error {
			if health := d.must(t, "inspect", "--format", "{{.State.Health.Status}}", d.container(room)); health != "healthy" {
				return fmt.Errorf("to Docker %s is %s", room, health)
			}
			return nil
		})
		// A warning is what one service says while another is still starting.
		if log := d.log(t, room); strings.Contains(log, `"level":"ERROR"`) {
			t.Errorf("%s complains", room)
		}
	}
}

// composition is compose.yaml. A key of a service that is not known here is an
// error, so that none goes untested.
type composition struct {
	Services map[string]composed
	Rest     map[string]any `yaml:",inline"`
}

type composed struct {
	Image, User string
	Build       struct {
		Context, Dockerfile string
		Args                map[string]string
	}
	Environment    map[string]string
	Volumes, Ports []string

	// For Compose alone.
	Restart     string
	StopGrace   string `yaml:"stop_grace_period"`
	DependsOn   any    `yaml:"depends_on"`
	Healthcheck any
	Profiles    []string
	SecurityOpt []string `yaml:"security_opt"`
	Networks    []string
}

// deployment is the services in containers, and what they need of a world.
type deployment struct {
	composition
	name, owner string            // unique to this test
	variables   map[string]string // as .env gives them to Compose
	host        string            // this host's address on the containers' network
	database    string            // URL of the database, from there
	collector   string            // URL of what takes traces, from there
	traces      *collector
	github      *githubsim.Sim
	url         string // of Forge, from here
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	text, err := os.ReadFile("../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	unique := strings.ToLower(rand.Text()[:8])
	d := &deployment{name: "forge-test-" + unique, owner: "octo-" + unique}
	if err := yaml.Load(text, &d.composition, yaml.WithKnownFields()); err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	key := kittest.AppKey(t)
	d.variables = dotEnv(t, string(text), key)
	d.variables["FORGE_WEBHOOK_ALLOWED_IPS"] = "any"
	d.variables["DOCKER_SOCKET"], _ = strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://") // none: the usual one
	if d.variables["RUNNER_DIR"], err = os.MkdirTemp("", "forge"); err != nil {              //nolint:usetesting // t.TempDir is too long for a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d.variables["RUNNER_DIR"]) })

	d.must(t, "network", "create", d.name)
	t.Cleanup(func() { d.must(t, "network", "rm", d.name) })
	d.host = d.must(t, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", d.name)
	d.startGitHub(t, &key.PublicKey)
	d.startDatabase(t)
	d.startCollector(t)
	return d
}

// built are the services that deploy/Dockerfile makes.
func (d *deployment) built() map[string]composed {
	built := maps.Clone(d.Services)
	maps.DeleteFunc(built, func(_ string, s composed) bool { return s.Image != "" })
	return built
}

// up starts the services, in any order, and waits for each.
func (d *deployment) up(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { d.removeBuilds(t) }) // when the scheduler is gone
	for name, service := range d.built() {
		d.start(t, name, service)
		started := time.Now()
		if len(service.Ports) > 0 {
			d.url = "http://" + d.must(t, "port", d.container(name), "9098/tcp")
			kittest.Eventually(t, happensWithin, func() error {
				answer, err := http.Get(d.url + "/v1/status")
				if err != nil {
					return err
				}
				return answer.Body.Close()
			})
			d.github.SetWebhook(d.url+"/v1/listen", d.variables["FORGE_WEBHOOK_SECRETS"])
		} else {
			health := healthv1.NewHealthClient(d.dial(t, name))
			kittest.Eventually(t, happensWithin, func() error {
				answer, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{})
				if err == nil && answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
					err = errors.New(answer.GetStatus().String())
				}
				return err
			})
		}
		t.Logf("%s answers %v after its container was started", name, time.Since(started))
	}
}

// start runs a container as Compose would.
func (d *deployment) start(t *testing.T, name string, service composed) {
	t.Helper()
	args := []string{"run", "--detach", "--name", d.container(name), "--network", d.name, "--network-alias", name, "--user", service.User}
	for _, volume := range service.Volumes {
		volume = d.expand(t, volume)
		if !strings.HasPrefix(volume, "/") { // one without a name goes with the container
			_, volume, _ = strings.Cut(volume, ":")
		}
		args = append(args, "--volume", volume)
	}
	for _, port := range service.Ports {
		_, inside, _ := strings.Cut(port, ":")
		args = append(args, "--publish", "127.0.0.1::"+inside)
	}
	environment := os.Environ()
	for variable, value := range service.Environment {
		value = d.expand(t, value)
		switch variable {
		case "FORGE_DATABASE_URL":
			value = d.onHost(t, value, d.database)
		case "OTEL_EXPORTER_OTLP_ENDPOINT":
			value = d.onHost(t, value, d.collector)
		}
		environment = append(environment, variable+"="+value)
		args = append(args, "--env", variable)
	}
	run := exec.Command("docker", append(args, d.imageName(name))...)
	run.Env = environment
	if _, err := output(run); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", name, d.log(t, name))
		}
		d.must(t, "rm", "--force", "--volumes", d.container(name))
	})
}

func (d *deployment) container(name string) string { return d.name + "-" + name }

// expand puts in variables as Compose does.
func (d *deployment) expand(t *testing.T, text string) string {
	t.Helper()
	return os.Expand(text, func(expression string) string {
		name, otherwise, _ := strings.Cut(expression, ":")
		otherwise, optional := strings.CutPrefix(otherwise, "-")
		if value := d.variables[name]; value != "" {
			return value
		}
		if !optional {
			t.Errorf("compose.yaml wants %s, which .env does not have", name)
		}
		return otherwise
	})
}

// onHost replaces the URL of a service that is in no container here.
func (d *deployment) onHost(t *testing.T, composed, here string) string {
	t.Helper()
	address, err := url.Parse(composed)
	if err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	if _, found := d.Services[address.Hostname()]; !found {
		t.Errorf("compose.yaml has no service %s", address.Hostname())
	}
	return here
}

// dial connects to a service as another container could.
func (d *deployment) dial(t *testing.T, name string) *grpc.ClientConn {
	t.Helper()
	address := d.must(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", d.container(name))
	conn, err := rpc.Dial(net.JoinHostPort(address, "9090"), rpc.Peer{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// strangersAreRefused tries for a token of GitHub's. Not even an admin can have
// one.
func (d *deployment) strangersAreRefused(t *testing.T) {
	t.Helper()
	tokens := configv1.NewTokenServiceClient(d.dial(t, "config"))
	for _, name := range []string{"nothing", "GATEWAY_TOKEN", "FORGE_ADMIN_TOKEN"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+d.variables[name])
		if _, err := tokens.CreateToken(ctx, &configv1.CreateTokenRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a caller that shows %s gets %v", name, err)
		}
	}
}

// push puts a .forge.yml on the branch.
func (d *deployment) push(t *testing.T, forgeYML string) (sha string) {
	t.Helper()
	sha, err := d.github.Commit(d.owner, "hello", "change", githubsim.Commit{Files: map[string]string{".forge.yml": forgeYML}})
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

// shows waits until GitHub shows this state.
func (d *deployment) shows(t *testing.T, sha, state string) (shown githubsim.Status) {
	t.Helper()
	kittest.Eventually(t, happensWithin, func() error {
		statuses, err := d.github.Statuses(d.owner, "hello", sha)
		if shown = statuses["forge/test"]; err == nil && shown.State != state {
			err = fmt.Errorf("forge/test on %.7s shows %q (%s), want %s", sha, shown.State, shown.Description, state)
		}
		return err
	})
	return shown
}

// get gets a page or an answer, as an admin.
func (d *deployment) get(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+d.variables["FORGE_ADMIN_TOKEN"])
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s %s, %v", address, answer.Status, body, err)
	}
	return string(body)
}

func (d *deployment) log(t *testing.T, name string) string {
	t.Helper()
	log, err := exec.Command("docker", "logs", d.container(name)).CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	return string(log)
}

// label is what the containers and networks of this test's builds bear.
func (d *deployment) label() string { return "label=forge.repository=" + d.owner + "/hello" }

func (d *deployment) ofBuilds(t *testing.T) (containers, networks []string) {
	t.Helper()
	return strings.Fields(d.must(t, "ps", "--all", "--quiet", "--filter", d.label())),
		strings.Fields(d.must(t, "network", "ls", "--quiet", "--filter", d.label()))
}

// removeBuilds removes what a test that failed has left.
func (d *deployment) removeBuilds(t *testing.T) {
	t.Helper()
	containers, networks := d.ofBuilds(t)
	for _, container := range containers {
		d.must(t, "rm", "--force", "--volumes", container)
	}
	for _, network := range networks {
		d.must(t, "network", "rm", network)
	}
}
