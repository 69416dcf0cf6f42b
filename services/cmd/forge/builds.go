package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type builds struct {
	List     listBuilds    `cmd:"" default:"withargs" help:"List them, newest first."`
	Stats    buildStats    `cmd:"" help:"Count a repository's builds by the day they ended on."`
	Show     showBuild     `cmd:"" help:"Show one with its steps: why does it wait, was it cancelled, did it fail?"`
	Watch    watchBuild    `cmd:"" help:"Tell of one until it has ended, and end as it did."`
	Create   createBuild   `cmd:"" help:"Build a commit of a branch by hand, or run what manual in .forge.yml has."`
	Inputs   listInputs    `cmd:"" help:"What manual in .forge.yml asks for: the inputs that builds create takes."`
	Cancel   cancelBuild   `cmd:"" help:"Stop one."`
	Retry    retryBuild    `cmd:"" help:"Build the same again."`
	Expedite expediteBuild `cmd:"" help:"Move one to the front of the queue."`
	Approve  approveBuild  `cmd:"" help:"Let a blocked build of a fork run, or a blocked deploy go."`
}

type listBuilds struct {
	query
	Repository  string   `aliases:"repo" placeholder:"OWNER/NAME" help:"Only this repository."`
	Pull        int32    `placeholder:"NUMBER" help:"Only this pull request; with --repository."`
	SHA         commit   `name:"sha" help:"Only this commit, in full."`
	Branch      string   `help:"Only this branch; of a fork OWNER:BRANCH; with --repository."`
	Base        string   `placeholder:"BRANCH" help:"Only what merges into this branch; with --repository."`
	Actor       string   `placeholder:"LOGIN" help:"Only what this person caused."`
	Job         string   `placeholder:"TITLE" help:"The history of a job, by its title, such as 'test (1.26)'; with --repository."`
	Environment string   `help:"Only deploys to this environment; with --repository."`
	Action      []string `enum:"test,staging,deploy_staging,deploy_production,push,closed,release,schedule,manual,deploy,preview,stop" placeholder:"ACTION" help:"Only these actions, such as test,push."`
	State       []string `enum:"queued,waiting,blocked,starting,running,passed,failed,errored,cancelled,timed_out" placeholder:"STATE" help:"Only in these states, such as queued,running."`
	Limit       count    `default:"20" help:"At most this many."`
}

// Run prints a line a build.
func (l listBuilds) Run() error {
	req := &schedulerv1.ListBuildsRequest{
		Repository: l.Repository, PullRequest: l.Pull, Sha: string(l.SHA), Branch: l.Branch, BaseRef: l.Base, Actor: l.Actor, Job: l.Job, Environment: l.Environment,
		Actions: actions(l.Action),
	}
	for _, state := range l.State {
		req.States = append(req.States, schedulerv1.Build_State(schedulerv1.Build_State_value["STATE_"+strings.ToUpper(state)]))
	}
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListBuildsResponse, err error) {
		client := schedulerv1.NewBuildServiceClient(conn)
		all = &schedulerv1.ListBuildsResponse{}
		all.Builds, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*schedulerv1.Build, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListBuilds(ctx, req)
			return page.GetBuilds(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetBuilds()), err)
	}, func(out io.Writer, all *schedulerv1.ListBuildsResponse) { printBuilds(out, all.GetBuilds()) })
}

// actions are those of these names.
func actions(names []string) (all []schedulerv1.Build_Action) {
	for _, name := range names {
		all = append(all, schedulerv1.Build_Action(schedulerv1.Build_Action_value["ACTION_"+strings.ToUpper(name)]))
	}
	return all
}

func printBuilds(out io.Writer, all []*schedulerv1.Build) {
	if len(all) == 0 {
		fmt.Fprintln(out, "no builds") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"CREATED", "ID", "REPOSITORY", "WHAT", "COMMIT", "STATE"}}
	for _, b := range all {
		rows = append(rows, []string{localTime(b.GetCreateTime()), b.GetId(), wording.FullName(b.GetRepository()), what(b), wording.Short(b.GetSha()), paint(out, colourOf(b.GetState()), stateLine(b))})
	}
	printTable(out, rows)
}

// what a build does, and for whom: "test #7", "deploy-staging".
func what(b *schedulerv1.Build) string {
	if b.GetRemoteBy() != "" {
		return "REMOTE run by " + b.GetRemoteBy()
	}
	did := strings.TrimPrefix(b.GetContext(), "forge/")
	if b.GetPullRequest() != 0 {
		did = fmt.Sprintf("%s #%d", did, b.GetPullRequest())
	}
	return did
}

// stateLine is a build's state and the reason for it.
func stateLine(b *schedulerv1.Build) string {
	state := wording.Value(b.GetState())
	if because := wording.Because(b); because != "" {
		state += ": " + because
	}
	return state
}

func printBuild(out io.Writer, b *schedulerv1.Build) {
	rows := [][]string{{"build", b.GetId()}, {"page", b.GetUrl()}, {"repository", wording.FullName(b.GetRepository())}, {"for", what(b) + " · " + b.GetTitle()}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("job", b.GetJob())
	add("of build", b.GetPartOf())
	add("needs", strings.Join(b.GetNeeds(), ", "))
	add("commit", b.GetSha())
	add("differs from", b.GetRemoteBase())
	add("by", b.GetActor())
	add("state", stateLine(b))
	if b.GetLine() != nil {
		add("waits", wording.Line(b.GetLine()))
		if b.GetLine().GetEstimateTime() != nil {
			add("starts about", localTime(b.GetLine().GetEstimateTime()))
		}
	}
	add("waited", waitedLine(b.GetWaits()))
	if b.GetRetryTime() != nil {
		add("tried again", localTime(b.GetRetryTime()))
	}
	add("put first by", b.GetExpeditedBy())
	for _, p := range b.GetConfigProblems() {
		add("", fmt.Sprintf("%s:%d:%d: %s", cmp.Or(p.GetFile(), ".forge.yml"), p.GetLine(), p.GetColumn(), p.GetMessage()))
	}
	add("concurrency", b.GetConcurrencyGroup())
	for _, i := range b.GetInputs() {
		add("input "+i.GetName(), inputValue(i))
	}
	add("repeats", cmp.Or(b.GetRollBackOf(), b.GetRetryOf()))
	add("superseded by", b.GetSupersededBy())
	approved := b.GetApprovedBy()
	if b.GetApproveTime() != nil {
		approved += ", " + localTime(b.GetApproveTime())
	}
	add("approved by", approved)
	add("approvers", strings.Join(b.GetApprovers(), ", "))
	add("after", b.GetAfter())
	add("machine", b.GetMachine())
	add("container", keptLine(b.GetId(), b.GetKeptUntilTime(), b.GetNotKept()))
	if b.GetAttempt() > 1 {
		add("attempt", strconv.Itoa(int(b.GetAttempt())))
	}
	add("created", localTime(b.GetCreateTime()))
	add("started", localTime(b.GetStartTime()))
	add("ended", localTime(b.GetEndTime()))
	add("delivery", b.GetDeliveryId())
	add("trace", b.GetTraceId())
	for _, job := range b.GetJobs() {
		add("job "+job.GetTitle(), jobLine(job))
	}
	for _, step := range b.GetSteps() {
		add(fmt.Sprintf("step %d", step.GetNumber()), stepState(step)+": "+step.GetName())
	}
	printTable(out, rows)
}

// oneBuild is a verb about one build, which answers with the build as it is then.
type oneBuild struct {
	query
	ID string `arg:"" name:"build" help:"The build's id, as in the address of its page; of a job BUILD/JOB, such as 7k2…/lint."`
}

// answer is an answer of Forge that holds a build.
type answer interface{ GetBuild() *schedulerv1.Build }

func (o oneBuild) run(do func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error)) error {
	return o.printed(do, printBuild)
}

// printed is run with the answer written as text writes it.
func (o oneBuild) printed(do func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error), text func(io.Writer, *schedulerv1.Build)) error {
	return ask(o.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*schedulerv1.Build, error) {
		client := schedulerv1.NewBuildServiceClient(conn)
		id, err := resolve(ctx, client, o.ID)
		if err != nil {
			return nil, err
		}
		answer, err := do(ctx, client, id)
		if err != nil {
			return nil, err
		}
		return answer.GetBuild(), nil
	}, text)
}

type showBuild struct{ oneBuild }

// Run shows a build.
func (s showBuild) Run() error {
	return s.run(func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
	})
}

type cancelBuild struct {
	oneBuild
	Message string `help:"Why, for those who look at it."`
}

// Run cancels a build.
func (c cancelBuild) Run() error {
	return c.printed(func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.CancelBuild(ctx, &schedulerv1.CancelBuildRequest{BuildId: id, Message: c.Message})
	}, printCancelled)
}

// printCancelled says of a build that has not ended yet that it was heard.
func printCancelled(out io.Writer, b *schedulerv1.Build) {
	if b.GetState() < schedulerv1.Build_STATE_PASSED {
		fmt.Fprintf(out, "it is asked to stop; forge builds watch %s tells when it has\n", b.GetId()) //nolint:errcheck // out is memory
	}
	printBuild(out, b)
}

type expediteBuild struct{ oneBuild }

// Run moves a build to the front of the queue.
func (e expediteBuild) Run() error {
	return e.run(func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.ExpediteBuild(ctx, &schedulerv1.ExpediteBuildRequest{BuildId: id})
	})
}

type retryBuild struct {
	oneBuild
	Failed bool `help:"Only the jobs that did not pass."`
}

// Run builds the same again.
func (r retryBuild) Run() error {
	return r.run(func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.RetryBuild(ctx, &schedulerv1.RetryBuildRequest{BuildId: id, FailedOnly: r.Failed})
	})
}

type approveBuild struct {
	oneBuild
	By string `placeholder:"LOGIN" help:"In whose name a deploy is let go, who must be one of those who may. Default: the administrator's own, who may."`
}

// Run approves a build.
func (a approveBuild) Run() error {
	return a.run(func(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (answer, error) {
		return client.ApproveBuild(ctx, &schedulerv1.ApproveBuildRequest{BuildId: id, By: a.By})
	})
}
