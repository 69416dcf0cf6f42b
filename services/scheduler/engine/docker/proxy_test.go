package docker_test

import (
	"os"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestBuildsHaveTheProxiesThatDockerRunPassesOn(t *testing.T) {
	r := newRig(t, docker.Config{
		Proxies: engine.Proxies(func(name string) string {
			return map[string]string{"HTTP_PROXY": "http://forge:3128", "https_proxy": "http://forge:3129", "ALL_PROXY": "http://forge:3130"}[name]
		}),
		Environment: map[string]string{"MIRROR": "a,b=c", "ALL_PROXY": "", "all_proxy": ""},
	})
	if err := os.WriteFile(r.config.ConfigFile, []byte(`{"proxies": {"default": {"httpProxy": "http://docker:3128", "noProxy": "*.example.com"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := r.spec(r.image(t, "ENV MIRROR=image"))
	spec.Sidecars = []engine.Sidecar{{Name: "db", Image: r.image(t, `CMD ["sleep", "1000"]`)}}
	name := r.start(t, spec)
	env := "\n" + strings.Join(r.inspect(t, name).Config.Env, "\n") + "\n"
	for _, want := range []string{
		"HTTP_PROXY=http://docker:3128", "http_proxy=http://docker:3128",
		"HTTPS_PROXY=http://forge:3129", "https_proxy=http://forge:3129",
		"NO_PROXY=*.example.com,db", "no_proxy=*.example.com,db", "ALL_PROXY=", "MIRROR=a,b=c",
	} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("no %s in %s", want, env)
		}
	}
	if beside := strings.Join(r.inspect(t, name+"-db").Config.Env, " "); strings.Contains(beside, "PROXY") {
		t.Errorf("the service is told %s", beside)
	}
}

func TestBuildsHaveNoProxiesWhereThereAreNone(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t))
	spec.Sidecars = []engine.Sidecar{{Name: "db", Image: r.image(t, `CMD ["sleep", "1000"]`)}}
	if env := strings.Join(r.inspect(t, r.start(t, spec)).Config.Env, " "); strings.Contains(strings.ToUpper(env), "_PROXY") {
		t.Errorf("the build is told %s", env)
	}
}
