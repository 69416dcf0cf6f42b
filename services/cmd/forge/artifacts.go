package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wording"
)

type artifacts struct {
	List listArtifacts `cmd:"" help:"List what a build has left."`
	Get  getArtifacts  `cmd:"" help:"Fetch what a build has left: an artifact, one file of it, or all."`
}

// ofBuild is a verb about what a build has left. Whoever knows a build may have that,
// so no token is asked for.
type ofBuild struct {
	settings.GRPC
	Build string `arg:"" help:"The build, as the end of its page's address names it; of a job BUILD/JOB, such as 7k2…/lint."`
}

func (o ofBuild) call(do func(ctx context.Context, conn grpc.ClientConnInterface) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := rpc.Dial(o.GRPCAddress, rpc.Peer{})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be sent
	err = do(ctx, conn)
	if _, said := status.FromError(err); said {
		return from(o.GRPCAddress, err)
	}
	return err
}

// left is what a build has left, and the titles of its jobs by their ids.
func (o ofBuild) left(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListArtifactsResponse, jobs map[string]string, err error) {
	builds := schedulerv1.NewBuildServiceClient(conn)
	id, err := resolve(ctx, builds, o.Build)
	if err != nil {
		return nil, nil, err
	}
	if all, err = schedulerv1.NewArtifactServiceClient(conn).ListArtifacts(ctx, &schedulerv1.ListArtifactsRequest{BuildId: id}); err != nil {
		return nil, nil, err
	}
	jobs = map[string]string{}
	for _, one := range all.GetArtifacts() {
		if one.GetBuildId() == id {
			continue
		}
		answer, err := builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
		for _, job := range answer.GetBuild().GetJobs() {
			jobs[job.GetId()] = job.GetTitle()
		}
		return all, jobs, err
	}
	return all, jobs, nil
}

type listArtifacts struct {
	ofBuild
	output
}

// Run prints a line an artifact.
func (l listArtifacts) Run() error {
	var all *schedulerv1.ListArtifactsResponse
	var jobs map[string]string
	err := l.call(func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		all, jobs, err = l.left(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	return l.print(all, func(out io.Writer) { printArtifacts(out, all.GetArtifacts(), jobs) })
}

func printArtifacts(out io.Writer, all []*schedulerv1.Artifact, jobs map[string]string) {
	if len(all) == 0 {
		fmt.Fprintln(out, "no artifacts") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"NAME", "FILES", "SIZE", "KEPT UNTIL", "JOB"}}
	if len(jobs) == 0 {
		rows[0] = rows[0][:4]
	}
	for _, one := range all {
		rows = append(rows, []string{
			one.GetName(), strconv.FormatInt(one.GetFiles(), 10), size(one.GetSize()), localTime(one.GetExpireTime()), jobs[one.GetBuildId()],
		})
	}
	printTable(out, rows)
}

type getArtifacts struct {
	ofBuild
	Name   string `arg:"" optional:"" help:"The artifact. Default: all, each into a folder of its own."`
	File   string `placeholder:"FILE" help:"Only this file of it."`
	Into   string `placeholder:"DIR" default:"." help:"The folder to write into."`
	Output string `short:"o" enum:",-" default:"" placeholder:"-" help:"- prints the file in place of writing it; with --file."`
	Force  bool   `help:"Replace files that are there."`
}

// Run fetches artifacts.
func (g getArtifacts) Run() error { return g.get(os.Stdout) }

func (g getArtifacts) get(out io.Writer) error {
	switch {
	case g.File != "" && g.Name == "":
		return usagef("--file is a file of one artifact: name that before it")
	case g.Output != "" && g.File == "":
		return usagef("-o - prints one file: name it with --file")
	}
	return g.call(func(ctx context.Context, conn grpc.ClientConnInterface) error {
		all, jobs, err := g.left(ctx, conn)
		if err != nil {
			return err
		}
		chosen, err := g.choose(all.GetArtifacts(), jobs)
		if err != nil {
			return err
		}
		client := schedulerv1.NewArtifactServiceClient(conn)
		if g.Output != "" {
			return printFile(ctx, out, client, &schedulerv1.DownloadArtifactRequest{BuildId: chosen[0].GetBuildId(), Name: g.Name, File: g.File})
		}
		folders := foldersOf(chosen, jobs)
		for n, one := range chosen {
			folder := g.Into
			if g.Name == "" {
				folder = filepath.Join(g.Into, folders[n])
			}
			if err := g.fetch(ctx, out, client, one, folder); err != nil {
				return err
			}
		}
		return nil
	})
}

func (g getArtifacts) fetch(ctx context.Context, out io.Writer, client schedulerv1.ArtifactServiceClient, one *schedulerv1.Artifact, folder string) error {
	made, err := fetchInto(ctx, client, &schedulerv1.DownloadArtifactRequest{BuildId: one.GetBuildId(), Name: one.GetName(), File: g.File}, folder, g.Force)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", one.GetName(), err)
	}
	_, err = fmt.Fprintf(out, "%s: %s, %s, in %s\n", one.GetName(), wording.Count(made.files, "file"), size(made.bytes), folder)
	for _, name := range made.leftOut {
		if err == nil {
			_, err = fmt.Fprintf(out, "left out: the link %q, which leads out of that folder\n", name)
		}
	}
	return err
}

// choose is which artifacts are meant.
func (g getArtifacts) choose(all []*schedulerv1.Artifact, jobs map[string]string) ([]*schedulerv1.Artifact, error) {
	if len(all) == 0 {
		return nil, fault.Newf(fault.NotFound, "build %s has left no artifacts, or they are past their time", g.Build)
	}
	if g.Name == "" {
		return all, nil
	}
	var chosen []*schedulerv1.Artifact
	var names, titles []string
	for _, one := range all {
		names = append(names, one.GetName())
		if one.GetName() == g.Name {
			chosen, titles = append(chosen, one), append(titles, jobs[one.GetBuildId()])
		}
	}
	switch len(chosen) {
	case 0:
		return nil, fault.Newf(fault.NotFound, "build %s has no artifact %s: it has %s", g.Build, g.Name, strings.Join(names, ", "))
	case 1:
		return chosen, nil
	default:
		return nil, usagef("several jobs have left %s: ask for %s/JOB, where JOB is one of %s", g.Name, g.Build, strings.Join(titles, ", "))
	}
}

// foldersOf are the folders that artifacts are written into, side by side: each is
// called as its artifact and, where several jobs have left one of that name, lies in
// one called as its job.
func foldersOf(all []*schedulerv1.Artifact, jobs map[string]string) []string {
	named, called := map[string]int{}, map[string]int{}
	for _, one := range all {
		named[one.GetName()]++
		called[folderName(jobs[one.GetBuildId()])+"/"+one.GetName()]++
	}
	var folders []string
	for _, one := range all {
		folder := one.GetName()
		if job := folderName(jobs[one.GetBuildId()]); named[folder] > 1 {
			if job == "" || called[job+"/"+folder] > 1 || named[job] > 0 {
				job = one.GetBuildId()
			}
			folder = filepath.Join(job, folder)
		}
		folders = append(folders, folder)
	}
	return folders
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9._]+`)

// folderName is a job's title as a folder can be called anywhere.
func folderName(title string) string { return strings.Trim(unfit.ReplaceAllString(title, "-"), "-.") }
