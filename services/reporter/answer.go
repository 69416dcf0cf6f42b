package reporter

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/proto"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
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

// tellAnswer reacts to a comment, which GitHub takes as often as one likes, and
// says something below it, which it must not do twice: an answer that an earlier
// try may have left is looked for by its mark.
func tellAnswer(ctx context.Context, client *github.Client, t target) (answer, error) {
	asked := &reporterv1.AnswerRequest{}
	if err := proto.Unmarshal(t.payload, asked); err != nil {
		return answer{}, fmt.Errorf("payload of target %s: %w", t.id, err)
	}
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	if word := reactions()[asked.GetReaction()]; word != "" {
		if _, _, err := client.Reactions.CreateIssueCommentReaction(ctx, owner, name, asked.GetCommentId(), word); err != nil {
			return answer{}, err
		}
	}
	if asked.GetText() == "" {
		return answer{}, nil
	}
	mark := fmt.Sprintf("<!-- forge answers comment %d -->", asked.GetCommentId())
	if t.begun {
		if id, err := findComment(ctx, client, t, mark); id != 0 || err != nil {
			return answer{githubID: id}, err
		}
	}
	said, _, err := client.Issues.CreateComment(ctx, owner, name, int(asked.GetPullRequest()), &github.IssueComment{
		Body: new(asked.GetText() + "\n\n" + mark),
	})
	return answer{githubID: said.GetID()}, err
}

func findComment(ctx context.Context, client *github.Client, t target, mark string) (int64, error) {
	// The clocks may differ.
	options := &github.IssueListCommentsOptions{Since: new(t.since.Add(-time.Hour)), ListOptions: github.ListOptions{PerPage: largestList}}
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
