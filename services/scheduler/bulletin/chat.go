package bulletin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// chats begins the names of addresses that files have, as chats/ID/secret/NAME.
	chats       = "chats/"
	inSecret    = "secret"
	inChannel   = "channel"
	shownOfText = 120
)

// tell stores, for each chat that the default branch's file has told of a build's end, what
// is said there. Nothing that a pull request or a fork has changed is looked at.
func (s *Service) tell(ctx context.Context, t *store.Tx, b *store.Build) error {
	if !store.Ended(b.GetState()) || b.GetState() == schedulerv1.Build_STATE_CANCELLED || b.GetPullRequest() != 0 || b.GetFork() {
		return nil
	}
	notices := store.Notices{Tx: t}
	asked, standard, err := notices.NotifyOf(ctx, b.GetRepository().GetId())
	asked = slices.DeleteFunc(asked, func(n *configv1.Notify) bool { return !about(n, b, standard) })
	if err != nil || len(asked) == 0 {
		return err
	}
	before, err := notices.Before(ctx, b)
	if err != nil {
		return err
	}
	passed := b.GetState() == schedulerv1.Build_STATE_PASSED
	changed := before != 0 && passed != (before == schedulerv1.Build_STATE_PASSED) || before == 0 && !passed
	for _, n := range asked {
		if n.GetWhen() == configv1.Notify_WHEN_FAILURES && passed || n.GetWhen() == configv1.Notify_WHEN_CHANGES && !changed {
			continue
		}
		kind, name := inSecret, n.GetSecret()
		if n.GetChannel() != "" {
			kind, name = inChannel, n.GetChannel()
		}
		err := notices.Add(ctx, store.Notice{
			Address: chats + strconv.FormatInt(b.GetRepository().GetId(), 10) + "/" + kind + "/" + name,
			BuildID: b.GetId(), EventID: b.GetId(), Event: []byte(said(b, passed && changed)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// about reports whether a build is one of those that are told of.
func about(n *configv1.Notify, b *store.Build, standard string) bool {
	branch := b.OnBranch()
	if len(n.GetBranches()) == 0 {
		return branch == standard || branch == ""
	}
	return branch != "" && slices.ContainsFunc(n.GetBranches(), func(glob string) bool { return doublestar.MatchUnvalidated(glob, branch) })
}

// said is what a chat is told. Of what people have written nothing remains that a chat takes
// for a mention, a link or markup.
func said(b *store.Build, again bool) string {
	state := wording.Value(b.GetState())
	if again {
		state += " again"
	}
	of := wording.FullName(b.GetRepository())
	if branch := b.OnBranch(); branch != "" {
		of += " " + branch
	}
	lines := []string{plain(fmt.Sprintf("%s: %s %s", of, b.GetContext(), state))}
	title, _, _ := strings.Cut(strings.TrimSpace(cmp.Or(b.GetTitle(), b.GetCommitMessage())), "\n")
	if title = plain(title); title != "" {
		lines = append(lines, title)
	}
	by := wording.Short(b.GetSha())
	if b.GetActor() != "" {
		by += " by " + plain(b.GetActor())
	}
	return strings.Join(append(lines, by, b.GetUrl()), "\n")
}

func plain(text string) string {
	return strings.NewReplacer("<", "‹", ">", "›", "@", "＠", "[", "(", "]", ")", "`", "'", "&", "＆", "://", ":∕∕").Replace(egress.OneLine(text, shownOfText))
}
