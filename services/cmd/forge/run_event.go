package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/config/worktree"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/settings"
)

// happening is what is played: the event that the server would have had.
type happening struct {
	Event  string   `enum:",pull_request,merge_group,push,tag,release,closed,manual" default:"" placeholder:"EVENT" help:"What the server would have been told of: pull_request, merge_group, push, tag, release, closed or manual. Default: manual with --input, else pull_request."`
	Base   string   `placeholder:"BRANCH" help:"The base of the pull request, or of the merge group. Default: the default branch."`
	Branch string   `placeholder:"BRANCH" help:"The branch of the pull request, or that is pushed to. Default: what is checked out."`
	Tag    string   `placeholder:"NAME" help:"The tag that is pushed, or released. Default: the one at HEAD."`
	Label  []string `placeholder:"NAME" help:"A label of the pull request; several times for several."`
	Input  []string `sep:"none" placeholder:"NAME=VALUE" help:"A value of an input that manual in .forge.yml has; several times for several."`
}

const (
	pullNumber   = 1
	noCommit     = "0000000000000000000000000000000000000000"
	workingHead  = "working-tree" // a head that has no name of its own
	installation = 1
)

// prepare says what the event is of, and which action comes of it.
func (h *happening) prepare(ctx context.Context, source *worktree.Server, s settings.Local) (schedulerv1.Build_Action, error) {
	switch {
	case h.Event == "" && len(h.Input) > 0:
		h.Event = "manual"
	case h.Event == "":
		h.Event = "pull_request"
	case h.Event != "manual" && len(h.Input) > 0:
		return 0, usagef("--input: manual runs alone take inputs: leave out --event %s, or the inputs", h.Event)
	}
	h.Base = cmp.Or(h.Base, source.DefaultBranch)
	if h.Branch == "" {
		h.Branch = source.Branch
	}
	switch h.Event {
	case "push":
		h.Branch = cmp.Or(h.Branch, source.DefaultBranch)
		return schedulerv1.Build_ACTION_PUSH, nil
	case "tag", "release":
		if h.Tag == "" {
			h.Tag = source.TagAtHead(ctx)
		}
		if h.Tag == "" {
			return 0, usagef("no tag is at HEAD: name one by --tag")
		}
		if source.Tag = h.Tag; h.Event == "release" {
			return schedulerv1.Build_ACTION_RELEASE, nil
		}
		return schedulerv1.Build_ACTION_PUSH, nil
	case "manual":
		return schedulerv1.Build_ACTION_MANUAL, nil
	}
	if h.Branch == "" || h.Branch == h.Base {
		h.Branch = workingHead
	}
	tip := source.Tip(ctx, h.Base)
	if tip == "" && h.Base != source.DefaultBranch {
		return 0, usagef("--base %s: there is no such branch here: git fetch", h.Base)
	}
	source.Pull = h.pull(ctx, source, tip)
	if h.Event == "closed" {
		return schedulerv1.Build_ACTION_CLOSED, nil
	}
	aimed, decided := trigger.Policy{IntegrationBranches: s.IntegrationBranches, ProductionBranches: s.ProductionBranches}.LookUp(
		trigger.Intent{Event: &eventv1.Event{Repository: source.Repository()}, Pull: source.Pull, Kind: trigger.PullRequestOffered}, nil)
	if decided != nil { // the file may name the branch, which the scheduler sees to
		return schedulerv1.Build_ACTION_TEST, nil
	}
	return aimed.Action, nil
}

// pull is the pull request that the working tree would be.
func (h *happening) pull(ctx context.Context, source *worktree.Server, tip string) *eventv1.PullRequest {
	whole, now := source.Repository(), timestamppb.Now()
	return &eventv1.PullRequest{
		Number: pullNumber, Title: source.Title(ctx), Author: &eventv1.Account{Login: source.Person, Type: eventv1.Account_TYPE_USER},
		Head:   &eventv1.PullRequestBranch{Ref: h.Branch, Sha: source.SHA, Repository: whole},
		Base:   &eventv1.PullRequestBranch{Ref: h.Base, Sha: tip, Repository: whole},
		Labels: h.Label, Open: h.Event != "closed", CommitCount: int32(source.Count(ctx, tip)), //nolint:gosec // a history is shorter
		CreateTime: now, UpdateTime: now,
	}
}

// event is what the gateway would have sent.
func (h *happening) event(ctx context.Context, source *worktree.Server) *eventv1.Event {
	event := &eventv1.Event{
		DeliveryId: uuid.NewString(), ReceiveTime: timestamppb.Now(), InstallationId: installation,
		Repository: source.Repository(), Sender: &eventv1.Account{Login: source.Person, Type: eventv1.Account_TYPE_USER},
	}
	switch h.Event {
	case "merge_group":
		event.Name, event.Action = "merge_group", "checks_requested"
		event.Payload = &eventv1.Event_MergeGroup{MergeGroup: &eventv1.MergeGroupEvent{
			HeadSha: source.SHA, HeadRef: fmt.Sprintf("%s%s/pr-%d-%s", trigger.QueueRef, h.Base, pullNumber, source.SHA),
			BaseSha: source.Pull.GetBase().GetSha(), BaseRef: h.Base, HeadMessage: source.Title(ctx),
		}}
	case "push", "tag":
		push := &eventv1.PushEvent{Ref: trigger.BranchRef + h.Branch, Before: noCommit, After: source.SHA, HeadSha: source.SHA, HeadMessage: source.Title(ctx), Pusher: source.Person}
		if h.Event == "tag" {
			push.Ref = trigger.TagRef + h.Tag
		} else if before := source.Pushed(ctx, h.Branch); before != "" {
			push.Before = before
		}
		push.Created = push.GetBefore() == noCommit
		event.Name, event.Payload = "push", &eventv1.Event_Push{Push: push}
	case "release":
		event.Name, event.Action = "release", "published"
		event.Payload = &eventv1.Event_Release{Release: &eventv1.ReleaseEvent{ReleaseId: 1, Tag: h.Tag, Name: h.Tag}}
	default:
		event.Name, event.Action = "pull_request", "opened"
		if h.Event == "closed" {
			event.Action = "closed"
		}
		event.Payload = &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{PullRequest: source.Pull}}
	}
	return event
}

// happen tells the scheduler, and returns the id of the build that comes of it.
func (h *happening) happen(ctx context.Context, conn grpc.ClientConnInterface, source *worktree.Server) (string, error) {
	builds := schedulerv1.NewBuildServiceClient(conn)
	if h.Event == "manual" {
		inputs, err := createBuild{Input: h.Input}.inputs(func(name string) (string, error) {
			return "", fmt.Errorf("expected %s=VALUE", name)
		})
		if err != nil {
			return "", err
		}
		answer, err := builds.CreateBuild(ctx, &schedulerv1.CreateBuildRequest{
			Repository: source.Owner + "/" + source.Name, Action: schedulerv1.Build_ACTION_MANUAL, Branch: h.Branch, Inputs: inputs,
		})
		return answer.GetBuild().GetId(), err
	}
	answer, err := schedulerv1.NewEventServiceClient(conn).ReceiveEvent(ctx, &schedulerv1.ReceiveEventRequest{Event: h.event(ctx, source)})
	if err != nil {
		return "", err
	}
	decided := answer.GetDecision()
	switch ids := decided.GetBuildIds(); {
	case len(ids) == 0:
		return "", fmt.Errorf("nothing is built: %s", strings.TrimPrefix(decided.GetText(), "ignored: "))
	case decided.GetReason() == eventv1.Reason_REASON_DUPLICATE: // an earlier run built the same
		again, err := builds.RetryBuild(ctx, &schedulerv1.RetryBuildRequest{BuildId: ids[0]})
		return again.GetBuild().GetId(), err
	default:
		return slices.Max(ids), nil
	}
}
