package engine

import (
	"maps"
	"strings"
)

// Proxies are the variables of an environment by which programs know of proxies,
// each in capitals and in small letters: some programs read one, some the other.
func Proxies(getenv func(name string) string) map[string]string {
	found := map[string]string{}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		small := strings.ToLower(name)
		for _, candidate := range []string{getenv(small), getenv(name)} { // capitals win
			if candidate != "" {
				found[name], found[small] = candidate, candidate
			}
		}
	}
	return found
}

// Beside returns the environment with what stands beside a build added to the
// hosts that are reached without the proxies, if there are any.
func Beside(environment map[string]string, sidecars []Sidecar) map[string]string {
	all := maps.Clone(environment)
	proxied := false
	for name := range environment {
		proxied = proxied || strings.HasSuffix(strings.ToUpper(name), "_PROXY")
	}
	if !proxied || len(sidecars) == 0 {
		return all
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		hosts := []string{}
		if all[name] != "" {
			hosts = append(hosts, all[name])
		}
		for _, s := range sidecars {
			hosts = append(hosts, s.Name)
		}
		all[name] = strings.Join(hosts, ",")
	}
	return all
}
