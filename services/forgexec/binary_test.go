package forgexec

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
	}
}
