package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type environments struct {
	List     listEnvironments    `cmd:"" default:"withargs" help:"List them: what is deployed where, and what deploys now."`
	Show     showEnvironment     `cmd:"" help:"Show one, with the deploys that wait for it."`
	Freeze   freezeEnvironment   `cmd:"" help:"Let no further deploy begin."`
	Unfreeze unfreezeEnvironment `cmd:"" help:"Let the deploys that wait go on."`
	RollBack rollBackEnvironment `cmd:"" help:"Deploy once more what an earlier deploy put there."`
}

type listEnvironments struct {
	remote
	output
	Repository string `placeholder:"OWNER/NAME" help:"Only this repository."`
	Limit      count  `default:"50" help:"At most this many."`
}

// Run prints a line an environment.
func (l listEnvironments) Run() error {
	all := &schedulerv1.ListEnvironmentsResponse{}
	err := l.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		client := schedulerv1.NewEnvironmentServiceClient(conn)
		all.Environments, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*schedulerv1.Environment, string, error) {
			page, err := client.ListEnvironments(ctx, &schedulerv1.ListEnvironmentsRequest{Repository: l.Repository, PageSize: size, PageToken: token})
			return page.GetEnvironments(), page.GetNextPageToken(), err
		})
		return err
	})
	if err != nil {
		return err
	}
	return l.print(all, func(out io.Writer) { printEnvironments(out, all.GetEnvironments()) })
}

func printEnvironments(out io.Writer, all []*schedulerv1.Environment) {
	if len(all) == 0 {
		fmt.Fprintln(out, "nothing was deployed yet") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "ENVIRONMENT", "RUNS", "SINCE", "NOW"}}
	for _, e := range all {
		runs, since := "-", "-"
		if b := e.GetDeployed(); b != nil {
			runs, since = short(b.GetSha())+" by "+b.GetId(), moment(b.GetEndTime())
		}
		rows = append(rows, []string{e.GetRepository(), e.GetName(), runs, since, now(e)})
	}
	printTable(out, rows)
}

// now is what happens to an environment.
func now(e *schedulerv1.Environment) string {
	switch {
	case e.GetDeploying() != nil:
		return "deploying " + short(e.GetDeploying().GetSha()) + " by " + e.GetDeploying().GetId()
	case e.GetFreezeTime() != nil:
		return "frozen: " + e.GetFreezeMessage()
	default:
		return "-"
	}
}

func printEnvironment(out io.Writer, e *schedulerv1.Environment) {
	rows := [][]string{{"environment", e.GetName() + " of " + e.GetRepository()}}
	deploy := func(name string, b *schedulerv1.Build) {
		if b != nil {
			rows = append(rows, []string{name, fmt.Sprintf("%s by %s · %s", short(b.GetSha()), b.GetId(), b.GetTitle())})
		}
	}
	deploy("runs", e.GetDeployed())
	if e.GetDeployed() != nil {
		rows = append(rows, []string{"since", moment(e.GetDeployed().GetEndTime())})
	}
	if e.GetFreezeTime() != nil {
		rows = append(rows, []string{"frozen", moment(e.GetFreezeTime()) + ": " + e.GetFreezeMessage()})
	}
	deploy("deploying", e.GetDeploying())
	for _, b := range e.GetWaiting() {
		deploy("waiting", b)
	}
	printTable(out, rows)
}

// oneEnvironment is a verb about one environment, which answers with it as it is
// then.
type oneEnvironment struct {
	remote
	output
	Repository  string `arg:"" placeholder:"OWNER/NAME" help:"The repository."`
	Environment string `arg:"" enum:"staging,production" help:"staging or production."`
}

func (o oneEnvironment) run(do func(context.Context, schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error)) error {
	var e *schedulerv1.Environment
	err := o.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		e, err = do(ctx, schedulerv1.NewEnvironmentServiceClient(conn))
		return err
	})
	if err != nil {
		return err
	}
	return o.print(e, func(out io.Writer) { printEnvironment(out, e) })
}

type showEnvironment struct{ oneEnvironment }

// Run shows an environment.
func (s showEnvironment) Run() error {
	return s.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		said, err := client.GetEnvironment(ctx, &schedulerv1.GetEnvironmentRequest{Repository: s.Repository, Environment: s.Environment})
		return said.GetEnvironment(), err
	})
}

type freezeEnvironment struct {
	oneEnvironment
	Message string `arg:"" help:"Why, for those who wait; at most 100 characters."`
}

// Run freezes an environment.
func (f freezeEnvironment) Run() error {
	return f.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		said, err := client.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{
			Repository: f.Repository, Environment: f.Environment, Message: f.Message,
		})
		return said.GetEnvironment(), err
	})
}

type unfreezeEnvironment struct{ oneEnvironment }

// Run unfreezes an environment.
func (u unfreezeEnvironment) Run() error {
	return u.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		said, err := client.UnfreezeEnvironment(ctx, &schedulerv1.UnfreezeEnvironmentRequest{Repository: u.Repository, Environment: u.Environment})
		return said.GetEnvironment(), err
	})
}

type rollBackEnvironment struct {
	oneEnvironment
	ID string `arg:"" name:"build" help:"The earlier deploy, by its build's id."`
}

// Run rolls an environment back.
func (r rollBackEnvironment) Run() error {
	var b *schedulerv1.Build
	err := r.call(callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		said, err := schedulerv1.NewEnvironmentServiceClient(conn).RollBackEnvironment(ctx, &schedulerv1.RollBackEnvironmentRequest{
			Repository: r.Repository, Environment: r.Environment, BuildId: r.ID,
		})
		b = said.GetBuild()
		return err
	})
	if err != nil {
		return err
	}
	return r.print(b, func(out io.Writer) { printBuild(out, b) })
}
