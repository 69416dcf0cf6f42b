package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"google.golang.org/grpc"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type why struct {
	query
	Address string `arg:"" help:"Of a pull request or a commit on GitHub, or acme/shop#7, or acme/shop@3f2a91c; or the address of a build's page, or its id; of a job BUILD/JOB."`
	Context string `arg:"" optional:"" help:"A status of it, such as forge/test: only what stands behind that."`
}

// Run says what was built of something, why it waits or failed, and if nothing was built,
// why.
func (w why) Run() error {
	return ask(w.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (*gatewayv1.ExplainAddressResponse, error) {
		address, err := explainable(ctx, schedulerv1.NewBuildServiceClient(conn), w.Address)
		if err != nil {
			return nil, err
		}
		return gatewayv1.NewDeliveryServiceClient(conn).ExplainAddress(ctx, &gatewayv1.ExplainAddressRequest{Address: address, Context: w.Context})
	}, printExplanation)
}

// beginsAsBuild is what BUILD/JOB begins with, and hardly an owner of repositories is called.
var beginsAsBuild = regexp.MustCompile(`^[a-z2-7]{26}/`)

// explainable is an address as Forge takes it: of BUILD/JOB the id of the job.
func explainable(ctx context.Context, client schedulerv1.BuildServiceClient, address string) (string, error) {
	if !beginsAsBuild.MatchString(address) || strings.ContainsAny(address, "#@") {
		return address, nil
	}
	return resolve(ctx, client, address)
}

const (
	// oneScreen is how many lines of a kind an explanation has as text.
	oneScreen = 5
	// mostExplained is how many Forge tells of a kind at most.
	mostExplained = 20
)

func printExplanation(out io.Writer, answer *gatewayv1.ExplainAddressResponse) {
	say := func(text string) {
		if text != "" {
			fmt.Fprintln(out, text) //nolint:errcheck // out is memory
		}
	}
	say(paint(out, bold, answer.GetAnswer()))
	say(answer.GetAdvice())
	if b := answer.GetBuild(); b != nil {
		say("")
		printTable(out, explainedBuild(out, b))
	}
	if len(answer.GetLastLines()) > 0 {
		say("\nIt printed last" + strings.TrimSuffix(" in "+answer.GetLastLinesJob(), " in ") + ":")
		for _, line := range answer.GetLastLines() {
			say(paint(out, dim, "  │ ") + line)
		}
	}
	if told := answer.GetTargets(); len(told) > 0 {
		say("\nGitHub was told:")
		var rows [][]string
		for _, t := range told[:min(len(told), oneScreen)] {
			rows = append(rows, []string{localTime(t.GetTellTime()), channel(t), wording.Value(t.GetState()), desired(t)})
		}
		printTable(out, rows)
		say(leftOut(len(told), "reports", wording.FullName(told[0].GetRepository()), 0, told[0].GetSha()))
	}
	if all := answer.GetBuilds(); len(all) > 1 || len(all) > 0 && answer.GetBuild() == nil {
		say("\nBuilds:")
		printBuilds(out, all[:min(len(all), oneScreen)])
		say(leftOut(len(all), "builds", answer.GetRepository(), answer.GetPullRequest(), answer.GetSha()))
	}
	if all := answer.GetDeliveries(); len(all) > 0 {
		say("\nDeliveries:")
		printDeliveries(out, all[:min(len(all), oneScreen)])
		say(leftOut(len(all), "deliveries", answer.GetRepository(), answer.GetPullRequest(), answer.GetSha()))
	}
}

// leftOut says how many there are besides those that are shown, and which verb lists them
// all; "" where there are none.
func leftOut(all int, noun, repository string, pull int32, sha string) string {
	if all <= oneScreen {
		return ""
	}
	more, of := fmt.Sprintf("%d more", all-oneScreen), "--sha "+sha
	if all >= mostExplained {
		more = fmt.Sprintf("at least %d more", all-oneScreen)
	}
	if pull != 0 {
		of = fmt.Sprintf("--pull %d", pull)
	}
	return fmt.Sprintf("and %s: forge %s list --repository %s %s", more, noun, repository, of)
}

// explainedBuild is where a build is, and what of it did not pass: the answer says the rest.
func explainedBuild(out io.Writer, b *schedulerv1.Build) [][]string {
	rows := [][]string{{"build", b.GetId()}, {"for", what(b) + " · " + b.GetTitle()}, {"page", b.GetUrl()}}
	commit := wording.Short(b.GetSha())
	if b.GetActor() != "" {
		commit += " by " + b.GetActor()
	}
	rows = append(rows, []string{"commit", commit})
	for _, j := range b.GetJobs() {
		if j.GetState() != schedulerv1.Build_STATE_PASSED {
			rows = append(rows, []string{"job " + j.GetTitle(), paint(out, colourOf(j.GetState()), jobLine(j))})
		}
		if line := keptLine(j.GetId(), j.GetKeptUntilTime(), ""); line != "" {
			rows = append(rows, []string{"container", line})
		}
	}
	for _, s := range b.GetSteps() {
		if s.GetState() == schedulerv1.Step_STATE_FAILED || s.GetState() == schedulerv1.Step_STATE_RUNNING {
			rows = append(rows, []string{fmt.Sprintf("step %d", s.GetNumber()), paint(out, colourOfStep(s), stepState(s)) + ": " + s.GetName()})
		}
	}
	if line := keptLine(b.GetId(), b.GetKeptUntilTime(), b.GetNotKept()); line != "" {
		rows = append(rows, []string{"container", line})
	}
	return rows
}
