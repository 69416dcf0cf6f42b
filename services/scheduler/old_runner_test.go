package scheduler

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// message is one of the first protocol's, as JSON.
type message map[string]any

// oldRunner speaks the protocol as it was first used, which is frozen in testdata:
// of what was added later it knows nothing. Never bring it up to date.
type oldRunner struct {
	t                 *testing.T
	conn              grpc.ClientConnInterface
	token             string
	request, response protoreflect.MessageDescriptor

	stream   grpc.ClientStream
	leave    context.CancelFunc
	has      message // said in each hello
	plan     message
	sequence int
	dir      string
}

func newOldRunner(t *testing.T, conn grpc.ClientConnInterface, token string) *oldRunner {
	t.Helper()
	raw, err := os.ReadFile("testdata/first_runner.binpb")
	set := &descriptorpb.FileDescriptorSet{}
	if err == nil {
		err = proto.Unmarshal(raw, set)
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	service, err := files.FindDescriptorByName("forge.scheduler.v1.RunnerService")
	if err != nil {
		t.Fatal(err)
	}
	attach := service.(protoreflect.ServiceDescriptor).Methods().ByName("Attach")
	return &oldRunner{
		t: t, conn: conn, token: token, request: attach.Input(), response: attach.Output(), dir: t.TempDir(),
		has: message{"runnerId": "0123456789abcdef0123456789abcdef", "version": "first"},
	}
}

func (o *oldRunner) send(m message) {
	o.t.Helper()
	text, err := json.Marshal(m)
	request := dynamicpb.NewMessage(o.request)
	if err == nil {
		err = protojson.Unmarshal(text, request)
	}
	if err == nil {
		err = o.stream.SendMsg(request)
	}
	if err != nil {
		o.t.Fatalf("%s: %v", text, err)
	}
}

func (o *oldRunner) recv() (message, error) {
	o.t.Helper()
	response := dynamicpb.NewMessage(o.response)
	if err := o.stream.RecvMsg(response); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(response)
	m := message{}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		o.t.Fatalf("%s: %v", text, err)
	}
	return m, nil
}

// attach opens a stream, the old one being given up, and takes what it brings
// before the first acknowledgement.
func (o *oldRunner) attach() error {
	o.t.Helper()
	if o.leave != nil {
		o.leave()
	}
	ctx, leave := context.WithTimeout(metadata.AppendToOutgoingContext(o.t.Context(), "forge-runner-token", o.token), patience)
	o.leave = leave
	o.t.Cleanup(leave)
	var err error
	o.stream, err = o.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/forge.scheduler.v1.RunnerService/Attach")
	if err != nil {
		return err
	}
	o.send(message{"hello": o.has})
	var source []byte
	for welcomed := false; !welcomed || o.has["hasSource"] == nil; {
		m, err := o.recv()
		if err != nil {
			return err
		}
		switch {
		case m["welcome"] != nil:
			welcomed = true
		case m["plan"] != nil:
			o.plan, o.has["hasPlan"] = m["plan"].(map[string]any), true
		case m["source"] != nil:
			chunk := m["source"].(map[string]any)
			data, _ := chunk["data"].(string)
			part, err := base64.StdEncoding.DecodeString(data)
			if err != nil {
				return err
			}
			source = append(source, part...)
			if chunk["last"] == true {
				o.has["hasSource"] = true
				o.unpack(source)
			}
		}
	}
	return nil
}

func (o *oldRunner) unpack(source []byte) {
	o.t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(source))
	if err != nil {
		o.t.Fatal(err)
	}
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		text, readErr := io.ReadAll(archive)
		if err := errors.Join(err, readErr, os.WriteFile(filepath.Join(o.dir, filepath.Base(header.Name)), text, 0o600)); err != nil {
			o.t.Fatal(err)
		}
	}
}

// report sends a report and waits until it is acknowledged.
func (o *oldRunner) report(event string, content message) error {
	o.t.Helper()
	o.sequence++
	o.send(message{"report": message{"sequence": o.sequence, "time": "2026-11-24T12:00:00Z", event: content}})
	for {
		m, err := o.recv()
		if err != nil {
			return err
		}
		if ack, ok := m["ack"].(map[string]any); ok && ack["sequence"] == strconv.Itoa(o.sequence) {
			return nil
		}
	}
}

// run runs the plan's steps. After the first it loses its connection.
func (o *oldRunner) run() error {
	o.t.Helper()
	if err := o.attach(); err != nil {
		return err
	}
	if err := o.report("sourceUnpacked", message{"entries": "1", "size": "1"}); err != nil {
		return err
	}
	for _, planned := range o.plan["steps"].([]any) {
		step := planned.(map[string]any)
		cmd := exec.Command("/bin/sh", "-e", "-c", step["run"].(string))
		cmd.Dir, cmd.Env = o.dir, []string{"PATH=" + os.Getenv("PATH")}
		environment := o.plan["environment"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(environment)) {
			cmd.Env = append(cmd.Env, name+"="+environment[name].(string))
		}
		number := step["number"]
		if err := o.report("stepStarted", message{"number": number}); err != nil {
			return err
		}
		printed, _ := cmd.CombinedOutput()
		code := cmd.ProcessState.ExitCode()
		if err := o.report("output", message{"number": number, "data": base64.StdEncoding.EncodeToString(printed)}); err != nil {
			return err
		}
		if err := o.attach(); err != nil {
			return err
		}
		if err := o.report("stepEnded", message{"number": number, "exitCode": code}); err != nil {
			return err
		}
		if code != 0 {
			break
		}
	}
	return o.report("ended", message{"cause": "CAUSE_DONE"})
}

// A build that runs while Forge is upgraded goes on with the forgexec it was
// started with.
func TestTheFirstForgexecRunsBuildsOfThisScheduler(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var source bytes.Buffer
		zipped := gzip.NewWriter(&source)
		archive := tar.NewWriter(zipped)
		text := "from the source\n"
		err := archive.WriteHeader(&tar.Header{Name: "shop-head/file", Mode: 0o644, Size: int64(len(text))})
		_, failed := io.WriteString(archive, text)
		if err := errors.Join(err, failed, archive.Close(), zipped.Close()); err != nil {
			t.Fatal(err)
		}
		half := source.Len() / 2
		r.config.mu.Lock()
		r.config.source = []string{source.String()[:half], source.String()[half:]}
		r.config.mu.Unlock()
		for n, c := range []struct {
			steps []string
			state schedulerv1.Build_State
			log   string
		}{
			{[]string{"cat file", `echo "$FORGE_ACTION $CGO_ENABLED"`}, schedulerv1.Build_STATE_PASSED, "from the source\ntest 0\n"},
			{[]string{"echo no; exit 3", "echo never"}, schedulerv1.Build_STATE_FAILED, "no\n"},
		} {
			sha := fmt.Sprint("head", n)
			config := usual()
			config.Execute = &configv1.Pipeline{}
			for _, run := range c.steps {
				config.Execute.Commands = append(config.Execute.Commands, &configv1.Command{Name: run, Run: run})
			}
			r.config.set(sha, valid(config))
			id := r.built(opened(int32(n+1), sha))
			old := newOldRunner(t, r.runner, r.spec(id, 1).Runner.Token)
			if err := old.run(); err != nil {
				t.Errorf("%s: %v", strings.Join(c.steps, "; "), err)
			}
			r.becomes(id, c.state)
			if log := r.printed(id); log != c.log {
				t.Errorf("the log is %q, want %q", log, c.log)
			}
		}

		id := r.built(opened(8, "stopped"))
		old := newOldRunner(t, r.runner, r.spec(id, 1).Runner.Token)
		if err := old.attach(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id, Message: "enough"}); err != nil {
			t.Fatal(err)
		}
		for cancel := any(nil); cancel == nil; {
			m, err := old.recv()
			if err != nil {
				t.Fatal(err)
			}
			if cancel = m["cancel"]; cancel != nil && fmt.Sprint(cancel) != "map[message:enough]" {
				t.Errorf("told %v", cancel)
			}
		}
		if err := old.report("ended", message{"cause": "CAUSE_CANCELLED", "message": "enough"}); err != nil {
			t.Error(err)
		}
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
	})
}
