package trigger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Intent is one thing that an event, or a call, asks for.
type Intent struct {
	Event *eventv1.Event // of a call: as far as there is one
	// Pull is the pull request; where there is none, number 0 with the title and
	// the base branch of what is built.
	Pull   *eventv1.PullRequest
	Kind   Kind
	Action schedulerv1.Build_Action // unspecified where nothing is built
	Sha    string                   // to be built
	Ref    string                   // where it is found
	Fork   bool
	// Message is the commit's, of a pull request; "" where nobody asked for it.
	Message string
	// Withheld: it gets no secrets, since what it repeats got none.
	Withheld bool
	// Branch is that of what is repeated; "" where nothing is.
	Branch string
	// Before is the commit before the push that is repeated; "" for none.
	Before string
	// Voucher is who has write access and stands for a fork's commit; "": nobody.
	Voucher string
	// Build is what a button was pressed for; "": the whole pull request.
	Build string
	// Schedule is what is run at a time, by its name, and Time the time it was due; Note
	// is for its log.
	Schedule, Note string
	Time           time.Time
	// Inputs are what was given for a build by hand, by their names.
	Inputs map[string]string
	// Remote is what a remote run was asked for, and the difference in it; nil for all else.
	Remote *schedulerv1.CreateRemoteBuildRequest
	// Environment is what is deployed to, where the action does not say.
	Environment string
	// Again says what is run of the build that is asked for once more.
	Again Again
}

// Again is what of a build's jobs is to run once more: all, as the zero value says,
// those that did not pass, or besides these one by name, with those that need it.
type Again struct {
	Failed bool
	Job    string
}

// Some reports whether it is not all.
func (a Again) Some() bool { return a.Failed || a.Job != "" }

// Context is the commit status that a build is told as; "" for one that nobody is told of. A tag has one of its own:
// pushed together with a branch, it would hide what became of the branch.
func (i Intent) Context() string {
	if i.Remote != nil {
		return ""
	}
	if i.Action == schedulerv1.Build_ACTION_PUSH && strings.HasPrefix(i.Ref, TagRef) {
		return "forge/tag"
	}
	if i.Schedule != "" {
		return "forge/schedule/" + i.Schedule
	}
	return "forge/" + ActionName(i.Action, i.Environment)
}

// DeploysTo is the environment that is deployed to; "" for none.
func (i Intent) DeploysTo() string { return cmp.Or(ActionOf(i.Action).Environment, i.Environment) }

// CommitMessage is the first line of the message of what is built. What is of no pull
// request has it as its title.
func (i Intent) CommitMessage() string {
	if i.Pull.GetNumber() == 0 {
		return oneLine(i.Pull.GetTitle())
	}
	return oneLine(i.Message)
}

// oneLine is the first line of what anybody may have written, as a variable can hold
// it.
func oneLine(text string) string {
	const most = 500
	printable := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(firstLine(text), "\ufffd"))
	runes := []rune(printable)
	return string(runes[:min(len(runes), most)])
}

// BeforeSha is the commit before a push; "" where there was none.
func (i Intent) BeforeSha() string {
	before := i.Event.GetPush().GetBefore()
	if i.Kind != Pushed || strings.Trim(before, "0") == "" {
		return i.Before
	}
	return before
}

// Builds reports whether something may be built, and .forge.yml is to be read.
func (i Intent) Builds() bool {
	return i.Action != schedulerv1.Build_ACTION_UNSPECIFIED && slices.Contains([]Kind{
		PullRequestOffered, PullRequestMarked, PullRequestMerged, PullRequestEnded, GroupRequested, Pushed, ReleasePublished, RebuildAsked, ManualAsked, RemoteAsked,
	}, i.Kind)
}

// Aimed reports whether the file of the base branch says what is built. A person
// names what is to be built again.
func (i Intent) Aimed() bool {
	return slices.Contains([]Kind{PullRequestOffered, PullRequestMarked, PullRequestEnded, GroupRequested}, i.Kind)
}

// Resolve fills in where what is built of a pull request is found, and what is built
// of a merge. What is built of others, the file of their base branch has a say in.
func (p Policy) Resolve(i Intent) (Intent, *eventv1.Decision) {
	i.Sha, i.Ref = i.Pull.GetHead().GetSha(), fmt.Sprintf("refs/pull/%d/head", i.Pull.GetNumber())
	switch i.Kind {
	case PullRequestClosed:
		return i, nil
	case PullRequestMerged:
		i.Sha, i.Ref = i.Pull.GetMergeCommitSha(), "refs/heads/"+i.Pull.GetBase().GetRef()
		return p.LookUp(i, nil)
	default:
		i.Fork = i.Pull.GetHead().GetRepository().GetId() != i.Event.GetRepository().GetId()
	}
	return p.orLater(i)
}

// orLater looks up what is built by the server's branches alone. Where these name no
// such base branch, its file may yet; or the pull request may have had another base,
// with tests that are over now.
func (p Policy) orLater(i Intent) (Intent, *eventv1.Decision) {
	aimed, decided := p.LookUp(i, nil)
	if decided.GetReason() == eventv1.Reason_REASON_BRANCH_IGNORED {
		return i, nil
	}
	return aimed, decided
}
