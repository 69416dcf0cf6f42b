package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

// leaver is a Forge with a build b2 that has left something.
type leaver struct {
	schedulerv1.UnimplementedArtifactServiceServer
	schedulerv1.UnimplementedBuildServiceServer
	build  *schedulerv1.Build
	listed []*schedulerv1.Artifact
	// entries, and what follows each, of every artifact; they may be what no honest
	// builder would list.
	entries []*schedulerv1.FileEntry
	data    []string
	lost    bool // it ends with DATA_LOSS
}

var modified = time.Date(2026, 11, 23, 18, 0, 0, 123456789, time.UTC)

func (l *leaver) add(kind schedulerv1.FileEntry_Type, name, what string) {
	entry := &schedulerv1.FileEntry{Type: kind, Name: name, Mode: 0o640, Modified: modified.UnixNano()}
	data := ""
	switch kind {
	case typeFile:
		entry.Size, data = int64(len(what)), what
	case typeFolder:
		entry.Mode = 0o750
	default:
		entry.Target = what
	}
	l.entries, l.data = append(l.entries, entry), append(l.data, data)
}

func (l *leaver) GetBuild(_ context.Context, req *schedulerv1.GetBuildRequest) (*schedulerv1.GetBuildResponse, error) {
	if req.GetBuildId() != l.build.GetId() {
		return nil, fault.Newf(fault.NotFound, "no build %s", req.GetBuildId())
	}
	return &schedulerv1.GetBuildResponse{Build: l.build}, nil
}

func (l *leaver) ListArtifacts(_ context.Context, req *schedulerv1.ListArtifactsRequest) (*schedulerv1.ListArtifactsResponse, error) {
	answer := &schedulerv1.ListArtifactsResponse{}
	for _, one := range l.listed {
		if strings.HasPrefix(one.GetBuildId(), req.GetBuildId()) {
			answer.Artifacts = append(answer.Artifacts, one)
		}
	}
	return answer, nil
}

func (l *leaver) DownloadArtifact(req *schedulerv1.DownloadArtifactRequest, out grpc.ServerStreamingServer[schedulerv1.DownloadArtifactResponse]) error {
	found := false
	for n, entry := range l.entries {
		if req.GetFile() != "" && req.GetFile() != entry.GetName() {
			continue
		}
		found = true
		if err := out.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Entry{Entry: entry}}); err != nil {
			return err
		}
		for piece := range slices.Chunk([]byte(l.data[n]), 1000) {
			if err := out.Send(&schedulerv1.DownloadArtifactResponse{Message: &schedulerv1.DownloadArtifactResponse_Data{Data: piece}}); err != nil {
				return err
			}
		}
	}
	switch {
	case l.lost:
		return status.Error(codes.DataLoss, "chunk 7 in blob content/x is not what it was")
	case req.GetFile() != "" && !found:
		return fault.Newf(fault.NotFound, "artifact %s has no file %q", req.GetName(), req.GetFile())
	}
	return nil
}

// serve has it listen and returns the verb that fetches what the build has left.
func (l *leaver) serve(t *testing.T) getArtifacts {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "leaver", AdminToken: "admin", Access: map[string]rpc.Access{
		schedulerv1.BuildService_GetBuild_FullMethodName:            {Public: true},
		schedulerv1.ArtifactService_ListArtifacts_FullMethodName:    {Public: true},
		schedulerv1.ArtifactService_DownloadArtifact_FullMethodName: {Public: true},
	}})
	schedulerv1.RegisterBuildServiceServer(server, l)
	schedulerv1.RegisterArtifactServiceServer(server, l)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return getArtifacts{ofBuild: ofBuild{GRPC: settings.GRPC{GRPCAddress: lis.Addr().String()}, Build: "b2"}, Into: filepath.Join(t.TempDir(), "into")}
}

// leaves is a build of a job lint and a matrix test, of which each cell left one of
// the same name.
func leaves() *leaver {
	until := timestamppb.New(modified)
	return &leaver{build: builtOf(good, good, good), listed: []*schedulerv1.Artifact{
		{BuildId: "b2-1", Name: "lint", Files: 1, Size: 3, ExpireTime: until},
		{BuildId: "b2-2", Name: "cover", Files: 1, Size: 3, ExpireTime: until},
		{BuildId: "b2-3", Name: "cover", Files: 2, Size: 4096, ExpireTime: until},
	}}
}

// found is what lies in a folder, a line each.
func found(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(folder, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || at == folder {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(folder, at)
		what := ""
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			what = fmt.Sprintf(" %d", len(content))
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(at)
			fmt.Fprintf(&all, "%s -> %s\n", name, target)
			return nil
		}
		if info.ModTime().Equal(modified) {
			what += " dated"
		}
		fmt.Fprintf(&all, "%v %s%s\n", info.Mode(), name, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestArtifactIsWrittenAsItWas(t *testing.T) {
	l := leaves()
	l.add(typeFolder, "", "")
	l.add(typeFolder, "dist", "")
	l.add(typeFolder, "dist/sub", "")
	l.add(typeFile, "dist/sub/program", strings.Repeat("x", 12_345))
	l.entries[3].Mode = 0o4755
	l.add(typeFile, "dist/empty", "")
	l.add(typeHardLink, "again", "dist/sub/program")
	l.add(typeSymbolicLink, "dist/link", "../again")
	l.add(typeSymbolicLink, "out", "../../etc/passwd")
	get := l.serve(t)
	get.Name = "lint"
	var out strings.Builder
	if err := get.get(&out); err != nil {
		t.Fatal(err)
	}
	const want = `-rwxr-xr-x again 12345 dated
drwxr-x--- dist dated
-rw-r----- dist/empty 0 dated
dist/link -> ../again
drwxr-x--- dist/sub dated
-rwxr-xr-x dist/sub/program 12345 dated
`
	if got := found(t, get.Into); got != want {
		t.Errorf("there is\n%swant\n%s", got, want)
	}
	said := "lint: 2 files, 12 KiB, in " + get.Into + "\n" + `left out: the link "out", which leads out of that folder` + "\n"
	if out.String() != said {
		t.Errorf("it says %q, want %q", &out, said)
	}
	if err := get.get(&out); err == nil || !strings.Contains(err.Error(), `artifact lint: "dist/sub/program": it is there already: --force replaces it`) {
		t.Errorf("once more: %v", err)
	}
	if got := found(t, get.Into); got != want {
		t.Errorf("a refusal has left\n%s", got)
	}
	// Whoever refused may be sent the rest still, so what is new comes from elsewhere.
	changed := &leaver{build: l.build, listed: l.listed, entries: l.entries, data: slices.Clone(l.data)}
	changed.data[3] = strings.Repeat("y", 12_345)
	get.Force, get.GRPCAddress = true, changed.serve(t).GRPCAddress
	if err := get.get(&out); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(filepath.Join(get.Into, "again")); err != nil || string(content) != changed.data[3] {
		t.Errorf("it was not replaced: %v", err)
	}
}

func TestOneFileIsFetchedOrPrinted(t *testing.T) {
	l := leaves()
	l.add(typeFile, "dist/a.txt", "hello\n")
	l.add(typeHardLink, "b.txt", "dist/a.txt")
	l.add(typeSymbolicLink, "c.txt", "b.txt")
	l.add(typeHardLink, "d.txt", "e.txt")
	l.add(typeHardLink, "e.txt", "d.txt")
	get := l.serve(t)
	get.Name = "lint"
	for file, want := range map[string]string{
		"dist/a.txt": "hello\n", "b.txt": "hello\n", "c.txt": `"c.txt" is a link to "b.txt": ask for that`,
		"d.txt": `"d.txt" is a link to "d.txt": ask for that`, "f.txt": `artifact lint has no file "f.txt"`,
	} {
		get.File, get.Output = file, "-"
		var out strings.Builder
		err := get.get(&out)
		if err != nil {
			out.WriteString(err.Error())
		}
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s prints %q, want %q", file, &out, want)
		}
	}
	get.Output = ""
	for _, file := range []string{"dist/a.txt", "b.txt"} {
		get.File = file
		if err := get.get(&strings.Builder{}); err != nil {
			t.Error(err)
		}
	}
	if got := found(t, get.Into); got != "-rw-r----- b.txt 6 dated\ndrwxr-xr-x dist\n-rw-r----- dist/a.txt 6 dated\n" {
		t.Errorf("there is\n%s", got)
	}
	for want, change := range map[string]func(*getArtifacts){
		"--file is a file of one artifact": func(g *getArtifacts) { g.Name = "" },
		"-o - prints one file":             func(g *getArtifacts) { g.File, g.Output = "", "-" },
		"several jobs have left cover: ask for b2/JOB, where JOB is one of test (1.25), test (": func(g *getArtifacts) { g.Name = "cover" },
		"build b2 has no artifact dist: it has lint, cover, cover":                              func(g *getArtifacts) { g.Name = "dist" },
		"build b2/package has left no artifacts":                                                func(g *getArtifacts) { g.Build = "b2/package" },
		"no build b3":                                                                           func(g *getArtifacts) { g.Build = "b3/lint" },
	} {
		l.build = builtOf(good, good, good, good)
		changed := get
		change(&changed)
		if err := changed.get(&strings.Builder{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAllArtifactsAreFetchedIntoFoldersOfTheirOwn(t *testing.T) {
	l := leaves()
	l.add(typeFile, "a", "1\n")
	get := l.serve(t)
	if err := get.get(&strings.Builder{}); err != nil {
		t.Fatal(err)
	}
	const want = `drwxr-xr-x lint
-rw-r----- lint/a 2 dated
drwxr-xr-x test-1.25
drwxr-xr-x test-1.25/cover
-rw-r----- test-1.25/cover/a 2 dated
drwxr-xr-x test-1.26
drwxr-xr-x test-1.26/cover
-rw-r----- test-1.26/cover/a 2 dated
`
	if got := found(t, get.Into); got != want {
		t.Errorf("there is\n%swant\n%s", got, want)
	}
	jobs := map[string]string{"b1": "test (ä)", "b2": "test [ö]", "b3": "…", "b4": "cover"}
	var all []*schedulerv1.Artifact
	for _, id := range []string{"b1", "b2", "b3", "b4"} {
		all = append(all, &schedulerv1.Artifact{BuildId: id, Name: "cover"})
	}
	if got := fmt.Sprint(foldersOf(all, jobs)); got != "[b1/cover b2/cover b3/cover b4/cover]" {
		t.Errorf("jobs whose titles are alike: %s", got)
	}
}

// Whoever speaks for a build may list what no folder can hold. Nothing of it is kept,
// and nothing outside is touched.
func TestNothingIsWrittenOutsideOfTheFolder(t *testing.T) {
	for name, c := range map[string]struct {
		build func(*leaver)
		want  string
	}{
		"up":             {func(l *leaver) { l.add(typeFile, "../evil", "x") }, "no name of a file"},
		"up within":      {func(l *leaver) { l.add(typeFile, "a/../../evil", "x") }, "no name of a file"},
		"absolute":       {func(l *leaver) { l.add(typeFile, "/tmp/evil", "x") }, "no name of a file"},
		"empty":          {func(l *leaver) { l.add(typeFile, "", "x") }, "no name of a file"},
		"zero":           {func(l *leaver) { l.add(typeFile, "a\x00", "x") }, "no name of a file"},
		"own link":       {func(l *leaver) { l.add(typeSymbolicLink, "a", "b"); l.add(typeFile, "a/x", "x") }, "is no folder"},
		"own link's":     {func(l *leaver) { l.add(typeSymbolicLink, "a", "b"); l.add(typeFolder, "a", "") }, "is no folder"},
		"link there":     {func(l *leaver) { l.add(typeFile, "there/x", "x") }, "is no folder"},
		"link there's":   {func(l *leaver) { l.add(typeFile, "there", "x") }, "it is there already"},
		"hard link up":   {func(l *leaver) { l.add(typeHardLink, "a", "../outside/kept") }, "no file before it"},
		"hard link":      {func(l *leaver) { l.add(typeHardLink, "a", "there/kept") }, "no file before it"},
		"hard to a link": {func(l *leaver) { l.add(typeSymbolicLink, "a", "b"); l.add(typeHardLink, "c", "a") }, "no file before it"},
		"twice":          {func(l *leaver) { l.add(typeFile, "a", "x"); l.add(typeFile, "a", "y") }, "listed twice"},
		"no kind":        {func(l *leaver) { l.add(9, "a", "") }, "no file, folder or link"},
		"fewer bytes":    {func(l *leaver) { l.add(typeFile, "d/a", "x"); l.entries[0].Size = 2 }, "not as long"},
		"more bytes":     {func(l *leaver) { l.add(typeFile, "d/a", "xx"); l.entries[0].Size = 1 }, "not as long"},
		"lost":           {func(l *leaver) { l.add(typeFile, "d/a", "xx"); l.lost = true }, "is not what it was"},
	} {
		l := leaves()
		c.build(l)
		get := l.serve(t)
		get.Name = "lint"
		outside := filepath.Join(filepath.Dir(get.Into), "outside")
		for _, folder := range []string{outside, get.Into} {
			if err := os.Mkdir(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../outside", filepath.Join(get.Into, "there")); err != nil {
			t.Fatal(err)
		}
		err := get.get(&strings.Builder{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if got := found(t, filepath.Dir(get.Into)); got != "drwxr-xr-x into\ninto/there -> ../outside\ndrwxr-xr-x outside\n-rw------- outside/kept 4\n" {
			t.Errorf("%s: there is\n%s", name, got)
		}
	}
}

func TestArtifactsArePrintedForPeople(t *testing.T) {
	l := leaves()
	var out strings.Builder
	printArtifacts(&out, l.listed, map[string]string{"b2-1": "lint", "b2-2": "test (1.25)", "b2-3": "test (1.26)"})
	printArtifacts(&out, l.listed[:1], nil)
	printArtifacts(&out, nil, nil)
	const want = `NAME   FILES  SIZE     KEPT UNTIL           JOB
lint   1      3 B      2026-11-23 18:00:00  lint
cover  1      3 B      2026-11-23 18:00:00  test (1.25)
cover  2      4.0 KiB  2026-11-23 18:00:00  test (1.26)
NAME  FILES  SIZE  KEPT UNTIL
lint  1      3 B   2026-11-23 18:00:00
no artifacts
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", &out, want)
	}
}
