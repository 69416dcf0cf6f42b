package reporter

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/proto"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// maxAnswer is how many characters of an answer are told: people asked a short
// question.
const maxAnswer = 4000

// reactions are GitHub's words for them.
// https://docs.github.com/rest/reactions/reactions#about-reactions
func reactions() map[reporterv1.AnswerRequest_Reaction]string {
	return map[reporterv1.AnswerRequest_Reaction]string{
		reporterv1.AnswerRequest_REACTION_DONE:     "+1",
		reporterv1.AnswerRequest_REACTION_SEEN:     "eyes",
		reporterv1.AnswerRequest_REACTION_CONFUSED: "confused",
		reporterv1.AnswerRequest_REACTION_REFUSED:  "-1",
	}
}

// publishComment reacts to a comment, which GitHub takes as often as one likes,
// and says something below it, which it must not do twice: an answer that an
// earlier attempt may have left is found by its mark.
func publishComment(ctx context.Context, client *github.Client, t target) (receipt, error) {
	asked := &reporterv1.AnswerRequest{}
	if err := proto.Unmarshal(t.payload, asked); err != nil {
		return receipt{}, fmt.Errorf("payload of target %s: %w", t.id, err)
	}
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	if word := reactions()[asked.GetReaction()]; word != "" {
		if _, _, err := client.Reactions.CreateIssueCommentReaction(ctx, owner, name, asked.GetCommentId(), word); err != nil {
			return receipt{}, err
		}
	}
	if asked.GetText() == "" {
		return receipt{}, nil
	}
	mark := fmt.Sprintf("<!-- forge answers comment %d -->", asked.GetCommentId())
	if t.begun {
		if id, err := findComment(ctx, client, t, mark); id != 0 || err != nil {
			return receipt{githubID: id}, err
		}
	}
	text := asked.GetText()
	if t.plain {
		text = "GitHub refused the text of this answer."
	}
	said, _, err := client.Issues.CreateComment(ctx, owner, name, int(asked.GetPullRequest()), &github.IssueComment{
		Body: new(text + "\n\n" + mark),
	})
	return receipt{githubID: said.GetID()}, err
}

// findComment is the comment that an earlier attempt left; 0 where it left none.
func findComment(ctx context.Context, client *github.Client, t target, mark string) (int64, error) {
	// The clocks may differ.
	options := &github.IssueListCommentsOptions{Since: new(t.unpublishedSince.Add(-time.Hour)), ListOptions: github.ListOptions{PerPage: largestList}}
	for {
		some, resp, err := client.Issues.ListComments(ctx, t.repository.GetOwner(), t.repository.GetName(), int(t.pullRequest), options)
		if err != nil {
			return 0, err
		}
		for _, c := range some {
			if strings.Contains(c.GetBody(), mark) {
				return c.GetID(), nil
			}
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return 0, nil
		}
	}
}

// Answer stores how a comment is answered.
func (s *Service) Answer(ctx context.Context, req *reporterv1.AnswerRequest) (*reporterv1.AnswerResponse, error) {
	_, known := reactions()[req.GetReaction()]
	err := requireFields("answer", req.GetRepository(), map[string]bool{
		"comment": req.GetCommentId() <= 0, "pull request": req.GetText() != "" && req.GetPullRequest() <= 0,
		"reaction or text": !known && req.GetText() == "",
	})
	if err != nil {
		return nil, err
	}
	if text := cut(printable(req.GetText()), maxAnswer); text != req.GetText() {
		req = proto.CloneOf(req)
		req.Text = text
	}
	payload, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("answer to comment %d: %w", req.GetCommentId(), err)
	}
	kind, repositoryID := reporterv1.Target_KIND_COMMENT, req.GetRepository().GetId()
	err = s.store.change(ctx, targetID(kind, repositoryID, strconv.FormatInt(req.GetCommentId(), 10)), kind, repositoryID, func(t *target) {
		if t.version > 0 {
			return
		}
		t.version, t.payload = 1, payload
		t.desired = display{state: "answered", description: cut(oneLine(req.GetText()), maxDescription)}
		t.repository, t.installationID = req.GetRepository(), req.GetInstallationId()
		t.context, t.pullRequest = fmt.Sprintf("comment %d", req.GetCommentId()), req.GetPullRequest()
		t.traceparent = telemetry.Traceparent(ctx)
		t.schedule(s.deps.Now())
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.AnswerResponse{}, nil
}
