package config

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/go-github/v62/github"
	lru "github.com/hashicorp/golang-lru/v2"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// shownKept is how long an answer for people is given again: whoever reloads a page
	// must not use up what GitHub allows.
	shownKept = 30 * time.Second
	// cachedShown is how many answers are kept; each is largestShown bytes at most.
	cachedShown  = 32
	largestShown = 2 * buildfile.MaxSize
)

// shownKey is what somebody asked to see.
type shownKey struct{ repository, ref string }

// shown is what they got.
type shown struct {
	time   time.Time
	answer *configv1.ShowBuildConfigResponse
}

// buildConfigs is the service of build configs, with what is shown to people.
type buildConfigs struct {
	*Service

	shown   *lru.Cache[shownKey, shown]
	showing singleflight[shownKey, *configv1.ShowBuildConfigResponse]
}

// ShowBuildConfig implements configv1.BuildConfigServiceServer.
func (s *buildConfigs) ShowBuildConfig(ctx context.Context, req *configv1.ShowBuildConfigRequest) (*configv1.ShowBuildConfigResponse, error) {
	owner, name, ok := strings.Cut(req.GetRepository(), "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return nil, fault.New(fault.Invalid, "name the repository as owner/name")
	}
	key := shownKey{strings.ToLower(req.GetRepository()), req.GetRef()}
	if known, ok := s.shown.Get(key); ok && s.now().Sub(known.time) < shownKept {
		return known.answer, nil
	}
	return s.showing.do(ctx, key, func(ctx context.Context) (*configv1.ShowBuildConfigResponse, error) {
		answer, err := s.show(ctx, &eventv1.Repository{Owner: owner, Name: name}, req.GetRef())
		if err == nil && len(answer.GetContent()) <= largestShown {
			s.shown.Add(key, shown{s.now(), answer})
		}
		return answer, err
	})
}

func (s *buildConfigs) show(ctx context.Context, of *eventv1.Repository, ref string) (*configv1.ShowBuildConfigResponse, error) {
	g, err := grantFor(of, 0, roomConfig)
	if err != nil {
		return nil, err
	}
	client, found, err := s.repository(ctx, g)
	if err != nil {
		return nil, err
	}
	if g, err = grantFor(found, 0, roomConfig); err != nil { // by its id, by which what was read is kept
		return nil, err
	}
	answer := &configv1.ShowBuildConfigResponse{Sha: ref}
	if !shaPattern.MatchString(ref) {
		if answer.Branch = ref; ref == "" {
			answer.Branch = found.GetDefaultBranch()
		}
		if answer.Sha, err = tipOf(ctx, s.clients, g, answer.GetBranch()); err != nil {
			return nil, fmt.Errorf("branch %s of %s: %w", answer.GetBranch(), g.fullName(), err)
		}
	}
	read, err := s.buildConfig(ctx, g, answer.GetSha(), false)
	if err != nil {
		return nil, err
	}
	switch outcome := read.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Absent:
		answer.Outcome = &configv1.ShowBuildConfigResponse_Absent{Absent: outcome.Absent}
		return answer, nil
	case *configv1.GetBuildConfigResponse_Forbidden:
		answer.Outcome = &configv1.ShowBuildConfigResponse_Forbidden{Forbidden: outcome.Forbidden}
		return answer, nil
	case *configv1.GetBuildConfigResponse_Invalid:
		answer.Outcome = &configv1.ShowBuildConfigResponse_Invalid{Invalid: outcome.Invalid}
	case *configv1.GetBuildConfigResponse_Config:
		answer.Outcome = &configv1.ShowBuildConfigResponse_Config{Config: outcome.Config}
	}
	answer.File, answer.Content, err = readText(ctx, client, g, answer.GetSha())
	return answer, err
}

// readText reads the file as it stands in a commit, empty where that is no text of
// a size that Forge reads: what is wrong with it says the outcome.
func readText(ctx context.Context, client *github.Client, g grant, sha string) (name, text string, err error) {
	for _, name := range []string{buildfile.Name, buildfile.OtherName} {
		content, _, _, err := client.Repositories.GetContents(ctx, g.owner, g.name, name, &github.RepositoryContentGetOptions{Ref: sha})
		switch {
		case statusOf(err) == http.StatusNotFound:
			continue
		case tooLarge(err):
			return name, "", nil
		case err != nil:
			return "", "", fmt.Errorf("%s of %s at %s: %w", name, g.fullName(), sha, githubFault(err))
		}
		if content.GetType() != "file" || content.SubmoduleGitURL != nil || content.GetSize() > buildfile.MaxSize {
			return name, "", nil
		}
		text, err := content.GetContent()
		if err != nil {
			return "", "", fault.Newf(fault.Unavailable, "%s as GitHub sent it: %w", name, err)
		}
		if !utf8.ValidString(text) {
			text = strings.ToValidUTF8(text, "\uFFFD")
		}
		return name, text, nil
	}
	return "", "", nil
}
