package reporter

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
)

// channel is one kind of report: how what Forge knows becomes something that
// GitHub shows. A new kind of report is a row of channels and a file.
type channel struct {
	kind reporterv1.Target_Kind
	// perBuild is true where each build has its own on GitHub. Otherwise the
	// builds of one context at one commit share it.
	perBuild bool
	// unhurried is true where the first state that is not final waits for
	// pendingDelay as well: a build that ends within it leaves fewer traces.
	unhurried bool
	// basic is true where GitHub takes no character beyond U+FFFF: it answers 422,
	// "description doesn't accept 4-byte Unicode".
	basic bool
	// noun names the targets of the kind in spans, "": each by its context.
	noun string

	// view picks the kind's column of a view; nil where no build is told so.
	view func(view) string
	// publish has GitHub show what the target desires.
	publish func(context.Context, *github.Client, target) (receipt, error)
	// read reads what GitHub shows of some targets of one commit; nil where it is
	// told once, and is people's from then on.
	read func(context.Context, *github.Client, []target) ([]display, error)
	// together is true where one call of read is enough for all targets of a
	// commit.
	together bool
}

// channels has every kind of report.
func channels() []channel {
	return []channel{
		{
			kind: reporterv1.Target_KIND_STATUS, view: statusColumn, basic: true,
			publish: publishStatus, read: readStatuses, together: true,
		},
		{
			kind: reporterv1.Target_KIND_CHECK_RUN, view: checkColumn, perBuild: true,
			publish: publishCheck, read: oneByOne(readCheck),
		},
		{
			kind: reporterv1.Target_KIND_DEPLOYMENT, view: deploymentColumn, perBuild: true, unhurried: true, basic: true,
			publish: publishDeployment, read: oneByOne(readDeployment),
		},
		{kind: reporterv1.Target_KIND_PROMOTION, publish: publishPromotion},
		{kind: reporterv1.Target_KIND_COMMENT, publish: publishComment, noun: "an answer"},
	}
}

// channelOf is the row of a kind. A kind without a row is a row of the database
// that a newer Forge has written: it can be neither told nor read.
func channelOf(kind reporterv1.Target_Kind) channel {
	rows := channels()
	if i := slices.IndexFunc(rows, func(c channel) bool { return c.kind == kind }); i >= 0 {
		return rows[i]
	}
	return channel{kind: kind, publish: func(context.Context, *github.Client, target) (receipt, error) {
		return receipt{}, fmt.Errorf("this Forge cannot tell GitHub targets of the kind %v", kind)
	}}
}

// line is a text as GitHub takes it for a description.
func (c channel) line(text string) string {
	text = oneLine(text)
	if c.basic {
		text = basicPlane(text)
	}
	return cut(text, maxDescription)
}

// reportedAs is what a build is told as by each value of FORGE_REPORT.
func reportedAs() map[string][]reporterv1.Target_Kind {
	return map[string][]reporterv1.Target_Kind{
		"statuses": {reporterv1.Target_KIND_STATUS},
		"checks":   {reporterv1.Target_KIND_CHECK_RUN},
		"both":     {reporterv1.Target_KIND_STATUS, reporterv1.Target_KIND_CHECK_RUN},
	}
}

// receipt is what GitHub made when it was told. A status has none.
type receipt struct {
	pullRequest int32
	githubID    int64
	note        string // for people
}

// oneByOne reads each target by itself. What is gone shows nothing.
func oneByOne(read func(context.Context, *github.Client, target) (display, *github.Response, error)) func(context.Context, *github.Client, []target) ([]display, error) {
	return func(ctx context.Context, client *github.Client, group []target) ([]display, error) {
		found := make([]display, len(group))
		for i, t := range group {
			one, resp, err := read(ctx, client, t)
			if err != nil && (resp == nil || resp.StatusCode != http.StatusNotFound) {
				return nil, err
			}
			found[i] = one
		}
		return found, nil
	}
}
