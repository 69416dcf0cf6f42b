package services_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const testedVersion = "v0.0.0-test"

// buildImages makes an image of each service: by deploy/Dockerfile where its
// builder's image can be had, else by its final stage, from what the builder's
// commands make on this host.
func (d *deployment) buildImages(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, folder := "../deploy/Dockerfile", ".."
	if why := unbuildable(string(text)); why != nil {
		t.Logf("binaries from this host, since the builder's image cannot be used: %v", why)
		dockerfile, folder = d.finalStage(t, string(text))
	}
	for name, service := range d.built() {
		if service.Build.Context != ".." || service.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("compose.yaml: %s is built from %+v", name, service.Build)
		}
		d.image(t, name, folder, "--file", dockerfile, "--build-arg", "SERVICE="+service.Build.Args["SERVICE"])
		t.Logf("the image of %s has %s bytes", name, d.must(t, "image", "inspect", "--format", "{{.Size}}", d.imageName(name)))
	}
	d.image(t, "forge", folder, "--file", dockerfile)
	if says := d.must(t, "run", "--rm", d.imageName("forge"), "version"); !strings.Contains(says, testedVersion) {
		t.Errorf("forge version says %q, want %s", says, testedVersion)
	}
}

// unbuildable says why Docker cannot follow the whole Dockerfile here.
func unbuildable(dockerfile string) error {
	if _, err := docker("buildx", "version"); err != nil {
		return fmt.Errorf("no BuildKit: %w", err)
	}
	builder := regexp.MustCompile(`golang:\S+`).FindString(dockerfile)
	if _, err := docker("image", "inspect", builder); err == nil {
		return nil
	}
	_, err := docker("pull", "--quiet", builder)
	return err
}

// finalStage returns a Dockerfile with the final stage only, and its folder.
func (d *deployment) finalStage(t *testing.T, text string) (dockerfile, folder string) {
	t.Helper()
	const begin = "\nFROM scratch\n"
	builder, final, found := strings.Cut(text, begin)
	if !found {
		t.Fatal("Dockerfile has no final stage")
	}
	root := t.TempDir()
	compile(t, builder, root)
	write(t, filepath.Join(root, "Dockerfile"), "FROM scratch\nCOPY . /\n", 0o644)
	d.image(t, "builder", root)
	folder = t.TempDir()
	dockerfile = filepath.Join(folder, "Dockerfile")
	write(t, dockerfile, "FROM "+d.imageName("builder")+" AS build"+begin+final, 0o644)
	return dockerfile, folder
}

// compile does below root what the builder's stage does in a container.
func compile(t *testing.T, builder, root string) {
	t.Helper()
	arch, err := docker("version", "--format", "{{.Server.Arch}}")
	if err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+arch, "VERSION="+testedVersion)
	var scripts []string
	for line := range strings.Lines(strings.ReplaceAll(builder, "\\\n", " ")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case instruction == "ENV":
			environment = append(environment, strings.Fields(rest)...)
		case instruction == "RUN" && strings.Contains(rest, "/out/"):
			scripts = append(scripts, regexp.MustCompile(`--mount=\S+`).ReplaceAllString(rest, ""))
		}
	}
	for _, script := range scripts {
		run := exec.Command("sh", "-euc", strings.ReplaceAll(script, "/out/", root+"/out/"))
		run.Dir, run.Env = "..", environment
		if _, err := output(run); err != nil {
			t.Fatalf("%s, as in the Dockerfile: %v", script, err)
		}
	}
	write(t, filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"), "", 0o644) // GitHub has no TLS here
}

// busybox makes the image of builds.
func (d *deployment) busybox(t *testing.T) (image string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("this test makes its image of busybox: install busybox-static")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write(t, filepath.Join(folder, "busybox"), string(program), 0o755)
	write(t, filepath.Join(folder, "Dockerfile"),
		"FROM scratch\nCOPY busybox /bin/\nWORKDIR /tmp\n"+`RUN ["/bin/busybox", "--install", "-s", "/bin"]`, 0o644)
	d.image(t, "busybox", folder)
	return d.imageName("busybox")
}

// image builds an image that goes when the test ends.
func (d *deployment) image(t *testing.T, name, folder string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "--quiet", "--tag", d.imageName(name), "--build-arg", "VERSION=" + testedVersion}, flags...)
	d.must(t, append(args, folder)...)
	t.Cleanup(func() { d.must(t, "image", "rm", "--force", d.imageName(name)) })
}

func (d *deployment) imageName(name string) string { return d.name + "/" + name }

func (d *deployment) must(t *testing.T, args ...string) string {
	t.Helper()
	says, err := docker(args...)
	if err != nil {
		t.Fatal(err)
	}
	return says
}

func docker(args ...string) (string, error) { return output(exec.Command("docker", args...)) }

// output is what a command says on its standard output; the error has the rest.
func output(command *exec.Cmd) (string, error) {
	var trouble bytes.Buffer
	command.Stderr = &trouble
	says, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, &trouble)
	}
	return strings.TrimSpace(string(says)), nil
}

// write writes a file, and the folders above it.
func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}
