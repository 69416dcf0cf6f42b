package gateway

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// subjectOf is the pull request and the commit that an event tells of; 0 and "" for none.
func subjectOf(e *eventv1.Event) (pull int32, sha string) {
	first := func(pulls []int32) int32 { return append(pulls, 0)[0] }
	switch {
	case e.GetPullRequest() != nil:
		about := e.GetPullRequest().GetPullRequest()
		if about.GetMerged() {
			return about.GetNumber(), about.GetMergeCommitSha()
		}
		return about.GetNumber(), about.GetHead().GetSha()
	case e.GetPush() != nil:
		return 0, cmp.Or(e.GetPush().GetHeadSha(), e.GetPush().GetAfter())
	case e.GetMergeGroup() != nil:
		return 0, e.GetMergeGroup().GetHeadSha()
	case e.GetCheckRun() != nil:
		return first(e.GetCheckRun().GetPullRequests()), e.GetCheckRun().GetHeadSha()
	case e.GetCheckSuite() != nil:
		return first(e.GetCheckSuite().GetPullRequests()), e.GetCheckSuite().GetHeadSha()
	case e.GetIssueComment().GetOnPullRequest():
		return e.GetIssueComment().GetNumber(), ""
	default:
		return 0, ""
	}
}

// subject is a pull request or a commit on GitHub, or a build.
type subject struct {
	build      string // its id; then the rest is empty
	repository string // owner/name
	pull       int32  // 0: it is a commit
	sha        string // at least its first 7 digits
}

// shortestSHA is how much of a commit's sha there must be.
const shortestSHA = 7

const ownerName = `([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+)`

var (
	buildID   = regexp.MustCompile(`^[a-z2-7]{26}(?:-[0-9]{1,9})?$`)
	buildPage = regexp.MustCompile(`/builds/([a-z2-7]{26}(?:-[0-9]{1,9})?)(?:/.*)?$`)
	shorthand = regexp.MustCompile(`^` + ownerName + `(?:#([0-9]+)|@([0-9A-Fa-f]+))$`)
	pagePath  = regexp.MustCompile(`^/` + ownerName + `/(?:(?:pull|issues)/([0-9]+)(?:/commits/([0-9A-Fa-f]+))?(?:/.*)?|commits?/([0-9A-Fa-f]+)(?:/.*)?)$`)
)

// parseSubject reads the address of a page of the GitHub at base, or acme/shop#7 or
// acme/shop@3f2a91c in its place; or that of a build's page, or its id.
func parseSubject(base, text string) (subject, error) {
	text = strings.Trim(strings.TrimSpace(text), "<>")
	if buildID.MatchString(text) {
		return subject{build: text}, nil
	}
	if m := shorthand.FindStringSubmatch(text); m != nil {
		return newSubject(base, m[1], m[2], m[3], m[4])
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	github, err := url.Parse(base)
	if err != nil {
		return subject{}, fmt.Errorf("the address of GitHub: %w", err)
	}
	at, err := url.Parse(text)
	if err != nil {
		return subject{}, errNoSubject(base)
	}
	if m := buildPage.FindStringSubmatch(at.Path); m != nil && at.Host != github.Host { // an id is of one build, wherever it is shown
		return subject{build: m[1]}, nil
	}
	m := pagePath.FindStringSubmatch(strings.TrimRight(strings.TrimPrefix(at.Path, strings.TrimSuffix(github.Path, "/")), "/"))
	if m == nil {
		return subject{}, errNoSubject(base)
	}
	if !strings.EqualFold(strings.TrimPrefix(at.Host, "www."), github.Host) {
		return subject{}, fault.Newf(fault.Invalid, "the address is one of %s: this Forge serves %s", at.Host, base)
	}
	return newSubject(base, m[1], m[2], m[3], cmp.Or(m[4], m[5]))
}

// newSubject takes a commit for what is meant where there is a pull request as well: it
// is one of that.
func newSubject(base, owner, name, pull, sha string) (subject, error) {
	s := subject{repository: owner + "/" + strings.TrimSuffix(name, ".git"), sha: strings.ToLower(sha)}
	if sha != "" {
		if len(sha) < shortestSHA || len(sha) > 64 {
			return subject{}, fault.Newf(fault.Invalid, "%q is no commit: give %d digits of its sha at least", sha, shortestSHA)
		}
		return s, nil
	}
	number, err := strconv.ParseInt(pull, 10, 32)
	if err != nil || number == 0 {
		return subject{}, errNoSubject(base)
	}
	s.pull = int32(number)
	return s, nil
}

func errNoSubject(base string) error {
	return fault.Newf(fault.Invalid, "this is no address of a pull request or a commit: expected one like %s/acme/shop/pull/7 or %[1]s/acme/shop/commit/3f2a91c, or acme/shop#7, or that of a build", base)
}
