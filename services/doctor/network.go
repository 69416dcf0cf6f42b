package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	forgesettings "github.com/forge-ci/forge/services/settings"
)

// status is what a Forge says of itself to anybody.
type status struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

// askStatus asks a Forge over HTTP. An error says why what is there is none. With a
// serverName the certificate may be any: that is on this host.
func askStatus(ctx context.Context, address, serverName string) (s status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(address, "/")+"/v1/status", nil)
	if err != nil {
		return s, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, InsecureSkipVerify: serverName != ""}, //nolint:gosec // see above
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close() //nolint:errcheck // it is only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return s, err
	}
	if answer.StatusCode != http.StatusOK || json.Unmarshal(text, &s) != nil || s.Status == "" {
		return s, fmt.Errorf("it answers %s, as no Forge does", answer.Status)
	}
	return s, nil
}

// ports are those that Forge listens on: free where it does not run, and its own else.
func (d *doctor) ports(ctx context.Context, r *report) {
	s := d.Settings
	scheme, host := "http", s.Address
	if s.HTTPSCert != "" || len(s.ACMEDomains) > 0 {
		scheme = "https"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	web := net.JoinHostPort(host, strconv.Itoa(s.Port))
	own, err := askStatus(ctx, scheme+"://"+web, cmp.Or(append(slices.Clone(s.ACMEDomains), "localhost")...))
	d.port(ctx, r, "HTTP", net.JoinHostPort(s.Address, strconv.Itoa(s.Port)), "FORGE_PORT", err == nil)
	d.port(ctx, r, "gRPC", s.GRPCAddress, "FORGE_GRPC_ADDRESS", d.runs)
	if err == nil && own.Version != forgesettings.Version {
		r.warn("version", fmt.Sprintf("the Forge that runs is %s, and this program is %s", own.Version, forgesettings.Version), "restart Forge, or use the program that it runs")
	}
}

func (d *doctor) port(ctx context.Context, r *report, what, address, setting string, own bool) {
	if own {
		r.finef(what, "%s is served by the Forge that runs", address)
		return
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		r.broken(what, fmt.Sprintf("Forge cannot listen on %s: %s", address, plainNetwork(err)), "end what listens there, or choose another with "+setting)
		return
	}
	_ = lis.Close()
	if d.runs {
		r.broken(what, "a Forge runs, and nothing listens on "+address, "start Forge anew with these settings")
		return
	}
	r.finef(what, "%s is free", address)
}

// rooms are the services where they run apart.
func (d *doctor) rooms(ctx context.Context, r *report) {
	if !d.Apart {
		if d.runs {
			if err := d.Settings.Certificate.Health(ctx, d.Settings.GRPCAddress, true); err != nil {
				r.broken("Forge", "it runs, and is not ready: "+err.Error(), "see its log")
				return
			}
			r.finef("Forge", "it runs at %s", d.Settings.GRPCAddress)
			d.versions(ctx, r)
			return
		}
		r.finef("Forge", "it does not run here now")
		return
	}
	for name, address := range map[string]string{
		"gateway": d.Settings.GRPCAddress, "config": d.Siblings.ConfigURL, "scheduler": d.Siblings.SchedulerURL, "reporter": d.Siblings.ReporterURL,
	} {
		if err := d.Settings.Certificate.Health(ctx, address, true); err != nil {
			r.broken(name, err.Error(), "start "+name+", or set the address at which it is")
			continue
		}
		r.finef(name, "it runs at %s", address)
	}
	d.versions(ctx, r)
}

// versions are those of the services that run, which are to fit together.
func (d *doctor) versions(ctx context.Context, r *report) {
	all := Versions(ctx, Where{d.Settings.GRPC, d.Settings.Certificate, d.Siblings})
	misfits := Misfits(all)
	for _, m := range misfits {
		r.broken("versions", m.Text, m.Fix)
	}
	var said []string
	for _, p := range all {
		if p.Error == "" {
			said = append(said, p.name(strings.Join(p.Rooms, ", "))+" at "+p.Address)
		}
	}
	if len(misfits) == 0 && len(said) > 0 {
		r.finef("versions", "they fit together: %s", strings.Join(said, "; "))
	}
}

// publicURL is how people reach Forge.
func (d *doctor) publicURL(ctx context.Context, r *report) {
	const check = "public address"
	err := d.Settings.CheckExternalURL()
	switch {
	case err != nil:
		r.broken(check, err.Error(), "set it to how people reach this Forge")
		return
	case !d.runs:
		r.skip(check, "whether "+d.Settings.ExternalURL+" leads here can be seen while Forge runs")
		return
	}
	_, err = askStatus(ctx, d.Settings.ExternalURL, "")
	if err == nil {
		r.finef(check, "%s leads to a Forge", d.Settings.ExternalURL)
		return
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		r.broken(check, fmt.Sprintf("%s shows a certificate that is not accepted: %v", d.Settings.ExternalURL, certificate.Err), "have it serve one for its name that a public authority vouches for, or FORGE_ACME_DOMAINS get it")
		return
	}
	r.warn(check, fmt.Sprintf("%s does not lead to this Forge, as seen from here: %s", d.Settings.ExternalURL, plainNetwork(err)), "check its name, the proxy in front and the firewall; or set FORGE_EXTERNAL_URL")
}

// endsSoon is from when on the end of a certificate is told.
const endsSoon = 14 * 24 * time.Hour

// certificates are those that Forge serves with.
func (d *doctor) certificates(_ context.Context, r *report) {
	s := d.Settings
	for _, pair := range []struct{ name, cert, key, host string }{
		{"FORGE_HTTPS_CERT", s.HTTPSCert, s.HTTPSKey, hostOf(s.ExternalURL)}, {"FORGE_TLS_CERT", s.TLSCert, s.TLSKey, ""},
	} {
		if pair.cert == "" && pair.key == "" {
			continue
		}
		loaded, err := tls.LoadX509KeyPair(pair.cert, pair.key)
		if err != nil {
			r.broken(pair.name, err.Error(), "name a certificate and the key that belongs to it, both PEM")
			continue
		}
		left := loaded.Leaf.NotAfter.Sub(d.Now())
		end := loaded.Leaf.NotAfter.Format(time.DateOnly)
		switch {
		case left <= 0:
			r.broken(pair.name, "the certificate ended on "+end, "replace it; Forge reads it again by itself")
		case d.Now().Before(loaded.Leaf.NotBefore):
			r.broken(pair.name, "the certificate begins on "+loaded.Leaf.NotBefore.Format(time.DateOnly), "replace it, or set this host's clock")
		case pair.host != "" && loaded.Leaf.VerifyHostname(pair.host) != nil:
			r.broken(pair.name, fmt.Sprintf("the certificate is not for %s, which FORGE_EXTERNAL_URL names", pair.host), "use one for that name")
		case left < endsSoon:
			r.warn(pair.name, "the certificate ends on "+end, "replace it; Forge reads it again by itself")
		default:
			r.finef(pair.name, "the certificate is good until %s", end)
		}
	}
	if len(s.ACMEDomains) > 0 && s.HTTPSCert != "" {
		r.warn("FORGE_ACME_DOMAINS", "there is a certificate of one's own besides", "unset FORGE_HTTPS_CERT or FORGE_ACME_DOMAINS")
	}
}

func hostOf(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return parsed.Hostname()
}
