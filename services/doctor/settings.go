package doctor

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
)

// settings are those that Forge cannot do without, and those that contradict each other.
func (d *doctor) settings(_ context.Context, r *report) {
	s, good := d.Settings, true
	refuse := func(check string, err error) {
		if err != nil {
			good = false
			r.broken(check, err.Error(), "set it, or make an App by forge app create")
		}
	}
	_, err := s.Key()
	refuse("App", err)
	_, err = s.Secrets()
	refuse("webhook secret", err)
	for _, one := range []struct {
		check string
		err   error
	}{
		{"admin token", s.CheckAdmin()},
		{"key of secrets", s.CheckKeys(s.Common)},
		{"key of sessions", s.CheckSessionKeys(s.Common)},
		{"trace address", s.CheckTraceURL()},
	} {
		if one.err != nil {
			good = false
			r.broken(one.check, one.err.Error(), "forge up does not start before it is mended")
		}
	}
	if err := s.CheckEngine(); err != nil {
		good = false
		r.broken("engine", err.Error(), "change the one or the other")
	}
	if info, err := os.Stat(s.GitHubPrivateKeyFile); err == nil && info.Mode().Perm()&0o077 != 0 {
		good = false
		r.warn("private key", fmt.Sprintf("%s can be read by others on this host: its mode is %#o", s.GitHubPrivateKeyFile, info.Mode().Perm()), "chmod 600 "+s.GitHubPrivateKeyFile)
	}
	if owner, other := ownedByAnother(s.DataDir); other {
		good = false
		r.warn("data directory", fmt.Sprintf("%s belongs to the user %d, and this is %d: what is made as this user, Forge may not be able to use", s.DataDir, owner, os.Geteuid()),
			"run forge doctor as the user that Forge runs as")
	}
	if address, err := url.Parse(s.ExternalURL); err == nil && isLoopback(address.Hostname()) && s.GitHubURL == "https://github.com" {
		good = false
		r.warn("public address", fmt.Sprintf("FORGE_EXTERNAL_URL is %s: the links on GitHub lead to whatever machine they are followed from", s.ExternalURL), "set FORGE_EXTERNAL_URL to how people reach this Forge")
	}
	if good {
		r.finef("settings", "complete; the App is %d", s.GitHubAppID)
	}
}

func ownedByAnother(path string) (owner uint32, other bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return statOwner(stat, ok), ok && int(stat.Uid) != os.Geteuid()
}

func statOwner(stat *syscall.Stat_t, ok bool) uint32 {
	if !ok {
		return 0
	}
	return stat.Uid
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
