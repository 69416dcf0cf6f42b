package gateway

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"net/http"
	"strings"
	"unicode/utf8"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/wording"
)

// badgeReader is for whom builds are asked for that a badge tells of. No login has
// brackets.
const badgeReader = "(badge)"

// longestBranch bounds what a badge has room for, in characters.
const longestBranch = 60

// badges show the state of a branch as a picture: of public repositories to everybody,
// of others to who has the repository's token in the address. Whoever has that learns
// the state of each branch and no more.
type badges struct {
	builds schedulerv1.BuildServiceClient
	public func(ctx context.Context, of *eventv1.Repository) (bool, error)
	key    []byte
	log    func(ctx context.Context, message string, args ...any)
}

// token is that of a repository. It lasts as long as the key it is made with.
func (b *badges) token(owner, name string) string {
	mac := hmac.New(sha256.New, b.key)
	mac.Write([]byte("badge\x00" + strings.ToLower(owner+"/"+name)))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// serve sends GET /badges/{owner}/{name}.svg. What is not there and what is not for
// whoever asks look alike.
func (b *badges) serve(w http.ResponseWriter, r *http.Request) {
	owner, query := r.PathValue("owner"), r.URL.Query()
	name, isPicture := strings.CutSuffix(r.PathValue("name"), ".svg")
	if !isPicture {
		b.send(w, r, http.StatusNotFound, "forge", "unknown")
		return
	}
	ctx := rpc.For(r.Context(), badgeReader)
	if !hmac.Equal([]byte(query.Get("token")), []byte(b.token(owner, name))) {
		public, err := b.public(ctx, &eventv1.Repository{Owner: owner, Name: name})
		if err != nil && r.Context().Err() == nil {
			b.log(ctx, "it is not known whether a repository is public; its badge is not shown", "repository", owner+"/"+name, "error", err)
		}
		if !public {
			b.send(w, r, http.StatusNotFound, "forge", "unknown")
			return
		}
	}
	branch, state, err := b.state(ctx, owner+"/"+name, query.Get("branch"))
	if err != nil {
		if r.Context().Err() == nil {
			b.log(ctx, "ListBuilds failed; the badge shows nothing", "repository", owner+"/"+name, "error", err)
		}
		b.send(w, r, http.StatusServiceUnavailable, "forge", "unavailable")
		return
	}
	label := "forge"
	if query.Get("branch") != "" {
		label = branch
	}
	b.send(w, r, http.StatusOK, label, state)
}

// state is that of the newest commit of a branch of which something has come to an end:
// the worst of what was built of it, of each only the newest run.
func (b *badges) state(ctx context.Context, repository, branch string) (named, state string, err error) {
	if branch == "" {
		newest, err := b.builds.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{Repository: repository, PageSize: 1})
		if err != nil || len(newest.GetBuilds()) == 0 {
			return "", "not built", err
		}
		branch = newest.GetBuilds()[0].GetRepository().GetDefaultBranch()
	}
	answer, err := b.builds.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{Repository: repository, Branch: branch, PageSize: 30})
	if err != nil {
		return branch, "", err
	}
	var sha string
	seen, worst := map[string]bool{}, schedulerv1.Build_STATE_UNSPECIFIED
	for _, build := range answer.GetBuilds() {
		over := build.GetEndTime() != nil && build.GetState() != schedulerv1.Build_STATE_CANCELLED
		if !over || sha != "" && build.GetSha() != sha || seen[build.GetContext()] {
			continue
		}
		sha = build.GetSha()
		seen[build.GetContext()] = true
		if worst == schedulerv1.Build_STATE_UNSPECIFIED || worst == schedulerv1.Build_STATE_PASSED {
			worst = build.GetState()
		}
	}
	words := map[schedulerv1.Build_State]string{
		schedulerv1.Build_STATE_UNSPECIFIED: "not built", schedulerv1.Build_STATE_PASSED: "passing",
		schedulerv1.Build_STATE_FAILED: "failing", schedulerv1.Build_STATE_TIMED_OUT: "failing",
	}
	return branch, cmp.Or(words[worst], wording.Value(worst)), nil
}

// send sends a picture with a tag, so that who has it already gets none again.
func (b *badges) send(w http.ResponseWriter, r *http.Request, code int, label, state string) {
	picture := drawBadge(label, state)
	sum := sha256.Sum256([]byte(picture))
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "max-age=60, must-revalidate")
	h.Set("ETag", tag)
	if code == http.StatusOK && strings.Contains(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(picture)) // a reader who left is no error
}

// drawBadge is an SVG of two boxes, with room for their texts.
func drawBadge(label, state string) string {
	if utf8.RuneCountInString(label) > longestBranch {
		label = string([]rune(label)[:longestBranch-1]) + "…"
	}
	colour := map[string]string{"passing": "#1a7f37", "failing": "#c3222c", "errored": "#c3222c"}[state]
	if colour == "" {
		colour = "#59636e"
	}
	room := func(text string) int { return 12 + 7*utf8.RuneCountInString(text) }
	left, right := room(label), room(state)
	label, state = html.EscapeString(label), html.EscapeString(state)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="20" role="img" aria-label="%s: %s"><title>%s: %s</title>`+
		`<rect width="%d" height="20" rx="3" fill="#24292f"/><path d="M%d 0h%da3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H%dz" fill="%s"/>`+
		`<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">`+
		`<text x="%d" y="14">%s</text><text x="%d" y="14">%s</text></g></svg>`,
		left+right, label, state, label, state, left+right, left, right-3, left, colour, left/2, label, left+right/2, state)
}

// badgeKey is what tokens of badges are made with: they last as long as what people, or
// else admins, are known by.
func badgeKey(p People) []byte {
	switch {
	case len(p.SignIn.Keys) > 0:
		return p.SignIn.Keys[0]
	case p.AdminToken != "":
		return []byte(p.AdminToken)
	}
	return []byte(rand.Text())
}
