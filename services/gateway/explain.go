package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/wording"
)

// explained is how many builds and deliveries an explanation has.
const explained = 20

// ExplainAddress says what was built of a pull request, a commit or a status, and if
// nothing was, why. Other rooms are asked as whoever asks this one; over HTTP that is
// somebody who can read the repository.
func (s *Service) ExplainAddress(ctx context.Context, req *gatewayv1.ExplainAddressRequest) (*gatewayv1.ExplainAddressResponse, error) {
	about, err := parseSubject(s.deps.GitHub.URL, req.GetAddress())
	if err != nil {
		return nil, err
	}
	person := rpc.Caller(ctx).Person != ""
	answer := &gatewayv1.ExplainAddressResponse{}
	if about.build != "" {
		err = s.ofBuild(ctx, about.build, answer)
	} else {
		err = s.ofSubject(ctx, about, answer)
		if err == nil && person {
			err = s.withoutOthers(ctx, answer)
		}
	}
	if err != nil {
		return nil, err
	}
	if person {
		withoutInternals(answer.GetDeliveries())
	}
	ctx = rpc.Onward(ctx)
	if req.GetContext() != "" {
		if err := s.behind(ctx, answer, req.GetContext()); err != nil {
			return nil, err
		}
	}
	if len(answer.GetBuilds()) == 0 && len(answer.GetDeliveries()) == 0 {
		return answer, s.explainSilence(ctx, answer)
	}
	s.detail(ctx, answer, req.GetContext())
	if about.build != "" {
		answer.Answer = sentence(answer.GetBuild())
		return answer, nil
	}
	explain(answer)
	return answer, nil
}

// ofSubject finds what is known of a pull request or a commit.
func (s *Service) ofSubject(ctx context.Context, about subject, answer *gatewayv1.ExplainAddressResponse) (err error) {
	answer.Repository, answer.PullRequest, answer.Sha = about.repository, about.pull, about.sha
	if about.sha != "" {
		if answer.Sha, err = s.store.wholeSHA(ctx, about.repository, about.sha); err != nil {
			return err
		}
	}
	told, err := s.ListDeliveries(ctx, &gatewayv1.ListDeliveriesRequest{
		Repository: about.repository, PullRequest: about.pull, Sha: answer.GetSha(), PageSize: explained,
	})
	if err != nil {
		return err
	}
	built, err := schedulerv1.NewBuildServiceClient(s.deps.Receivers["scheduler"]).ListBuilds(rpc.Onward(ctx), &schedulerv1.ListBuildsRequest{
		Repository: about.repository, PullRequest: about.pull, Sha: answer.GetSha(), PageSize: explained,
	})
	if err != nil {
		return fmt.Errorf("builds of %s: %w", about.repository, err)
	}
	answer.Deliveries, answer.Builds = told.GetDeliveries(), built.GetBuilds()
	return nil
}

// explain says it of what was told, or built.
func explain(answer *gatewayv1.ExplainAddressResponse) {
	newest := telling(answer.GetDeliveries())
	way := schedulersWay(newest)
	switch decided := way.GetDecision(); {
	case way != nil && newest.GetState() == gatewayv1.Delivery_STATE_KEPT && decided.GetReason() == eventv1.Reason_REASON_GAVE_UP:
		answer.Answer, answer.Advice = "Forge could not decide what to build: "+decided.GetText(), "Once that is mended, redeliver the delivery below."
	case way != nil && decided == nil:
		answer.Answer = "GitHub told of it, and it has not been decided yet what to build"
		if way.GetError() != "" {
			answer.Answer = fmt.Sprintf("%s, after %s: %s", answer.GetAnswer(), tries(way.GetAttempts()), way.GetError())
		}
		answer.Advice = "It is tried again by itself; look again in a moment."
	case len(answer.GetBuilds()) == 0:
		answer.Answer, answer.Advice = "Nothing was built: "+why(decided), advice(decided.GetReason())
		if decided == nil {
			answer.Answer = "Nothing was built: GitHub told of nothing that asks for a build"
		}
	default:
		answer.Answer = sentence(answer.GetBuild())
		if sha := newest.GetSha(); sha != "" && unbuilt(decided.GetReason()) && !slices.ContainsFunc(answer.GetBuilds(), func(b *schedulerv1.Build) bool { return b.GetSha() == sha }) {
			answer.Answer = fmt.Sprintf("The newest commit, %s, was not built: %s. Before it, %s", wording.Short(sha), why(decided), answer.GetAnswer())
			answer.Advice = advice(decided.GetReason())
		}
	}
	answer.Answer = strings.TrimSuffix(answer.GetAnswer(), ".") + "."
}

// nameOf is the status that a build shows as; of a job the build's, with its title. A
// remote run has none.
func nameOf(b *schedulerv1.Build) string {
	if b.GetContext() == "" {
		return strings.TrimPrefix(b.GetJob()+" of a remote run", " of a ")
	}
	if b.GetJob() == "" || strings.HasSuffix(b.GetContext(), "/"+b.GetJob()) {
		return b.GetContext()
	}
	return b.GetContext() + "/" + b.GetJob()
}

// sentence says how a build stands, and why.
func sentence(b *schedulerv1.Build) string {
	text := nameOf(b) + " " + wording.Value(b.GetState())
	if because := wording.Because(b); because != "" {
		text += ": " + because
	}
	if b.GetLine() != nil {
		text += ", " + wording.Line(b.GetLine())
	}
	return strings.TrimSuffix(text, ".") + "."
}

// why is what a decision says, for a sentence that says already that it was none to build.
func why(d *eventv1.Decision) string { return strings.TrimPrefix(d.GetText(), "ignored: ") }

// telling is the newest delivery that says the most of why something was built or was
// not; nil where there is none.
func telling(all []*gatewayv1.Delivery) (found *gatewayv1.Delivery) {
	for _, d := range all {
		way := schedulersWay(d)
		if way == nil {
			continue
		}
		if found == nil {
			found = d
		}
		switch way.GetDecision().GetReason() {
		case eventv1.Reason_REASON_ACTION_IGNORED, eventv1.Reason_REASON_EVENT_IGNORED, eventv1.Reason_REASON_NOT_ADDRESSED,
			eventv1.Reason_REASON_NOTED, eventv1.Reason_REASON_DUPLICATE, eventv1.Reason_REASON_STALE, eventv1.Reason_REASON_ANSWERED:
		default:
			return d
		}
	}
	return found
}

// schedulersWay is the way of a delivery to the room that decides what is built; nil
// where it is none of that room's.
func schedulersWay(d *gatewayv1.Delivery) *gatewayv1.Forward {
	for _, way := range d.GetForwards() {
		if way.GetReceiver() == "scheduler" {
			return way
		}
	}
	return nil
}

// unbuilt reports whether a decision is that nothing is built of a commit.
func unbuilt(reason eventv1.Reason) bool {
	return reason >= eventv1.Reason_REASON_EVENT_IGNORED && advice(reason) != ""
}

// advice is what to do where nothing was built; empty where that is nothing.
func advice(reason eventv1.Reason) string {
	return map[eventv1.Reason]string{
		eventv1.Reason_REASON_BRANCH_IGNORED:    "FORGE_INTEGRATION_BRANCHES and FORGE_PRODUCTION_BRANCHES name the branches that pull requests are built for; .forge.yml names those whose pushes are.",
		eventv1.Reason_REASON_NO_CONFIG:         "Add a .forge.yml to the branch; forge check says whether it is right.",
		eventv1.Reason_REASON_NOTHING_TO_RUN:    "Add to .forge.yml what is to run for this kind of event.",
		eventv1.Reason_REASON_NO_MATCHING_PATHS: "None of the changed files matches paths of .forge.yml. Run it by hand, or widen paths.",
		eventv1.Reason_REASON_GONE:              "The branch, the fork or the repository is gone, or the App may not see it.",
		eventv1.Reason_REASON_FORK_IGNORED:      "FORGE_FORKS says what is done with pull requests of forks.",
		eventv1.Reason_REASON_NOT_ALLOWED:       "Somebody with write access has to ask for it.",
		eventv1.Reason_REASON_NOT_ADDRESSED:     "A draft is built once it is ready for review, or if .forge.yml says drafts: true.",
		eventv1.Reason_REASON_SKIP_ASKED:        "The commit's message or the title asks for that. Push another commit, or comment /forge retest.",
		eventv1.Reason_REASON_INVALID_CONFIG:    "Mend .forge.yml; the status on GitHub leads to the page with its errors.",
		eventv1.Reason_REASON_FORBIDDEN:         "Look at the App's permissions and at where it is installed.",
		eventv1.Reason_REASON_MALFORMED:         "Forge could not read the payload, which the delivery's page shows. Look at the version of GitHub, and of Forge.",
		eventv1.Reason_REASON_GAVE_UP:           "Once the reason is mended, redeliver the delivery below.",
		eventv1.Reason_REASON_EVENT_IGNORED:     "Forge does nothing for this kind of event.",
		eventv1.Reason_REASON_ACTION_IGNORED:    "Forge does nothing for this action of the event.",
	}[reason]
}

// explainSilence says why nothing at all is known.
func (s *Service) explainSilence(ctx context.Context, answer *gatewayv1.ExplainAddressResponse) error {
	what := "this pull request"
	if answer.GetPullRequest() == 0 {
		what = "this commit"
	}
	owner, _, _ := strings.Cut(answer.GetRepository(), "/")
	client := configv1.NewInstallationServiceClient(s.deps.Receivers["config"])
	req := &configv1.ListInstallationsRequest{PageSize: 500}
	for {
		page, err := client.ListInstallations(ctx, req)
		if err != nil {
			return fmt.Errorf("installations: %w", err)
		}
		for _, one := range page.GetInstallations() {
			if !strings.EqualFold(one.GetAccount(), owner) {
				continue
			}
			answer.Answer = "Nothing was built: GitHub has told Forge nothing of " + what + "."
			answer.Advice = "Forge hears of the newest commit of each push and of each pull request, and forgets it after a while. Is the address right? " +
				"forge recover has GitHub send what was missed; the App's settings on GitHub list what was sent, under Advanced."
			if one.GetSuspendTime() != nil {
				answer.Answer = fmt.Sprintf("Nothing was built: %s has suspended Forge's GitHub App.", owner)
				answer.Advice = "An owner can take that back: " + one.GetHtmlUrl()
			} else if one.GetRepositorySelection() == "selected" {
				answer.Advice += fmt.Sprintf(" The App is installed on selected repositories of %s: is %s one of them? %s", owner, answer.GetRepository(), one.GetHtmlUrl())
			}
			return nil
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			answer.Answer = fmt.Sprintf("Nothing was built: Forge's GitHub App is not installed on %s.", owner)
			answer.Advice = "Install it on the repository, from the App's page on GitHub."
			return nil
		}
	}
}

func tries(n int32) string {
	if n == 1 {
		return "one try"
	}
	return fmt.Sprintf("%d tries", n)
}
