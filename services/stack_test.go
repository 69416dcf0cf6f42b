package services_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"

	kit "github.com/forge-ci/forge/services/kit/settings"
	"github.com/forge-ci/forge/services/settings"
)

// stack is stack.yaml. A key of a service that is not known here is an error, so
// that whoever adds one thinks of what is to hold of it.
type stack struct {
	Services map[string]stacked
	Secrets  map[string]struct{ External bool }
	Networks map[string]struct{ Driver string }
	Rest     map[string]any `yaml:",inline"`
}

type stacked struct {
	Image, User string
	Deploy      struct {
		Replicas  int
		Placement struct {
			Constraints []string
			Preferences any
			Most        int `yaml:"max_replicas_per_node"`
		}
		Endpoint string `yaml:"endpoint_mode"`
		Restart  any    `yaml:"restart_policy"`
		Update   change `yaml:"update_config"`
		Rollback change `yaml:"rollback_config"`
	}
	Environment map[string]string
	Secrets     []struct{ Source, Target string }
	Ports       []struct {
		Target, Published int
		Mode              string
	}
	Networks, Volumes []string
	StopGrace         string `yaml:"stop_grace_period"`
	Healthcheck       struct {
		Test     []string
		Interval string
		Timeout  string
		Retries  int
		Start    string `yaml:"start_period"`
	}
}

type change struct {
	Order, Delay, Monitor string
	Parallelism           int
	Failure               string `yaml:"failure_action"`
}

func readStack(t *testing.T) (s stack, text string) {
	t.Helper()
	content, err := os.ReadFile("../deploy/swarm/stack.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Load(content, &s, yaml.WithKnownFields()); err != nil {
		t.Fatalf("stack.yaml: %v", err)
	}
	return s, string(content)
}

// What stands in stack.yaml is what the services, their images and the script at
// its top have.
func TestStackFitsTheServicesAndTheirImages(t *testing.T) {
	s, text := readStack(t)
	known := map[string]kit.Setting{}
	for _, setting := range kit.Names(&settings.All{}, kong.Vars{"grpc_address": "", "engines": ""}) {
		known[setting.Env] = setting
		if setting.Secret {
			known[setting.Env+"_FILE"] = kit.Setting{}
		}
	}
	dockerfile, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	entrypoint := regexp.MustCompile(`ENTRYPOINT \["(.*)"\]`).FindStringSubmatch(string(dockerfile))[1]
	for name, service := range s.Services {
		if _, err := os.Stat(filepath.Join("cmd", name)); err != nil {
			t.Errorf("%s has no image: %v", name, err)
		}
		if !strings.Contains(service.Image, "}/"+name+":") {
			t.Errorf("%s runs %s", name, service.Image)
		}
		if service.Healthcheck.Test[1] != entrypoint {
			t.Errorf("%s is asked for its health by %q, and its binary is %s", name, service.Healthcheck.Test, entrypoint)
		}
		files := map[string]bool{}
		for _, secret := range service.Secrets {
			files["/run/secrets/"+secret.Target] = true
			if !s.Secrets[secret.Source].External {
				t.Errorf("%s has the secret %s, which is not declared", name, secret.Source)
			}
		}
		for variable, value := range service.Environment {
			setting, isSetting := known[variable]
			if strings.HasPrefix(variable, "FORGE_") && !isSetting {
				t.Errorf("%s sets %s, which is no setting", name, variable)
			}
			if setting.Secret {
				t.Errorf("%s has the secret %s in its environment, which docker service inspect shows", name, variable)
			}
			if strings.HasPrefix(value, "/run/secrets/") && !files[value] {
				t.Errorf("%s: %s is %s, which it is not given", name, variable, value)
			}
			delete(files, value)
		}
		for _, variable := range []string{"FORGE_TLS_CA", "FORGE_TLS_CERT", "FORGE_TLS_KEY"} {
			if service.Environment[variable] == "" {
				t.Errorf("%s has no %s: nobody knows it, and builds know one of its replicas alone", name, variable)
			}
		}
		for file := range files {
			t.Errorf("%s is given %s, which no variable names", name, file)
		}
	}
	made := slices.Sorted(maps.Keys(secretsMade(t, text)))
	if declared := slices.Sorted(maps.Keys(s.Secrets)); !slices.Equal(made, declared) {
		t.Errorf("the script at the top makes %q, and the stack takes %q", made, declared)
	}
}

// secretsMade runs the script at the top of stack.yaml with a docker that notes
// what it is told, and returns the secrets by their names.
func secretsMade(t *testing.T, text string) map[string]string {
	t.Helper()
	_, script, _ := strings.Cut(text, "#   (\n")
	script, _, found := strings.Cut(script, "#   )\n")
	if !found {
		t.Fatal("stack.yaml does not begin with how to make the secrets")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "your-app.private-key.pem"), "key", 0o600)
	write(t, filepath.Join(dir, "docker"), `#!/bin/sh
test "$1 $2 $4" = "secret create -" && cat >"${0%/*}/secret-$3" && test -s "${0%/*}/secret-$3"`, 0o755)
	run := exec.CommandContext(t.Context(), "sh", "-euc", strings.ReplaceAll(script, "#   ", ""))
	run.Dir, run.Env = dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	if _, err := output(run); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "secret-*"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	for _, file := range files {
		value, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		made[strings.TrimPrefix(filepath.Base(file), "secret-")] = string(value)
	}
	return made
}

// A service goes on while one of its machines dies or its replicas are replaced.
func TestStackSurvivesAMachineAndAnUpgrade(t *testing.T) {
	s, _ := readStack(t)
	for name, service := range s.Services {
		deploy := service.Deploy
		if deploy.Replicas < 2 || deploy.Endpoint != "dnsrr" {
			t.Errorf("%s has %d replicas behind a %q: callers share calls out among several by name", name, deploy.Replicas, deploy.Endpoint)
		}
		order := "start-first"
		for _, port := range service.Ports {
			// The swarm's own balancer needs a virtual address and hides who calls.
			if order = "stop-first"; port.Mode != "host" || deploy.Placement.Most != 1 {
				t.Errorf("%s publishes %d in mode %s, %d to a machine", name, port.Published, port.Mode, deploy.Placement.Most)
			}
		}
		if deploy.Update.Order != order || deploy.Rollback.Order != order || deploy.Update.Failure != "rollback" ||
			deploy.Update.Parallelism != 1 || deploy.Rollback.Parallelism != 1 {
			t.Errorf("%s is updated by %+v and rolled back by %+v, want %s, one at a time, and a rollback", name, deploy.Update, deploy.Rollback, order)
		}
	}
	if scheduler := s.Services["scheduler"]; !slices.Contains(scheduler.Deploy.Placement.Constraints, "node.role == manager") ||
		!slices.Contains(scheduler.Volumes, "/var/run/docker.sock:/var/run/docker.sock") {
		t.Errorf("the scheduler is placed by %q and has %q, want a manager's Docker engine", scheduler.Deploy.Placement.Constraints, scheduler.Volumes)
	}
	if network := s.Networks["forge"]; network.Driver != "overlay" {
		t.Errorf("services of several machines share a network of driver %q", network.Driver)
	}
}
