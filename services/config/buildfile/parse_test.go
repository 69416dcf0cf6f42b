package buildfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// each hands every file of a folder to show, and holds all it wrote against one
// golden file.
func each(t *testing.T, folder string, show func(out *bytes.Buffer, config *configv1.BuildConfig, problems []*Problem)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.yml"))
	if err != nil || len(paths) < 25 {
		t.Fatalf("%d files in testdata/%s, error %v", len(paths), folder, err)
	}
	var out bytes.Buffer
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		config, problems := Parse(text)
		fmt.Fprintf(&out, "== %s\n", strings.TrimSuffix(filepath.Base(path), ".yml"))
		show(&out, config, problems)
	}
	kittest.Golden(t, folder, out.Bytes())
}

func TestGoodFilesAreRead(t *testing.T) {
	each(t, "good", func(out *bytes.Buffer, config *configv1.BuildConfig, problems []*Problem) {
		for _, p := range problems {
			t.Errorf("good file: %v", p)
		}
		text, err := protojson.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		// protojson varies its spaces on purpose.
		if err := json.Indent(out, text, "", "  "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	})
}

func TestBadFilesAreRefusedInWords(t *testing.T) {
	each(t, "bad", func(out *bytes.Buffer, config *configv1.BuildConfig, problems []*Problem) {
		if config != nil || len(problems) == 0 || len(problems) > maxProblems {
			t.Errorf("config %v, %d problems", config, len(problems))
		}
		out.WriteString(Format(Name, problems))
	})
}

func TestFileMayBeAsLargeAsTheLimit(t *testing.T) {
	small := "image: busybox\nexecute: make\n#"
	if _, problems := Parse([]byte(small + strings.Repeat("x", MaxSize-len(small)))); len(problems) > 0 {
		t.Errorf("at the limit: %v", problems[0])
	}
	_, problems := Parse([]byte(small + strings.Repeat("x", MaxSize-len(small)+1)))
	if len(problems) != 1 || problems[0].GetMessage() != Oversize {
		t.Errorf("over the limit: %v", problems)
	}
}

func TestExactlyAsManyCommandsAsTheLimit(t *testing.T) {
	config, problems := Parse([]byte("image: busybox\nexecute:\n" + strings.Repeat("  - make\n", maxSteps)))
	if len(problems) > 0 || len(config.GetExecute().GetCommands()) != maxSteps {
		t.Errorf("%d commands, problems %v", len(config.GetExecute().GetCommands()), problems)
	}
}

// A key that is in the contract can be written, and the other way round.
func TestKeysAreThoseOfTheContract(t *testing.T) {
	known := strings.Join(Keys(), " ") + " "
	for path, message := range map[string]proto.Message{
		"": &configv1.BuildConfig{}, "jobs.*.": &configv1.Job{}, "jobs.*.if.": &configv1.Condition{}, "services.*.": &configv1.Sidecar{},
		"execute[].": &configv1.Command{}, "cache[].": &configv1.Cache{}, "artifacts[].": &configv1.Artifact{},
	} {
		fields := message.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			name := strings.Replace(path+string(fields.Get(i).Name()), "deploy_", "deploy.", 1)
			switch name {
			case "jobs.*.name", "jobs.*.title": // the key of the job, and what is made of it
				continue
			case "jobs.*.condition":
				name = "jobs.*.if"
			case "jobs.*.commands":
				name = "jobs.*.execute"
			case "environments":
				name = "deploy"
			case "caches", "jobs.*.caches", "schedules":
				name = strings.TrimSuffix(name, "s")
			case "cache[].save_always":
				name = "cache[].save"
			}
			if !strings.Contains(" "+known, " "+name+" ") {
				t.Errorf("the contract has %s, the file has not", name)
			}
		}
	}
}

// hostile are files that cost most for their size.
func hostile() map[string]string {
	fill := func(unit string) string { return strings.Repeat(unit, MaxSize/len(unit)) }
	files := map[string]string{
		"lists":         fill("["),
		"mappings":      fill("{a: "),
		"dashes":        fill("- "),
		"questions":     fill("? "),
		"colons":        fill(": "),
		"tags":          fill("!a "),
		"anchors":       fill("&a "),
		"items":         "execute: [" + strings.Repeat("a,", maxMarks-2) + "]",
		"long items":    "execute:\n" + strings.Repeat("- aaaaaaaaaa\n", maxMarks-2),
		"empty items":   "execute:\n" + strings.Repeat("-\n", maxMarks-2),
		"aliases":       "image: &a b\nexecute:\n" + strings.Repeat("- *a\n", maxMarks/2-3),
		"keys":          "",
		"unknown keys":  "",
		"quotes":        "image: '" + fill("''")[:MaxSize-10] + "'",
		"escapes":       "image: \"" + fill(`\n`)[:MaxSize-10] + "\"",
		"comments":      fill("# x\n"),
		"documents":     fill("---\n"),
		"literal":       "image: |\n" + fill(" x\n")[:MaxSize-9],
		"long word":     fill("a"),
		"image":         "image: " + fill("a-")[:maxMarks*2-10],
		"image slashes": "image: " + fill("a/")[:MaxSize-10],
		"carriage":      fill("\r"),
		"lines":         fill("\n"),
		"spaces":        fill(" "),
		"words":         fill("a\n"),
	}
	var keys, unknown strings.Builder
	keys.WriteString("environment:\n")
	for i := range maxMarks - 1 {
		fmt.Fprintf(&keys, " A%d: b\n", i)
		fmt.Fprintf(&unknown, "execut%d: b\n", i)
	}
	files["keys"], files["unknown keys"] = keys.String()[:min(keys.Len(), MaxSize)], unknown.String()[:min(unknown.Len(), MaxSize)]
	var bomb strings.Builder
	bomb.WriteString("environment:\n  A0: &a0 '" + strings.Repeat("x", 1000) + "'\n")
	for i := range 500 {
		fmt.Fprintf(&bomb, "  B%d: &a%d [%s]\n", i, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 5))
	}
	files["bomb"] = bomb.String()
	var merges, chain strings.Builder
	merges.WriteString("x-0: &a0 {A: a}\n")
	chain.WriteString("x-0: &a0 {A: a}\nservices:\n")
	for i := range 500 {
		fmt.Fprintf(&merges, "x-%d: &a%d {B%d: b, <<: [%s]}\n", i+1, i+1, i, strings.Repeat(fmt.Sprintf("*a%d,", i), 5))
		fmt.Fprintf(&chain, "  s%d: {image: x, environment: &a%d {B%d: b, <<: *a%d}}\n", i, i+1, i, i)
	}
	files["merges"], files["chain of merges"] = merges.String()+"environment: *a500\n", chain.String()
	return files
}

// What reading a file may cost: a step of the parser that costs time and no
// memory is the benchmark's to find.
const (
	mostMemory      = 64 << 20
	mostAllocations = 200_000
)

// cost is what a call allocates, however busy the machine is.
func cost(call func()) (memory, allocations uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, after.Mallocs - before.Mallocs
}

func TestHostileFilesAreCheap(t *testing.T) {
	for name, text := range hostile() {
		if memory, n := cost(func() { Parse([]byte(text)) }); memory > mostMemory || n > mostAllocations {
			t.Errorf("%s: %d KB in %d allocations", name, memory>>10, n)
		}
	}
}

// BenchmarkHostileFiles reads each of the files that cost most for their size;
// of the dearest, 50 ms and 64 MB are the most that it may take. The least of
// all rounds counts: it is the file's, and not the machine's.
func BenchmarkHostileFiles(b *testing.B) {
	files := hostile()
	maps.Copy(files, hostileJobs())
	least, memory := map[string]time.Duration{}, map[string]uint64{}
	for b.Loop() {
		for name, text := range files {
			start := time.Now()
			used, _ := cost(func() { Parse([]byte(text)) })
			took := time.Since(start)
			if before, known := least[name]; !known || took < before {
				least[name] = took
			}
			memory[name] = used
		}
	}
	var slowest time.Duration
	var largest uint64
	for name := range files {
		slowest, largest = max(slowest, least[name]), max(largest, memory[name])
	}
	b.ReportMetric(float64(slowest.Microseconds())/1000, "worst-ms")
	b.ReportMetric(float64(largest)/(1<<20), "worst-MB")
	b.ReportMetric(0, "ns/op") // of all files together, which says nothing
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"good", "bad"} {
		paths, err := filepath.Glob(filepath.Join("testdata", pattern, "*.yml"))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var config *configv1.BuildConfig
		var problems []*Problem
		if memory, n := cost(func() { config, problems = Parse(text) }); memory > mostMemory || n > mostAllocations {
			t.Errorf("%d KB in %d allocations", memory>>10, n)
		}
		if _, again := Parse(text); Format(Name, again) != Format(Name, problems) {
			t.Errorf("read once more it has %v, not %v", again, problems)
		}
		if (config == nil) != (len(problems) > 0) {
			t.Fatalf("config %v and %d problems", config, len(problems))
		}
		if len(problems) > maxProblems {
			t.Errorf("%d problems", len(problems))
		}
		for _, p := range problems {
			if p.GetLine() < 1 || p.GetColumn() < 1 || p.GetMessage() == "" || len(p.GetMessage()) > 1000 || len(p.GetSnippet()) > 1000 {
				t.Errorf("problem %v", p)
			}
		}
		if config == nil {
			return
		}
		p := config.GetExecute()
		if len(p.GetCommands())+len(p.GetJobs()) == 0 || len(p.GetCommands()) > 0 && config.GetImage() == "" {
			t.Errorf("config %v", config)
		}
		for _, p := range []*configv1.Pipeline{p, config.GetStaging(), config.GetDeployStaging(), config.GetDeployProduction(), config.GetPush().GetExecute()} {
			checkJobs(t, p)
		}
		if sent, err := proto.Marshal(config); err != nil || len(sent) > MaxSize+5*maxGrown {
			t.Errorf("not fit for the wire: %d bytes, error %v", len(sent), err)
		}
		if again, _ := Parse(text); !proto.Equal(config, again) { // whatever the order of maps
			t.Errorf("read once more it is %v, not %v", again, config)
		}
	})
}
