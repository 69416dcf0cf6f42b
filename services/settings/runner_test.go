package settings_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

// reached listens as s says and shows that one who is told what forgexec is told
// gets through. It returns what is trusted.
func reached(t *testing.T, s settings.Scheduler, dataDir string, own settings.Certificate) (ca string) {
	t.Helper()
	r, err := s.ListenRunner(t.Context(), dataDir, own)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Certify(settings.InDataDir(dataDir).Keep); err != nil {
		t.Fatal(err)
	}
	lis := tls.NewListener(r.Listener, r.TLS)
	done := make(chan error, 1)
	go func() {
		conn, err := lis.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		done <- err
	}()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(r.CA))
	conn, err := tls.Dial("tcp", r.URL, &tls.Config{RootCAs: trusted})
	if err != nil {
		t.Fatalf("dial %s: %v", r.URL, err)
	}
	_ = conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return r.CA
}

func TestRunnerAddressForOtherMachinesSpeaksTLS(t *testing.T) {
	dir := t.TempDir()
	s := settings.Scheduler{RunnerAddress: "127.0.0.1:0"}
	first := reached(t, s, dir, settings.Certificate{})
	if again := reached(t, s, dir, settings.Certificate{}); again != first {
		t.Error("a build that outlives a restart no longer trusts Forge")
	}
	if info, err := os.Stat(dir + "/runner-tls/key.pem"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	other := settings.Scheduler{RunnerAddress: "localhost:0"}
	if now := reached(t, other, dir, settings.Certificate{}); now == first {
		t.Error("another name has the certificate of the first")
	}

	cert, key, err := rpc.SelfSigned("mine", []string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own := settings.Certificate{TLSCert: dir + "/cert.pem", TLSKey: dir + "/key.pem", TLSCA: dir + "/cert.pem"}
	for file, text := range map[string][]byte{own.TLSCert: cert, own.TLSKey: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ca := reached(t, s, t.TempDir(), own); ca != string(cert) {
		t.Errorf("with a certificate of one's own, forgexec trusts %q", ca)
	}
}

func TestRunnerURLIsWhatBuildsDial(t *testing.T) {
	r, err := settings.Scheduler{RunnerAddress: "0.0.0.0:0", RunnerURL: "forge.test:9094"}.ListenRunner(t.Context(), t.TempDir(), settings.Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Certify(settings.InDataDir(t.TempDir()).Keep); err != nil {
		t.Fatal(err)
	}
	leaf := r.TLS.Certificates[0].Leaf
	if r.URL != "forge.test:9094" || leaf.VerifyHostname("forge.test") != nil {
		t.Errorf("forgexec is told %s, the certificate is for %v %v", r.URL, leaf.DNSNames, leaf.IPAddresses)
	}
}

func TestRunnerAddressesThatCannotBe(t *testing.T) {
	broken := t.TempDir()
	if err := os.MkdirAll(broken+"/runner-tls", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cert.pem", "key.pem"} {
		if err := os.WriteFile(broken+"/runner-tls/"+name, []byte("half a f"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, c := range map[string]struct {
		s   settings.Scheduler
		own settings.Certificate
		dir string
	}{
		"use unix:///path/to/a/socket or host:port":       {s: settings.Scheduler{RunnerAddress: "/run/forge.sock"}},
		"FORGE_RUNNER_URL is \"tcp\"":                     {s: settings.Scheduler{RunnerAddress: "127.0.0.1:0", RunnerURL: "tcp"}},
		"0.0.0.0:0, which nobody can dial":                {s: settings.Scheduler{RunnerAddress: "0.0.0.0:0"}},
		":0, which nobody can dial: set FORGE_RUNNER_URL": {s: settings.Scheduler{RunnerAddress: ":0"}},
		"FORGE_TLS_CERT and FORGE_TLS_KEY go together":    {s: settings.Scheduler{RunnerAddress: "127.0.0.1:0"}, own: settings.Certificate{TLSCert: "cert.pem"}},
		"runner-tls to have it made anew":                 {s: settings.Scheduler{RunnerAddress: "127.0.0.1:0"}, dir: broken},
	} {
		dir := c.dir
		if dir == "" {
			dir = t.TempDir()
		}
		r, err := c.s.ListenRunner(t.Context(), dir, c.own)
		if err == nil {
			err = r.Certify(settings.InDataDir(dir).Keep)
			_ = r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v; want %q", c.s, r.URL, err, want)
		}
	}
}
