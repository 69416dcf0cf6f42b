package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// pipeline is a file of testdata/pipelines. The comments at its top say what is to
// become of it.
type pipeline struct {
	name, file string
	loses      string // the job whose container is killed once it runs
	shown      [][3]string
	afterMerge [][3]string
	attempts   map[string]int32
	logs       [][2]string
}

var expectation = regexp.MustCompile(`^# (forge/[^:]*(?:: [^:|]*)?): (\w+) \| (.*)$`)

// servicesOfJobs are all lines below the key.
var servicesOfJobs = regexp.MustCompile(`(?m)^    services:\n(?:      .*\n)+`)

func pipelines(t *testing.T) []pipeline {
	t.Helper()
	names, err := filepath.Glob("testdata/pipelines/*.yml")
	must(t, err)
	if len(names) != 10 {
		t.Fatalf("%d pipelines, want 10", len(names))
	}
	var all []pipeline
	for _, name := range names {
		text, err := os.ReadFile(name)
		must(t, err)
		p := pipeline{name: strings.TrimSuffix(filepath.Base(name), ".yml"), file: string(text), attempts: map[string]int32{}}
		into := &p.shown
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			switch m := expectation.FindStringSubmatch(line); {
			case m != nil:
				*into = append(*into, [3]string{m[1], m[2], m[3]})
			case line == "# merge":
				into = &p.afterMerge
			case strings.HasPrefix(line, "# lose: "):
				p.loses = strings.TrimPrefix(line, "# lose: ")
			case strings.HasPrefix(line, "# attempts: "):
				for said := range strings.SplitSeq(strings.TrimPrefix(line, "# attempts: "), ", ") {
					var job string
					var count int32
					if _, err := fmt.Sscan(said, &job, &count); err != nil {
						t.Fatalf("%s: %q: %v", name, said, err)
					}
					p.attempts[job] = count
				}
			case strings.HasPrefix(line, "# log of "):
				job, wanted, _ := strings.Cut(strings.TrimPrefix(line, "# log of "), ": ")
				p.logs = append(p.logs, [2]string{job, wanted})
			}
		}
		all = append(all, p)
	}
	return all
}

// engineOfPipelines is where they run.
type engineOfPipelines struct {
	*world
	image, ask string // what stands for IMAGE, and for how a command asks the service
	// withoutServices: the engine runs none.
	withoutServices bool
	// kill ends the container of an attempt.
	kill func(t *testing.T, attempt string)
}

func TestPipelinesRunOnProcesses(t *testing.T) {
	w := newWorld(t, map[string]string{"README": "hello"})
	w.env = append(w.env, "FORGE_CAPACITY=8")
	w.up(t)
	runPipelines(t, engineOfPipelines{
		world: w, image: "busybox", withoutServices: true, ask: `echo "$MATRIX_DB $MATRIX_RELEASE"`,
		kill: func(t *testing.T, attempt string) {
			kittest.Eventually(t, patience, func() error {
				found, err := processesUnder(w.dir)
				if err != nil {
					return err
				}
				for pid, command := range found {
					said, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
					if bytes.Contains(said, []byte(attempt)) && strings.Contains(command, "forgexec") {
						return syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				return fmt.Errorf("no process of %s among %d", attempt, len(found))
			})
		},
	})
}

func TestPipelinesRunInDocker(t *testing.T) {
	kittest.Require(t, "docker")
	var image string
	w := newDockerWorld(t, "", func(made string) map[string]string {
		image = made
		return map[string]string{"README": "hello"}
	})
	runPipelines(t, engineOfPipelines{
		world: w.world, image: image, ask: "nc db 7000 </dev/null",
		kill: func(t *testing.T, attempt string) {
			kittest.Eventually(t, dockerPatience, func() error {
				_, err := w.api.ContainerKill(t.Context(), "forge-"+attempt, client.ContainerKillOptions{Signal: "KILL"})
				return err
			})
		},
	})
	w.idle(t)
}

func runPipelines(t *testing.T, e engineOfPipelines) {
	for _, p := range pipelines(t) {
		t.Run(p.name, func(t *testing.T) {
			text := strings.NewReplacer("IMAGE", e.image, "ASK", e.ask).Replace(p.file)
			if e.withoutServices {
				text = servicesOfJobs.ReplaceAllString(text, "")
			}
			number, sha := e.propose(t, p.name, files(".forge.yml", text, "api/main.go", "package main // "+p.name+"\n"))
			id := e.whole(t, sha)
			if p.loses != "" {
				job := e.job(t, id, p.loses)
				kittest.Eventually(t, dockerPatience, func() error {
					if b := e.buildOf(t, job); b.GetState() != schedulerv1.Build_STATE_RUNNING || b.GetStartTime() == nil {
						return fmt.Errorf("%s is %v", p.loses, b.GetState())
					}
					return nil
				})
				e.kill(t, job+"-1")
			}
			e.isShown(t, sha, p.shown)
			told, err := e.sim.StatusHistory(owner, repo, sha)
			must(t, err)
			if jobs := len(e.buildOf(t, id).GetJobs()); len(told) > 2*jobs+3 && len(p.attempts) == 0 {
				t.Errorf("GitHub was told %d statuses of %d jobs", len(told), jobs)
			}
			for name, want := range p.attempts {
				kittest.Want(t, e.buildOf(t, e.job(t, id, name)).GetAttempt(), want, "attempts of "+name)
			}
			for _, said := range p.logs {
				if log := e.logOf(t, e.job(t, id, said[0])); !strings.Contains(log, said[1]) || strings.Contains(log, "must not run") {
					t.Errorf("log of %s, want %q:\n%s", said[0], said[1], log)
				}
			}
			if len(p.afterMerge) > 0 {
				e.isShown(t, e.merge(t, number), p.afterMerge)
			}
		})
	}
}

// whole is the build of a commit, once there is one.
func (e engineOfPipelines) whole(t *testing.T, sha string) (id string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		builds := e.builds(t, sha)
		if len(builds) == 0 {
			return fmt.Errorf("no build of %s", sha)
		}
		id = builds[0].GetId()
		return nil
	})
	return id
}

func (e engineOfPipelines) buildOf(t *testing.T, id string) *schedulerv1.Build {
	t.Helper()
	answer, err := schedulerv1.NewBuildServiceClient(e.dial(t, "scheduler")).GetBuild(t.Context(), &schedulerv1.GetBuildRequest{BuildId: id})
	must(t, err)
	return answer.GetBuild()
}

// job is the id of a build's job.
func (e engineOfPipelines) job(t *testing.T, id, title string) string {
	t.Helper()
	for _, job := range e.buildOf(t, id).GetJobs() {
		if job.GetTitle() == title {
			return job.GetId()
		}
	}
	t.Fatalf("build %s has no job %s", id, title)
	return ""
}

func (e engineOfPipelines) logOf(t *testing.T, id string) string {
	t.Helper()
	stream, err := schedulerv1.NewBuildServiceClient(e.dial(t, "scheduler")).WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
	must(t, err)
	var log bytes.Buffer
	w := bufio.NewWriter(&log)
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			must(t, w.Flush())
			return log.String()
		}
		must(t, err)
		_, err = w.Write(piece.GetData())
		must(t, err)
	}
}

// isShown waits for what GitHub is to show of a commit.
func (e engineOfPipelines) isShown(t *testing.T, sha string, wanted [][3]string) {
	t.Helper()
	for _, want := range wanted {
		shown := e.shows(t, sha, want[0], want[1])
		if !regexp.MustCompile("^" + want[2]).MatchString(shown.Description) {
			t.Errorf("%s shows %q, want %q", want[0], shown.Description, want[2])
		}
	}
}
