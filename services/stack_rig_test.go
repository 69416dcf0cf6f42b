package services_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// stackWithin is how long anything with a whole stack may take.
const stackWithin = 5 * time.Minute

// stackWorld is stack.yaml on a swarm of this machine, with GitHub, PostgreSQL, a
// bucket and balancers on this host.
type stackWorld struct {
	*deployment
	swarm        *kittest.Swarm
	foreman      *kittest.Foreman
	busyboxImage string
	secrets      map[string]string
	env          []string // of docker stack deploy
}

func newStackWorld(t *testing.T) *stackWorld {
	t.Helper()
	kittest.Require(t, "swarm")
	kittest.Require(t, "postgres")
	began := time.Now()
	s := kittest.NewSwarm(t, 3, 2)
	unique := strings.ToLower(rand.Text()[:8])
	w := &stackWorld{
		swarm: s, foreman: kittest.NewForeman(t, s.Address), busyboxImage: s.Image(t),
		deployment: &deployment{name: "forge-test-" + unique, owner: "octo-" + unique, host: s.Address, variables: map[string]string{"FORGE_GITHUB_APP_ID": "123456"}},
	}
	t.Logf("the swarm is there after %v", time.Since(began))
	key := kittest.AppKey(t)
	w.startGitHub(t, &key.PublicKey)
	w.startDatabase(t)
	t.Setenv("DOCKER_HOST", s.Nodes[0].URL) // of the command docker
	w.makeImages(t, testedVersion, "v0.0.1-test")
	t.Logf("its images are there after %v", time.Since(began))

	bucket, _ := kittest.S3(t)
	bucketAt := w.serve(t, func(l net.Listener) error { return forward(l, strings.TrimPrefix(bucket.URL, "http://")) }, nil)
	gateway, runner := w.balance(t, "9098"), w.balance(t, "9094")
	w.url = "http://" + gateway
	w.env = append(os.Environ(), "REGISTRY="+w.name, "FORGE_GITHUB_APP_ID=123456", "FORGE_EXTERNAL_URL="+w.url, "FORGE_WEBHOOK_ALLOWED_IPS=any",
		"FORGE_GITHUB_API_URL="+w.variables["FORGE_GITHUB_API_URL"], "FORGE_GITHUB_URL="+w.variables["FORGE_GITHUB_URL"],
		"FORGE_RUNNER_URL="+runner, "FORGE_SWARM_CONSTRAINTS=node.role==worker",
		"FORGE_BLOB_URL=s3://forge?region=us-east-1&use_path_style=true&endpoint=http://"+bucketAt)
	w.makeSecrets(t, key)
	w.variables["FORGE_ADMIN_TOKEN"] = w.secrets["forge_admin_token"]
	w.deploy(t, testedVersion)
	w.whole(t)
	w.github.SetWebhook(w.url+"/v1/listen", w.secrets["forge_webhook_secrets"])
	t.Logf("the stack is whole after %v", time.Since(began))
	return w
}

// makeImages makes the images of all services by the Dockerfile's final stage, for
// several versions, on all nodes.
func (w *stackWorld) makeImages(t *testing.T, versions ...string) {
	t.Helper()
	text, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, folder := w.finalStage(t, string(text))
	var names []string
	for _, service := range []string{"gateway", "config", "scheduler", "reporter"} {
		w.image(t, service, folder, "--file", dockerfile, "--build-arg", "SERVICE="+service)
		for _, version := range versions {
			name := w.imageName(service) + ":" + version
			w.must(t, "tag", w.imageName(service), name)
			names = append(names, name)
		}
	}
	saved, err := w.swarm.Nodes[0].API.ImageSave(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	images, err := io.ReadAll(saved)
	if err := errors.Join(err, saved.Close()); err != nil {
		t.Fatal(err)
	}
	w.swarm.Load(t, images)
}

// makeSecrets follows the script at the top of stack.yaml, with what differs here.
func (w *stackWorld) makeSecrets(t *testing.T, key *rsa.PrivateKey) {
	t.Helper()
	_, text := readStack(t)
	made := secretsMade(t, strings.NewReplacer("postgres://forge:PASSWORD@db.example.com/forge?sslmode=verify-full", w.database,
		"DNS:runners.example.com", "IP:"+w.host).Replace(text))
	w.secrets = made
	w.secrets["forge_github_private_key"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	for name, value := range w.secrets {
		_, err := w.swarm.Nodes[0].API.SecretCreate(t.Context(), client.SecretCreateOptions{
			Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte(value)},
		})
		if err != nil {
			t.Fatalf("secret %s: %v", name, err)
		}
	}
}

// deploy deploys stack.yaml.
func (w *stackWorld) deploy(t *testing.T, version string) {
	t.Helper()
	leader := w.swarm.Leader(t)
	run := exec.CommandContext(t.Context(), "docker", "stack", "deploy", "--resolve-image=never", "--compose-file", "../deploy/swarm/stack.yaml", "forge")
	run.Env = append(append(w.env, "VERSION="+version), "DOCKER_HOST="+leader.URL)
	if _, err := output(run); err != nil {
		t.Fatal(err)
	}
}

// whole returns when each service has all its replicas, healthy, and none is being
// replaced.
func (w *stackWorld) whole(t *testing.T) {
	t.Helper()
	kittest.Eventually(t, stackWithin, func() error {
		api := w.swarm.Leader(t).API
		services, err := api.ServiceList(t.Context(), client.ServiceListOptions{Status: true, Filters: client.Filters{}.Add("label", "com.docker.stack.namespace=forge")})
		if err != nil {
			return err
		}
		for _, service := range services.Items {
			if update := service.UpdateStatus; update != nil && update.State != swarm.UpdateStateCompleted {
				return fmt.Errorf("the update of %s is %s: %s", service.Spec.Name, update.State, update.Message)
			}
			tasks, err := w.tasks(t, service.Spec.Name)
			if err != nil {
				return err
			}
			if len(tasks) != 2 {
				return fmt.Errorf("%s has %d replicas that run", service.Spec.Name, len(tasks))
			}
		}
		if len(services.Items) != 4 {
			return fmt.Errorf("there are %d services", len(services.Items))
		}
		return nil
	})
}

// tasks are those of a service that run, on nodes that do.
func (w *stackWorld) tasks(t *testing.T, service string) (running []swarm.Task, err error) {
	t.Helper()
	list, err := w.swarm.Leader(t).API.TaskList(t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("service", service).Add("desired-state", "running")})
	if err != nil {
		return nil, err
	}
	for _, task := range list.Items {
		if node := w.node(task); task.Status.State == swarm.TaskStateRunning && node != nil && node.Runs() {
			running = append(running, task)
		}
	}
	return running, nil
}

func (w *stackWorld) node(task swarm.Task) *kittest.SwarmNode {
	for _, node := range w.swarm.Nodes {
		if node.ID == task.NodeID {
			return node
		}
	}
	return nil
}

// balance serves a port of the nodes on this host: each connection goes to a node
// that takes it.
func (w *stackWorld) balance(t *testing.T, port string) (address string) {
	t.Helper()
	return w.serve(t, func(listener net.Listener) error {
		var open sync.WaitGroup
		defer open.Wait()
		for turn := 0; ; turn++ {
			near, err := listener.Accept()
			if err != nil {
				return err
			}
			open.Go(func() {
				defer near.Close()
				for i := range w.swarm.Nodes {
					node := w.swarm.Nodes[(turn+i)%len(w.swarm.Nodes)]
					far, err := net.DialTimeout("tcp", net.JoinHostPort(node.Address, port), time.Second)
					if err != nil {
						continue
					}
					pipe(near, far)
					return
				}
			})
		}
	}, nil)
}

// pipe copies both ways until one side ends.
func pipe(near, far net.Conn) {
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	})
	_, _ = io.Copy(near, far)
	_ = near.Close()
	copying.Wait()
}

// stackBuild is a build as the JSON API says it.
type stackBuild struct {
	ID      string `json:"id"`
	SHA     string `json:"sha"`
	State   string `json:"state"`
	Message string `json:"message"`
}

// builds are those of these heads.
func (w *stackWorld) builds(t *testing.T, heads ...string) (found map[string]stackBuild) {
	t.Helper()
	kittest.Eventually(t, stackWithin, func() error {
		listed, err := w.list(t.Context())
		if err != nil {
			return err
		}
		found = map[string]stackBuild{}
		for _, build := range listed {
			for _, head := range heads {
				if build.SHA == head {
					found[head] = build
				}
			}
		}
		return nil
	})
	return found
}

// list lists the newest builds.
func (w *stackWorld) list(ctx context.Context) ([]stackBuild, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/v1/builds?page_size=200", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+w.secrets["forge_admin_token"])
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", answer.Status, body)
	}
	var list struct {
		Builds []stackBuild `json:"builds"`
	}
	err = json.NewDecoder(bytes.NewReader(body)).Decode(&list)
	return list.Builds, err
}

// propose opens pull requests and returns their heads.
func (w *stackWorld) propose(t *testing.T, name string, n int) (heads []string) {
	t.Helper()
	for i := range n {
		branch := fmt.Sprintf("%s-%d", name, i+1)
		err := w.github.CreateBranch(w.owner, "hello", branch, "main")
		if err != nil {
			t.Fatal(err)
		}
		head, err := w.github.Commit(w.owner, "hello", branch, githubsim.Commit{Files: map[string]string{
			".forge.yml": "image: " + w.busyboxImage + "\nexecute: [sh run.sh]\nresources: {cpus: 0.1, memory: 64MiB}\n", "run.sh": w.foreman.Script(),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.github.OpenPullRequest(w.owner, "hello", githubsim.PullRequest{Title: branch, Head: branch}); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
	}
	return heads
}

// runsAre waits until the commands of each of these builds have begun so often.
func (w *stackWorld) runsAre(t *testing.T, want map[string]int) {
	t.Helper()
	var heads []string
	for head := range want {
		heads = append(heads, head)
	}
	kittest.Eventually(t, stackWithin, func() error {
		builds := w.builds(t, heads...)
		for head, runs := range want {
			build := builds[head]
			if began := w.foreman.Runs(build.ID); began != runs {
				return fmt.Errorf("the commands of build %s (%s %s) began %d times, want %d", build.ID, build.State, build.Message, began, runs)
			}
		}
		return nil
	})
}

// passed waits until GitHub shows that each has.
func (w *stackWorld) passed(t *testing.T, heads ...string) {
	t.Helper()
	for _, head := range heads {
		kittest.Eventually(t, stackWithin, func() error {
			statuses, err := w.github.Statuses(w.owner, "hello", head)
			if shown := statuses["forge/test"]; err == nil && shown.State != "success" {
				err = fmt.Errorf("forge/test on %.7s shows %q (%s)", head, shown.State, shown.Description)
			}
			return err
		})
	}
}
