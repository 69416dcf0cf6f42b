package plan

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// releasing finds what is built of a release.
type releasing struct{ *Service }

// located is a release with the commit of its tag: the event names the tag alone.
func (s releasing) located(ctx context.Context, p prepared) (prepared, *eventv1.Decision, error) {
	tag := p.Event.GetRelease().GetTag()
	found, err := s.Commits.FindCommit(ctx, &configv1.FindCommitRequest{
		Repository: p.Event.GetRepository(), Tag: tag, EventTime: p.Event.GetReceiveTime(),
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return p, wording.Ignored(eventv1.Reason_REASON_GONE, "the tag %s is gone from GitHub", tag), nil
	case err != nil:
		return p, nil, fmt.Errorf("commit of tag %s: %w", tag, err)
	}
	p.Sha, p.Pull = found.GetSha(), proto.CloneOf(p.Pull)
	p.Pull.Title = found.GetTitle()
	return p, nil, nil
}
