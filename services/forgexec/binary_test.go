package forgexec

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// What is copied into each container runs in any image, and is small.
func TestTheBinaryIsStaticAndSmall(t *testing.T) {
	const most = 16_500_000 // gRPC, OTLP, and the protocol of BuildKit's files are most of it
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		path := filepath.Join(t.TempDir(), "forgexec")
		// As the Makefile and the Dockerfile build it.
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/forgexec")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", arch, err, output)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > most {
			t.Errorf("for %s: %d bytes, %v; at most %d", arch, info.Size(), err, most)
		}
		binary, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if binary.Machine != machine {
			t.Errorf("for %s: built for %v", arch, binary.Machine)
		}
		for _, program := range binary.Progs {
			if program.Type == elf.PT_INTERP || program.Type == elf.PT_DYNAMIC {
				t.Errorf("for %s: it is linked with libraries of the image", arch)
			}
		}
		_ = binary.Close()
		if arch == runtime.GOARCH && runtime.GOOS == "linux" {
			waitsInLittleMemory(t, path)
		}
	}
}

// waitsInLittleMemory holds a process that waits for an attempt to what docs/performance.md
// promises of one: several wait on each host.
func waitsInLittleMemory(t *testing.T, program string) {
	t.Helper()
	const most = 10 << 10                            // KiB
	begun := filepath.Join(t.TempDir(), "workspace") // made last before it waits
	waits := exec.Command(program)
	waits.Env = []string{waitsEnv + "=1", urlEnv + "=127.0.0.1:1", workspaceEnv + "=" + begun}
	never, err := waits.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = never.Close(), waits.Wait() }()
	kittest.Eventually(t, 30*time.Second, func() error {
		if _, err := os.Stat(begun); err != nil {
			return err
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", waits.Process.Pid))
		if err != nil {
			return err
		}
		var kib int
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		if _, err := fmt.Sscan(rss, &kib); err != nil {
			return err
		}
		if kib > most {
			return fmt.Errorf("%d KiB, want at most %d", kib, most)
		}
		return nil
	})
}
