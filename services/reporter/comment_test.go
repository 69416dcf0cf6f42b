package reporter

import (
	"strings"
	"testing"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// question is a question on a pull request.
func (w *world) question() *reporterv1.AnswerRequest {
	w.t.Helper()
	w.must(w.sim.CreateBranch("octo", "shop", "apples", "main"))
	_, err := w.sim.Commit("octo", "shop", "apples", githubsim.Commit{Files: map[string]string{"apples": "red"}})
	w.must(err)
	number, err := w.sim.OpenPullRequest("octo", "shop", githubsim.PullRequest{Title: "Apples", Head: "apples"})
	w.must(err)
	id, err := w.sim.Comment("octo", "shop", number, "mallory", "/forge retest")
	w.must(err)
	return &reporterv1.AnswerRequest{
		Repository: w.repository, InstallationId: w.installation, CommentId: id, PullRequest: int32(number),
		Reaction: reporterv1.AnswerRequest_REACTION_REFUSED, Text: "mallory may not write to octo/shop, so nothing is run.",
	}
}

func (w *world) comments(number int32) []githubsim.Comment {
	w.t.Helper()
	all, err := w.sim.Comments("octo", "shop", int(number))
	w.must(err)
	return all
}

func TestCommentIsAnsweredOnce(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s, ask := w.reporter(open()), w.question()
		for _, text := range []string{ask.GetText(), ask.GetText(), "something else"} {
			ask.Text = text
			_, err := s.Answer(t.Context(), ask)
			w.must(err)
			w.publishAll(s)
		}
		all := w.comments(ask.GetPullRequest())
		if len(all) != 2 || strings.Join(all[0].Reactions, " ") != "-1" || !strings.HasPrefix(all[1].Body, "mallory may not write") {
			t.Errorf("comments %+v", all)
		}
	})
}

func TestReactionAloneIsAnAnswer(t *testing.T) {
	w := newWorld(t)
	s, ask := w.reporter(sqlite(t)), w.question()
	ask.Reaction, ask.Text = reporterv1.AnswerRequest_REACTION_SEEN, ""
	_, err := s.Answer(t.Context(), ask)
	w.must(err)
	w.publishAll(s)
	if all := w.comments(ask.GetPullRequest()); len(all) != 1 || strings.Join(all[0].Reactions, " ") != "eyes" {
		t.Errorf("comments %+v", all)
	}
}

func TestLostAnswerToACommentIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	s, ask := w.reporter(sqlite(t)), w.question()
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "POST /repos/{owner}/{repo}/issues/{number}/comments", Cut: true, CarriedOut: true, Times: 1})
	_, err := s.Answer(t.Context(), ask)
	w.must(err)
	w.publishAll(s)
	if all := w.comments(ask.GetPullRequest()); len(all) != 2 || w.target(s).GetGithubId() != all[1].ID {
		t.Errorf("comments %+v", all)
	}
}
