package buildfile

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// hostileJobs are files with jobs that cost most for their size.
func hostileJobs() map[string]string {
	const digits = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
	hundred := "{matrix: {a: " + digits + ", b: " + digits + "}, execute: make"
	word := strings.Repeat
	list := func(n int, item func(i int) string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = item(i)
		}
		return strings.Join(all, ", ")
	}
	number := func(format string) func(i int) string { return func(i int) string { return fmt.Sprintf(format, i) } }
	var cells, names, deep strings.Builder
	for i := range 1900 {
		fmt.Fprintf(&cells, "k%d: [0, 1], ", i)
		fmt.Fprintf(&names, "k%d: 0, ", i)
	}
	for i := range 90 {
		fmt.Fprintf(&deep, "  j%d: {needs: j%d, execute: make}\n", i, i+1)
	}
	files := map[string]string{
		"10,000 cells":   "jobs: {a: {execute: make, matrix: {a: " + digits + ", b: " + digits + ", c: " + digits + ", d: " + digits + "}}}",
		"2 to the 2000":  "jobs: {a: {execute: make, matrix: {" + cells.String() + "}}}",
		"names":          "jobs: {a: {execute: make, matrix: {" + names.String() + "}}}",
		"values":         "jobs: {a: {execute: make, matrix: {a: [" + list(9000, number("%d")) + "]}}}",
		"includes":       "jobs: {a: {execute: make, matrix: {a: " + digits + ", include: [" + list(450, number("{b: %d}")) + "]}}}",
		"included names": "jobs: {a: {execute: make, matrix: {a: " + digits + ", include: [" + list(400, number("{b%d: 1}")) + "]}}}",
		"excludes":       "jobs: {a: {execute: make, matrix: {a: [" + list(480, number("%d")) + "], exclude: [" + list(480, number("{a: %d}")) + "]}}}",
		"wrong excludes": "jobs: {a: {execute: make, matrix: {a: [" + list(480, number(word("x", 40)+"%d")) + "], exclude: [" + list(480, number("{a: "+word("y", 40)+"%d}")) + "]}}}",
		"long values":    "jobs: {a: {execute: make, matrix: {a: [" + list(200, number(word("x", 950)+"%d")) + "], exclude: [" + list(40, number("{a: "+word("y", 950)+"%d}")) + "]}}}",
		"needs":          "jobs:\n  b: {execute: make}\n  a: {execute: make, needs: [" + list(9000, number("n%d")) + "]}",
		"unknown needs":  "jobs:\n" + unknownNeeds(),
		"a long way":     "jobs:\n" + deep.String(),
		"large values":   "environment: {A: '" + word("x", 200_000) + "'}\njobs: {a: " + hundred + "}}",
		"many variables": "environment: {" + list(4000, number("A%d: b")) + "}\njobs: {a: " + hundred + "}}",
		"holes":          "jobs: {a: " + hundred + ", environment: {A: '" + word("${a}", 4000) + "'}}}",
		"long holes":     "jobs: {a: {execute: make, matrix: {a: " + digits + ", b: " + word("x", 1000) + "}, environment: {A: '" + word("${b}", 4000) + "'}}}",
		"one hole":       "jobs: {a: " + hundred + ", environment: {" + list(4000, number("A%d: b")) + ", B: '${a}'}}}",
		"hole of all":    "environment: {" + list(4000, number("A%d: b")) + ", B: '${a}'}\njobs: {a: " + hundred + "}}",
		"services":       "jobs: {a: " + hundred + ", services: {" + list(1300, number("s%d: {image: '${a}'}")) + "}}}",
		"wrong services": "jobs: {a: " + hundred + ", services: {" + list(1300, number("s%d: {image: '${b'}")) + "}}}",
		"commands":       "jobs: {a: {matrix: {a: " + digits + ", b: " + digits + "}, execute: [" + list(500, number("make %d")) + "]}}",
		"aliases":        "x-a: &a " + hundred + "}\njobs: {" + list(2000, number("j%d: *a")) + "}",
		"caches":         "jobs: {a: " + hundred + ", cache: [" + list(10, func(int) string { return "{key: 'k${a}', paths: [" + list(50, number("p%d${a}")) + "]}" }) + "]}}",
		"wrong caches":   "jobs: {a: " + hundred + ", cache: {key: '" + word("${hash:a/..}", 300) + "', paths: [" + list(1800, number("p%d${a}")) + "]}}}",
		"hashes":         "jobs: {a: " + hundred + ", cache: {key: '" + word("${hash:a}", 3000) + "', paths: '${a}'}}}",
		"artifacts":      "jobs: {a: " + hundred + ", artifacts: [" + list(2000, number("p%d${a}")) + "]}}",
		"pipelines":      "x-a: &a {a: " + hundred + ", environment: {" + list(1000, number("A%d: '${a}'")) + "}}}\njobs: *a\nstaging: {jobs: *a}\npush: {branches: main, jobs: *a}",
	}
	for name, text := range files {
		files[name] = "image: busybox\n" + text
	}
	return files
}

func unknownNeeds() string {
	var text strings.Builder
	for i := range 99 {
		fmt.Fprintf(&text, "  %s%d: {execute: make, needs: [", strings.Repeat("x", 55), i)
		for j := range 60 {
			fmt.Fprintf(&text, "%s%d, ", strings.Repeat("y", 30), j)
		}
		text.WriteString("]}\n")
	}
	return text.String()
}

func TestHostileJobsAreCheap(t *testing.T) {
	for name, text := range hostileJobs() {
		if len(text) > MaxSize || countMarks([]byte(text)) > maxMarks {
			t.Fatalf("%s is not read at all: %d bytes, %d marks", name, len(text), countMarks([]byte(text)))
		}
		// The race detector has regular expressions take their memory anew now and then,
		// so the bound that is promised is held by BenchmarkHostileFiles, and here the
		// allocations tell.
		if memory, n := cost(func() { Parse([]byte(text)) }); memory > 4*mostMemory || n > mostAllocations {
			t.Errorf("%s: %d KB in %d allocations", name, memory>>10, n)
		}
	}
}

// randomMatrix is a matrix and, read as one would by hand, what its cells are: each
// with its values and whether it may fail.
func randomMatrix(random *rand.Rand) (text string, cells []map[string]string) {
	matrix := map[string]any{}
	axes := map[string][]string{}
	var names []string
	cells = []map[string]string{{}}
	for i := range random.IntN(4) {
		name := fmt.Sprint("axis", i)
		for v := range 1 + random.IntN(4) {
			axes[name] = append(axes[name], fmt.Sprint("v", v))
		}
		names, matrix[name] = append(names, name), axes[name]
		var next []map[string]string
		for _, cell := range cells {
			for _, value := range axes[name] {
				next = append(next, with(cell, name, value))
			}
		}
		cells = next
	}
	if len(names) == 0 {
		cells = nil
	}
	entry := func(values int) map[string]any {
		one := map[string]any{}
		for _, name := range names {
			if random.IntN(2) == 0 {
				one[name] = fmt.Sprint("v", random.IntN(min(values, len(axes[name])+values-4)))
			}
		}
		return one
	}
	has := func(cell map[string]string, one map[string]any) bool {
		for name, value := range one {
			if axes[name] != nil && cell[name] != value {
				return false
			}
		}
		return true
	}
	var exclude, include []map[string]any
	for range random.IntN(3) {
		if one := entry(4); len(one) > 0 {
			exclude = append(exclude, one)
			cells = slices.DeleteFunc(cells, func(cell map[string]string) bool { return has(cell, one) })
		}
	}
	combined := len(cells)
	for i := range random.IntN(4) {
		one := entry(6)
		one["extra"] = fmt.Sprint("e", i)
		if random.IntN(2) == 0 {
			one["may_fail"] = random.IntN(2) == 0
		}
		include = append(include, one)
		found := false
		for n, cell := range cells[:combined] {
			if has(cell, one) {
				found = true
				for name, value := range one {
					cells[n] = with(cells[n], name, fmt.Sprint(value))
				}
			}
		}
		if !found {
			cell := map[string]string{}
			for name, value := range one {
				cell[name] = fmt.Sprint(value)
			}
			cells = append(cells, cell)
		}
	}
	if len(exclude) > 0 {
		matrix["exclude"] = exclude
	}
	if len(include) > 0 {
		matrix["include"] = include
	}
	inJSON, err := json.Marshal(matrix)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("image: busybox\njobs: {test: {execute: make, matrix: %s}}\n", inJSON), cells
}

func with(cell map[string]string, name, value string) map[string]string {
	more := map[string]string{name: value}
	for n, v := range cell {
		if n != name {
			more[n] = v
		}
	}
	return more
}

func TestMatricesAreWhatOneReadsByHand(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	empty, full := 0, 0
	for range 3000 {
		text, cells := randomMatrix(random)
		config, problems := Parse([]byte(text))
		if len(problems) > 0 {
			if len(cells) > 0 && !strings.Contains(problems[0].GetMessage(), "are both called") {
				t.Fatalf("%s\ngives %v", text, problems[0])
			}
			empty++
			continue
		}
		full++
		var got []map[string]string
		for _, job := range config.GetExecute().GetJobs() {
			cell := map[string]string{}
			for _, v := range job.GetMatrix() {
				cell[v.GetName()] = v.GetValue()
				if job.GetEnvironment()["MATRIX_"+strings.ToUpper(v.GetName())] != v.GetValue() {
					t.Errorf("%s\nhas not %v in %v", text, v, job.GetEnvironment())
				}
			}
			if job.GetMayFail() {
				cell["may_fail"] = "true"
			}
			got = append(got, cell)
		}
		for _, cell := range cells {
			if cell["may_fail"] == "false" {
				delete(cell, "may_fail")
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(cells) {
			t.Fatalf("%s\nis %v\nnot %v", text, got, cells)
		}
	}
	if empty == 0 || full < 1000 {
		t.Errorf("%d without cells, %d with", empty, full)
	}
}

// checkJobs holds what all that read jobs rely on.
func checkJobs(t *testing.T, p *configv1.Pipeline) {
	t.Helper()
	jobs := p.GetJobs()
	if len(jobs) > maxJobs || len(jobs) > 0 && len(p.GetCommands()) > 0 {
		t.Errorf("%d jobs and %d commands", len(jobs), len(p.GetCommands()))
	}
	names, titles := map[string]bool{}, map[string]bool{}
	for _, job := range jobs {
		if titles[job.GetTitle()] || len([]rune(job.GetTitle())) > maxTitle || job.GetImage() == "" || len(job.GetCommands()) == 0 {
			t.Errorf("job %v", job)
		}
		names[job.GetName()], titles[job.GetTitle()] = true, true
	}
	// Each round ends the jobs whose needs have ended.
	ended := map[string]bool{}
	for range jobs {
		for _, job := range jobs {
			if !slices.ContainsFunc(job.GetNeeds(), func(name string) bool { return !ended[name] }) {
				ended[job.GetName()] = true
			}
		}
	}
	if len(ended) != len(names) {
		t.Errorf("of %v only %v can begin", names, ended)
	}
}

// A file with a hundred jobs against one with a single job, turn by turn.
func BenchmarkHundredJobs(b *testing.B) {
	const job = "image: \"golang:1.26\", environment: {A: b}, services: {db: {image: \"postgres:17\", environment: {POSTGRES_PASSWORD: x}}}, execute: [make, make test]}"
	var plain strings.Builder
	plain.WriteString("jobs:\n  job 0: {" + job + "\n")
	for i := range maxJobs - 1 {
		fmt.Fprintf(&plain, "  job %d: {needs: job %d, %s\n", i+1, i, job)
	}
	const digits = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
	files := []string{
		"jobs: {one: {" + job + "}",
		plain.String(),
		"jobs: {cells: {matrix: {go: " + digits + ", db: " + digits + "}, " + strings.NewReplacer("1.26", "${go}", "17", "${db}").Replace(job) + "}",
	}
	took := make([][]time.Duration, len(files))
	for b.Loop() {
		for i, text := range files {
			start := time.Now()
			config, problems := Parse([]byte(text))
			took[i] = append(took[i], time.Since(start))
			if want := []int{1, maxJobs, maxJobs}[i]; len(problems) > 0 || len(config.GetExecute().GetJobs()) != want {
				b.Fatalf("%d jobs, problems %v", len(config.GetExecute().GetJobs()), problems)
			}
		}
	}
	median := make([]float64, len(files))
	for i, all := range took {
		slices.Sort(all)
		median[i] = float64(all[len(all)/2].Microseconds())
	}
	b.ReportMetric(median[0], "one-µs")
	b.ReportMetric(median[1], "jobs-µs")
	b.ReportMetric(median[2], "cells-µs")
	b.ReportMetric(median[1]/median[0], "jobs-ratio")
	b.ReportMetric(median[2]/median[0], "cells-ratio")
	b.ReportMetric(0, "ns/op") // of all three together, which says nothing
}
