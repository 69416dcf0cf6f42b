package buildfile

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	ofTheFile = `image: file
environment: {A: file}
services: {file: {image: file}}
secrets: [FILE]
timeout: 1m
resources: {cpus: 1}
ports: {1: 1}
privileged: true
volumes: {file: /file}
working_directory: file
platform: linux/arm64
shell: bash
retry: 1
keep: 1m
source: {history: 5}
cache: {key: file, paths: file}
artifacts: file
reports: {junit: file.xml}
`
	ofTheJob = `image: job
environment: {A: job}
services: {}
secrets: []
timeout: 2m
resources: {cpus: 2}
ports: {}
privileged: false
volumes: {}
working_directory: job
platform: linux/amd64
shell: sh
retry: 2
keep: 0
source: {history: none}
cache: {key: job, paths: job}
artifacts: job
reports: {go: job.json}
`
)

// shared are the fields that a file and a job both have.
func shared(t *testing.T) []protoreflect.Name {
	t.Helper()
	var all []protoreflect.Name
	fields := (&configv1.Job{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		name := fields.Get(i).Name()
		if (&configv1.BuildConfig{}).ProtoReflect().Descriptor().Fields().ByName(name) != nil {
			all = append(all, name)
		}
	}
	if len(all) != strings.Count(ofTheFile, "\n") || len(all) != strings.Count(ofTheJob, "\n") {
		t.Fatalf("a file and a job share %v, which is not what the test writes", all)
	}
	return all
}

func fieldOf(m proto.Message, name protoreflect.Name) protoreflect.Value {
	return m.ProtoReflect().Get(m.ProtoReflect().Descriptor().Fields().ByName(name))
}

func parsed(t *testing.T, text string) *configv1.BuildConfig {
	t.Helper()
	config, problems := Parse([]byte(text))
	if len(problems) > 0 {
		t.Fatalf("%s\ngives\n%s", text, Format(Name, problems))
	}
	return config
}

func TestJobTakesFromTheFileWhatItLeavesOut(t *testing.T) {
	indented := "    " + strings.ReplaceAll(strings.TrimSpace(ofTheJob), "\n", "\n    ")
	for where, open := range map[string]string{"jobs": "jobs:\n", "push": "execute: make\npush:\n branches: main\n jobs:\n"} {
		config := parsed(t, ofTheFile+open+"  bare: {execute: make}\n  own:\n    execute: make\n"+indented+"\n")
		alone := parsed(t, strings.Replace(ofTheJob, "secrets: []\n", "", 1)+"execute: make\n")
		jobs := config.GetExecute().GetJobs()
		if where == "push" {
			jobs = config.GetPush().GetExecute().GetJobs()
		}
		for _, name := range shared(t) {
			if got, want := fieldOf(jobs[0], name), fieldOf(config, name); !got.Equal(want) {
				t.Errorf("%s: a bare job has %s %v, the file %v", where, name, got, want)
			}
			if got, want := fieldOf(jobs[1], name), fieldOf(alone, name); !got.Equal(want) {
				t.Errorf("%s: of its own a job has %s %v, want %v", where, name, got, want)
			}
		}
	}
}

// 10,000 cells are an error, and no more than that.
func TestCellsAreCountedBeforeTheyAreMade(t *testing.T) {
	for _, name := range []string{"10,000 cells", "2 to the 2000", "values"} {
		text := []byte(hostileJobs()[name])
		_, _ = Parse(text) // what is made once is not counted
		read, _ := cost(func() { _, _ = load(text) })
		all, _ := cost(func() { Parse(text) })
		if all > 2*read+256<<10 { // the cells alone would be many MB
			t.Errorf("%s: %d KB to read it and %d in all", name, read>>10, all>>10)
		}
	}
}
