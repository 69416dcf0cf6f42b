package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type environments struct {
	List     listEnvironments    `cmd:"" default:"withargs" help:"List them: what is deployed where, and what deploys now."`
	Show     showEnvironment     `cmd:"" help:"Show one, with the deploys that wait for it."`
	Freeze   freezeEnvironment   `cmd:"" help:"Let no further deploy begin."`
	Unfreeze unfreezeEnvironment `cmd:"" help:"Let the deploys that wait go on."`
	RollBack rollBackEnvironment `cmd:"" help:"Deploy once more what an earlier deploy put there."`
	Release  releaseEnvironment  `cmd:"" help:"Take it from a deploy that has ended and whose machine is gone for good."`
}

type listEnvironments struct {
	query
	Repository string `aliases:"repo" placeholder:"OWNER/NAME" help:"Only this repository."`
	Limit      count  `default:"50" help:"At most this many."`
}

// Run prints a line an environment.
func (l listEnvironments) Run() error {
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListEnvironmentsResponse, err error) {
		client := schedulerv1.NewEnvironmentServiceClient(conn)
		all = &schedulerv1.ListEnvironmentsResponse{}
		all.Environments, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*schedulerv1.Environment, string, error) {
			page, err := client.ListEnvironments(ctx, &schedulerv1.ListEnvironmentsRequest{Repository: l.Repository, PageSize: size, PageToken: token})
			return page.GetEnvironments(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetEnvironments()), err)
	}, func(out io.Writer, all *schedulerv1.ListEnvironmentsResponse) {
		printEnvironments(out, all.GetEnvironments())
	})
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
			runs, since = wording.Short(b.GetSha())+" by "+b.GetId(), localTime(b.GetEndTime())
		}
		rows = append(rows, []string{e.GetRepository(), e.GetName(), runs, since, activity(e)})
	}
	printTable(out, rows)
}

// activity is what happens to an environment now.
func activity(e *schedulerv1.Environment) string {
	switch {
	case e.GetDeploying() != nil:
		return "deploying " + wording.Short(e.GetDeploying().GetSha()) + " by " + e.GetDeploying().GetId()
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
			rows = append(rows, []string{name, fmt.Sprintf("%s by %s · %s", wording.Short(b.GetSha()), b.GetId(), b.GetTitle())})
		}
	}
	deploy("runs", e.GetDeployed())
	if e.GetDeployed() != nil {
		rows = append(rows, []string{"since", localTime(e.GetDeployed().GetEndTime())})
	}
	if e.GetFreezeTime() != nil {
		rows = append(rows, []string{"frozen", localTime(e.GetFreezeTime()) + ": " + e.GetFreezeMessage()})
	}
	deploy("deploying", e.GetDeploying())
	if e.GetHeldMessage() != "" {
		rows = append(rows, []string{"held", e.GetHeldMessage()})
	}
	for _, b := range e.GetWaiting() {
		deploy("waiting", b)
		if because := wording.Because(b); because != "" {
			rows = append(rows, []string{"", because})
		}
	}
	printTable(out, rows)
}

// oneEnvironment is a verb about one environment, which answers with it as it is
// then.
type oneEnvironment struct {
	query
	Repository  string `arg:"" placeholder:"OWNER/NAME" help:"The repository."`
	Environment string `arg:"" help:"Its name, such as production."`
}

func (o oneEnvironment) run(do func(context.Context, schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error)) error {
	return ask(o.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.Environment, error) {
		return do(ctx, schedulerv1.NewEnvironmentServiceClient(conn))
	}, printEnvironment)
}

type showEnvironment struct{ oneEnvironment }

// Run shows an environment.
func (s showEnvironment) Run() error {
	return s.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		answer, err := client.GetEnvironment(ctx, &schedulerv1.GetEnvironmentRequest{Repository: s.Repository, Environment: s.Environment})
		return answer.GetEnvironment(), err
	})
}

type freezeEnvironment struct {
	oneEnvironment
	Message string `arg:"" help:"Why, for those who wait; at most 100 characters."`
}

// Run freezes an environment.
func (f freezeEnvironment) Run() error {
	return f.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		answer, err := client.FreezeEnvironment(ctx, &schedulerv1.FreezeEnvironmentRequest{
			Repository: f.Repository, Environment: f.Environment, Message: f.Message,
		})
		if answer.GetWarning() != "" {
			fmt.Fprintln(os.Stderr, "forge:", answer.GetWarning())
		}
		return answer.GetEnvironment(), err
	})
}

type unfreezeEnvironment struct{ oneEnvironment }

// Run unfreezes an environment.
func (u unfreezeEnvironment) Run() error {
	return u.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		answer, err := client.UnfreezeEnvironment(ctx, &schedulerv1.UnfreezeEnvironmentRequest{Repository: u.Repository, Environment: u.Environment})
		return answer.GetEnvironment(), err
	})
}

type rollBackEnvironment struct {
	oneEnvironment
	ID string `arg:"" name:"build" help:"The earlier deploy, by its build's id."`
}

// Run rolls an environment back.
func (r rollBackEnvironment) Run() error {
	return ask(r.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.Build, error) {
		answer, err := schedulerv1.NewEnvironmentServiceClient(conn).RollBackEnvironment(ctx, &schedulerv1.RollBackEnvironmentRequest{
			Repository: r.Repository, Environment: r.Environment, BuildId: r.ID,
		})
		return answer.GetBuild(), err
	}, printBuild)
}

type releaseEnvironment struct {
	oneEnvironment
	Force bool `help:"Nothing of the deploy runs any more, as far as you know; without it the answer says what holds the environment."`
}

// Run releases an environment.
func (r releaseEnvironment) Run() error {
	return r.run(func(ctx context.Context, client schedulerv1.EnvironmentServiceClient) (*schedulerv1.Environment, error) {
		answer, err := client.ReleaseEnvironment(ctx, &schedulerv1.ReleaseEnvironmentRequest{
			Repository: r.Repository, Environment: r.Environment, Force: r.Force, By: whoAmI(),
		})
		return answer.GetEnvironment(), err
	})
}

// whoAmI is user@host, as far as they are known.
func whoAmI() string {
	name, host := "", ""
	if me, err := user.Current(); err == nil {
		name = me.Username
	}
	if known, err := os.Hostname(); err == nil {
		host = "@" + known
	}
	return name + host
}
