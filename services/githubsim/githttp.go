package githubsim

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
)

// What git itself asks for goes by git's own protocol: Basic credentials, refusals as text that git shows its user.
//
// Git's documentation: https://git-scm.com/docs/http-protocol and https://git-scm.com/docs/protocol-v2.
// GitHub's on tokens: https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/authenticating-as-a-github-app-installation#about-authentication-as-a-github-app-installation

const (
	maxGitRequest = 64 << 20 // bytes
	uploadPack    = "git-upload-pack"
	receivePack   = "git-receive-pack"
)

// gitAPI serves git.
type gitAPI struct{ *changes }

// authenticateGit returns who calls by git. The user's name does not count, and no scheme but Basic is known: git's routes
// refuse bearer tokens, which the API takes.
func (s *front) authenticateGit(r *http.Request) (caller, *response) {
	if r.Header.Get("Authorization") == "" {
		return caller{}, nil
	}
	user, token, isBasic := r.BasicAuth()
	if token == "" || token == "x-oauth-basic" {
		token = user
	}
	g := s.tokens[token]
	switch {
	case !isBasic:
		return caller{}, refuse(http.StatusUnauthorized, "invalid credentials")
	case g == nil || !s.now().Before(g.expires):
		return caller{}, refuse(http.StatusUnauthorized, "Invalid username or token. Password authentication is not supported for Git operations.")
	case !g.installation.suspended.IsZero():
		return caller{}, suspended()
	}
	return caller{grant: g}, nil
}

// admitGit is admit for git: nobody in particular is asked who they are before anything is said of a repository.
func (s *front) admitGit(a access, c *call) *response {
	r, _ := s.repositoryOf(c)
	g := c.caller.grant
	pushes := a.level == "write" || c.URL.Query().Get("service") == receivePack
	switch {
	case (r == nil || !s.canSee(c.caller, r) || pushes) && g == nil:
		return refuse(http.StatusUnauthorized, "Repository not found.")
	case r == nil || !s.canSee(c.caller, r):
		return refuse(http.StatusNotFound, "Repository not found.")
	case g != nil && s.now().Before(g.made.Add(s.config.TokenLag)):
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	case pushes && (!g.covers(r) || !allows(g.permissions, "contents", "write")):
		return refuse(http.StatusForbidden, fmt.Sprintf("Permission to %s.git denied to %s[bot].", r.fullName(), s.config.AppSlug))
	case !r.public && !allows(g.permissions, "contents", "read"):
		return refuse(http.StatusForbidden, "Write access to repository not granted.")
	}
	c.repo = r
	return nil
}

// infoRefs is what a clone, fetch or push asks first.
func (s *gitAPI) infoRefs(c *call) *response {
	switch c.URL.Query().Get("service") {
	case uploadPack:
	case receivePack:
		return refuse(http.StatusForbidden, "This GitHub takes no pushes.")
	default:
		return refuse(http.StatusForbidden, "Please upgrade your git client.\nGitHub.com no longer supports git over dumb-http.")
	}
	return s.serve(c, "application/x-git-upload-pack-advertisement", func(w io.Writer, run runGit) error {
		if !strings.Contains(c.Header.Get("Git-Protocol"), "version=2") {
			if _, err := io.WriteString(w, packetLine("# service="+uploadPack+"\n")+"0000"); err != nil {
				return err
			}
		}
		return run(nil, w, "upload-pack", "--stateless-rpc", "--http-backend-info-refs", ".")
	})
}

// uploadPack sends refs and objects.
func (s *gitAPI) uploadPack(c *call) *response {
	if sha := s.asksTooEarly(c); sha != "" {
		return &response{
			status: http.StatusOK, raw: []byte(packetLine("ERR upload-pack: not our ref " + sha + "\n")),
			header: http.Header{"Content-Type": {"application/x-git-upload-pack-result"}},
		}
	}
	return s.serve(c, "application/x-git-upload-pack-result", func(w io.Writer, run runGit) error {
		return run(bytes.NewReader(c.body), w, "upload-pack", "--stateless-rpc", ".")
	})
}

// asksTooEarly returns a commit that is asked for by its sha and that reads do not show yet; it may be on disk all the
// same. It is empty where there is none.
func (s *gitAPI) asksTooEarly(c *call) string {
	if s.lag == 0 {
		return ""
	}
	for sha, one := range c.repo.commits {
		if s.late(one.known()) && bytes.Contains(c.body, []byte("want "+sha)) {
			return sha
		}
	}
	return ""
}

// runGit runs git in the folder that it is to serve.
type runGit func(stdin io.Reader, stdout io.Writer, args ...string) error

// serve answers with what git writes, once what git serves is up to date. It does so without the lock.
func (s *gitAPI) serve(c *call, kind string, talk func(io.Writer, runGit) error) *response {
	return &response{
		status: http.StatusOK,
		header: http.Header{
			"Content-Type": {kind}, "Cache-Control": {"no-cache, max-age=0, must-revalidate"}, "Pragma": {"no-cache"},
			"Expires": {"Fri, 01 Jan 1980 00:00:00 GMT"},
		},
		stream: func(w io.Writer) error {
			err := s.withGit(c.Context(), c.repo, c.Header.Get("Git-Protocol"), func(run runGit) error { return talk(w, run) })
			if err != nil && c.Context().Err() == nil {
				_, _ = io.WriteString(w, packetLine("ERR "+err.Error()+"\n")) // git shows it; one that hung up needs no answer
			}
			return err
		},
	}
}

// withGit lets do run git in the folder of a repository that has all that reads show of it.
func (s *gitAPI) withGit(ctx context.Context, r *repository, protocol string, do func(runGit) error) error {
	ctx, end, err := s.disk.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	objects, err := s.disk.store(r)
	if err != nil {
		return err
	}
	folder, err := s.refresh(objects, r)
	if err != nil {
		return fmt.Errorf("repository %s for git: %w", r.fullName(), err)
	}
	return do(func(stdin io.Reader, stdout io.Writer, args ...string) error {
		cmd := in(folder, objects.objects(), exec.CommandContext(ctx, "git", args...))
		cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+protocol)
		cmd.Stdin, cmd.Stdout = stdin, stdout
		return runCommand(cmd)
	})
}

// packetLine is a line as git's protocol has it: its length in four digits, then itself.
func packetLine(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// receiveBody reads a request, which git may have packed.
func receiveBody(rt route, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if !rt.access.overGit() {
		return io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, maxGitRequest)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("packed request: %w", err)
		}
		body = unpacked
	}
	content, err := io.ReadAll(io.LimitReader(body, maxGitRequest+1))
	if err == nil && len(content) > maxGitRequest {
		err = errors.New("the request is too large")
	}
	return content, err
}

// finishGit writes a refusal as git shows it to people, each line after "remote: ".
func (r *response) finishGit(rt route) {
	if r.header == nil {
		r.header = http.Header{}
	}
	if strings.Contains(rt.pattern, "/info/lfs/") {
		r.finishLFS()
	}
	if problem, isError := r.body.(*apiError); isError {
		r.body, r.raw = nil, []byte(problem.Message)
		r.header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	if r.status == http.StatusUnauthorized {
		r.header.Set("WWW-Authenticate", `Basic realm="GitHub"`)
	}
}

// redirectClone leads git from an old name of a repository to its new one.
func (s *front) redirectClone(c *call) *response {
	r := s.moved[key(c.PathValue("owner"), repositoryName(c))]
	if r == nil || r.gone || !s.canSee(c.caller, r) {
		return nil
	}
	to := string(c.links) + "/" + r.fullName() + ".git/" + strings.SplitN(strings.TrimPrefix(c.URL.Path, "/"), "/", 3)[2]
	if c.URL.RawQuery != "" {
		to += "?" + c.URL.RawQuery
	}
	return &response{status: http.StatusMovedPermanently, header: http.Header{"Location": {to}}}
}
