package wire_test

import (
	"bytes"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/forge-ci/forge/services/githubsim"
)

// BenchmarkCache is what a cache of 1 GB in 20,000 files costs: to restore it, in the
// rate of tar (at least 0.5); to save it once more as it is, in the time of the first
// save (at most 0.3); and what of it is written after a change of 1 % (under 5 %).
func BenchmarkCache(b *testing.B) {
	const count, size = 20_000, 1 << 30
	use := func(does string) githubsim.Commit {
		return githubsim.Commit{Files: map[string]string{
			"lock": does + "\n",
			".forge.yml": lines(
				"image: busybox", `cache: [{key: "deps-${hash:lock}", restore: [deps-], paths: [deps]}]`, "timeout: 10m", "execute: ['true']",
				"push:", "  branches: [main]", "  execute:", "    - "+does, "    - grep VmHWM /proc/$PPID/status",
			),
		}}
	}
	w := newWorld(b, use("true").Files)
	from := filepath.Join(w.dir, "deps")
	some := filepath.Join(w.dir, "some")
	plant(b, from, 0, count, size/count)
	plant(b, some, count/2, count/100, size/count)
	archive := filepath.Join(w.dir, "deps.tar")
	run(b, "tar", "-cf", archive, "-C", from, ".")
	w.up(b)
	logOf := func(change githubsim.Commit) string {
		run(b, "sync") // else one pays for what was written before
		return w.log(b, w.shows(b, w.push(b, "main", change), "forge/push", "success").TargetURL)
	}
	w.patience = 2 * time.Minute
	// Disks take their time as they are, so tar is measured before and after.
	untarred := func() time.Duration {
		into := filepath.Join(w.dir, "untarred")
		must(b, os.MkdirAll(into, 0o755))
		run(b, "sync")
		begin := time.Now()
		run(b, "tar", "-xf", archive, "-C", into)
		took := time.Since(begin)
		must(b, os.RemoveAll(into))
		return took
	}
	b.ResetTimer()
	for b.Loop() {
		first := took(b, logOf(use("cp -a "+from+" .")), `saved, .* in (\S+),`)
		before := untarred()
		again := logOf(use("true # again"))
		tar := (before + untarred()) / 2
		restored := took(b, again, `restored from .* in (\S+)\n`)
		unchanged := took(b, again, `saved, .* in (\S+),`)
		changed := logOf(use("cp -a " + some + "/. deps"))
		written, err := humanize.ParseBytes(found(b, changed, `saved, .*, (.*) of it new`))
		must(b, err)
		peak, err := strconv.Atoi(found(b, changed, `VmHWM:\s+(\d+) kB`))
		must(b, err)
		b.ReportMetric(tar.Seconds()/restored.Seconds(), "of-tar")
		b.ReportMetric(restored.Seconds(), "s/restore")
		b.ReportMetric(first.Seconds(), "s/first-save")
		b.ReportMetric(unchanged.Seconds()/first.Seconds(), "unchanged-of-first")
		b.ReportMetric(float64(written)/size*100, "%-written")
		b.ReportMetric(float64(peak)/1024, "MiB-forgexec")
		b.ReportMetric(w.process("forge").peak(b), "MiB-forge")
	}
}

// plant makes files, of which half is noise, beginning with a number.
func plant(t testing.TB, dir string, from, count, size int) {
	t.Helper()
	noise := mathrand.NewChaCha8([32]byte{byte(from)})
	content := make([]byte, size)
	for n := from; n < from+count; n++ {
		name := filepath.Join(dir, strconv.Itoa(n%100), strconv.Itoa(n))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		_, _ = noise.Read(content[:size/2])
		copy(content[size/2:], bytes.Repeat([]byte("text that repeats itself\n"), size/25))
		must(t, os.WriteFile(name, content, 0o644))
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func found(t testing.TB, log, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(log)
	if match == nil {
		t.Fatalf("nothing matches %s in the log:\n%s", pattern, log)
	}
	return match[1]
}

func took(t testing.TB, log, pattern string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(found(t, log, pattern))
	must(t, err)
	return d
}

// BenchmarkLogBesideCaches is the rate at which a log arrives while another build
// restores and saves caches, in that of the log alone: at least 0.8.
func BenchmarkLogBesideCaches(b *testing.B) {
	const size, kept = 100 << 20, 256 << 20
	w := newWorld(b, nil)
	bulk, from := filepath.Join(w.dir, "bulk"), filepath.Join(w.dir, "deps")
	must(b, os.WriteFile(bulk, bytes.Repeat([]byte("2026-11-23T12:00:00.000001Z  --- PASS: TestSomething (0.02s)\n"), size/60), 0o600))
	plant(b, from, 0, 5000, kept/5000)
	w.push(b, "main", files(".forge.yml", lines("image: busybox", "execute: [cat '"+bulk+"']")))
	w.env = append(w.env, "FORGE_LOG_LIMIT=0")
	w.deploy(b, deployment{apart: true})
	w.patience = 2 * time.Minute
	printed := func(name string) time.Duration {
		_, sha := w.propose(b, name, files("notes", name))
		var waits []time.Duration
		_, took := w.follow(b, sha, nil, &waits)
		return took
	}
	keep := func(name, does string) (sha string) {
		sha = w.branch(b, name, files(".forge.yml", lines(
			"image: busybox", "jobs:", "  keep:", "    matrix: {n: [1, 2, 3, 4, 5, 6]}",
			`    cache: [{key: "deps-${FORGE_SHA}-${n}", restore: [deps-], paths: [deps]}]`, "    execute: ['test -e deps || "+does+"']",
		)))
		w.open(b, name)
		return sha
	}
	var alone, beside time.Duration
	for n := 0; b.Loop(); n++ {
		alone += printed(fmt.Sprintf("alone-%d", n))
		// Each job has a key of its own: it restores what another has saved, and saves.
		w.shows(b, keep(fmt.Sprintf("fills-%d", n), "cp -a "+from+" ."), "forge/test", "success")
		keeps := w.push(b, fmt.Sprintf("fills-%d", n), files("notes", "again"))
		w.shows(b, keeps, "forge/test", "pending")
		beside += printed(fmt.Sprintf("beside-%d", n))
		w.shows(b, keeps, "forge/test", "success")
	}
	b.ReportMetric(float64(alone)/float64(beside), "ratio")
	b.ReportMetric(0, "ns/op")
}
