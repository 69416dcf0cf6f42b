package services_test

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// scraped is swarm.yaml of Prometheus, as far as it tells of the services.
type scraped struct {
	Rules []string `yaml:"rule_files"`
	Jobs  []struct {
		Scheme string
		TLS    struct {
			CA     string `yaml:"ca_file"`
			Server string `yaml:"server_name"`
		} `yaml:"tls_config"`
		Found []struct {
			Names []string
			Type  string
			Port  int
		} `yaml:"dns_sd_configs"`
		Labels []struct {
			Target      string `yaml:"target_label"`
			Replacement string
		} `yaml:"relabel_configs"`
	} `yaml:"scrape_configs"`
}

// Prometheus asks each service of the stack, where it serves and by the name that its
// certificate has, and finds all that its own files name.
func TestTheStacksMetricsAreAskedOfEachService(t *testing.T) {
	s, text := readStack(t)
	made := secretsMade(t, text)
	config := loadYAML[scraped](t, "../deploy/prometheus/swarm.yaml")
	var asked []string
	for _, job := range config.Jobs {
		if len(job.Found) != 1 || len(job.Found[0].Names) != 1 || len(job.Labels) != 1 {
			t.Fatalf("a job is %+v", job)
		}
		name, at := job.Found[0].Names[0], job.Found[0]
		asked = append(asked, name)
		if job.Scheme != "https" || at.Type != "A" || at.Port != 9090 || s.Services[name].Environment["FORGE_GRPC_ADDRESS"] != "0.0.0.0:9090" {
			t.Errorf("%s serves at %q, and is asked by %s at %d", name, s.Services[name].Environment["FORGE_GRPC_ADDRESS"], job.Scheme, at.Port)
		}
		block, _ := pem.Decode([]byte(made["forge_"+name+"_cert"]))
		if block == nil {
			t.Fatalf("%s has no certificate", name)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := certificate.VerifyHostname(job.TLS.Server); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if job.TLS.CA != "/run/secrets/authority" || job.Labels[0].Target != "job" || job.Labels[0].Replacement != "forge" {
			t.Errorf("%s: %+v; the alerts ask for the job forge", name, job)
		}
	}
	slices.Sort(asked)
	if want := slices.Sorted(maps.Keys(s.Services)); !slices.Equal(asked, want) {
		t.Errorf("asked are %q, and there are %q", asked, want)
	}

	type mounted struct{ Source, Target string }
	beside := loadYAML[struct {
		Services map[string]struct {
			Networks         []string
			Secrets, Configs []mounted
		}
		Configs map[string]struct{ File string }
	}](t, "../deploy/swarm/metrics.yaml")
	targets := map[string]bool{}
	for name, service := range beside.Services {
		if !slices.Equal(service.Networks, []string{"forge"}) {
			t.Errorf("%s is in %q", name, service.Networks)
		}
		for _, secret := range service.Secrets {
			targets["/run/secrets/"+secret.Target] = true
			if !s.Secrets[secret.Source].External {
				t.Errorf("%s has the secret %s, which the stack has not", name, secret.Source)
			}
		}
		for _, config := range service.Configs {
			targets[config.Target] = true
			if _, err := os.Stat(filepath.Join("../deploy/swarm", beside.Configs[config.Source].File)); err != nil || beside.Configs[config.Source].File == "" {
				t.Errorf("%s has the config %s: %v", name, config.Source, err)
			}
		}
	}
	for _, file := range append(config.Rules, "/run/secrets/authority") {
		if !targets[file] {
			t.Errorf("swarm.yaml names %s, which nobody puts there", file)
		}
	}
	if rules, err := os.ReadFile("../deploy/prometheus/forge.rules.yaml"); err != nil || !strings.Contains(string(rules), `job="forge"`) {
		t.Error("the alerts ask for another job")
	}
}

func loadYAML[T any](t *testing.T, file string) (value T) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Load(content, &value)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return value
}
