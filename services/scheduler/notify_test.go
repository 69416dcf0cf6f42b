package scheduler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/bulletin"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// chat is a Mattermost that keeps what it was told.
type chat struct {
	*httptest.Server
	mu   sync.Mutex
	down bool
	got  []string
}

func chatting(t *testing.T) *chat {
	t.Helper()
	c := &chat{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var said struct {
			Text string `json:"text"`
		}
		err := json.NewDecoder(r.Body).Decode(&said)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.down || err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		c.got = append(c.got, said.Text)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *chat) address() string {
	return "mattermost://" + strings.TrimPrefix(c.URL, "http://") + "/t0ken?disabletls=yes"
}

func (c *chat) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// said are the first lines of what it was told.
func (c *chat) said() (lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range c.got {
		line, _, _ := strings.Cut(text, "\n")
		lines = append(lines, strings.TrimPrefix(line, "Acme/shop "))
	}
	return lines
}

func (c *chat) hears(t *testing.T, r *rig, want ...string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		r.service.bulletin.Wake()
		if got := c.said(); !slices.Equal(got, want) {
			return fmt.Errorf("it was told %q, want %q", got, want)
		}
		return nil
	})
}

// settled waits until no chat is to be told anything.
func settled(t *testing.T, r *rig) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		r.service.bulletin.Wake()
		all, err := store.Board{Store: r.service.store}.Addresses(t.Context())
		for _, a := range all {
			if a.Waiting > 0 {
				return fmt.Errorf("%+v", a)
			}
		}
		return err
	})
}

func pushing(notify ...*configv1.Notify) *configv1.GetBuildConfigResponse {
	config := usual()
	config.Push = &configv1.Push{Branches: []string{"**"}, Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Name: "docs", Run: "make docs"}}}}
	config.Notify = notify
	return valid(config)
}

// eachNotifying has the default branch's file be read with this in it.
func eachNotifying(t *testing.T, notify []*configv1.Notify, test func(t *testing.T, r *rig, team *chat)) {
	t.Helper()
	eachStopped(t, func(t *testing.T, r *rig) {
		team := chatting(t)
		timed{r}.hasTips()
		r.config.set(mainTip, pushing(notify...))
		r.deps.Chats = bulletin.Chats{Channels: map[string]string{"team": team.address()}}
		r.start()
		r.send(opened(99, mainTip)) // tells of the repository
		kittest.Eventually(t, patience, func() error {
			r.wake()
			f, err := r.service.store.ReadScheduleFile(t.Context(), 7)
			if err == nil && len(f.Notify) != len(notify) {
				err = fmt.Errorf("read is %v", f)
			}
			return err
		})
		test(t, r, team)
	})
}

// pushed builds a push, which passes or fails.
func (r timed) pushed(branch, sha string, passes bool) string {
	r.t.Helper()
	if r.config.answers[sha] == nil {
		r.config.set(sha, pushing())
	}
	id := r.built(pushedTo("refs/heads/"+branch, sha))
	if passes {
		r.pass(id)
		r.becomes(id, schedulerv1.Build_STATE_PASSED)
		return id
	}
	r.fail(id, 1, 1)
	r.becomes(id, schedulerv1.Build_STATE_FAILED)
	return id
}

func TestAChatIsToldWhatChanges(t *testing.T) {
	channel := func(when configv1.Notify_When, branches ...string) *configv1.Notify {
		return &configv1.Notify{Channel: "team", When: when, Branches: branches}
	}
	for name, c := range map[string]struct {
		notify *configv1.Notify
		want   []string
	}{
		"changes": {channel(configv1.Notify_WHEN_CHANGES), []string{"main: forge/push failed", "main: forge/push passed again"}},
		"failures": {channel(configv1.Notify_WHEN_FAILURES, "**"), []string{
			"main: forge/push failed", "main: forge/push failed", "next: forge/push failed",
		}},
		"always":    {channel(configv1.Notify_WHEN_ALWAYS, "next"), []string{"next: forge/push failed"}},
		"elsewhere": {channel(configv1.Notify_WHEN_ALWAYS, "release/*"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			eachNotifying(t, []*configv1.Notify{c.notify}, func(t *testing.T, r *rig, team *chat) {
				timed{r}.pushed("main", "s1", false)
				timed{r}.pushed("main", "s2", false)
				timed{r}.pushed("next", "n1", false)
				id := timed{r}.pushed("main", "s3", true)
				timed{r}.pushed("main", "s4", true)
				settled(t, r)
				got, want := team.said(), slices.Clone(c.want)
				slices.Sort(got) // of several builds there is no order
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("it was told %q, want %q", got, want)
				}
				if name == "changes" && !slices.ContainsFunc(team.got, func(text string) bool {
					return text == "Acme/shop main: forge/push passed again\nAdd a till\ns3 by ada\nhttps://forge.example/builds/"+id
				}) {
					t.Errorf("%q", team.got)
				}
			})
		})
	}
}

// Whoever can open a pull request, or push a branch, has no say in whom Forge tells.
func TestOnlyTheDefaultBranchsFileSaysWhomToTell(t *testing.T) {
	eachNotifying(t, []*configv1.Notify{{Channel: "team", When: configv1.Notify_WHEN_ALWAYS, Branches: []string{"main"}}}, func(t *testing.T, r *rig, team *chat) {
		evil := chatting(t)
		r.service.bulletin.Chats.Channels["evil"] = evil.address()
		theirs := pushing(&configv1.Notify{Channel: "evil", When: configv1.Notify_WHEN_ALWAYS, Branches: []string{"**"}})
		for n, e := range []string{"p1", "f1", "b1"} {
			r.config.set(e, theirs)
			switch n {
			case 0:
				r.pass(r.built(opened(1, e)))
			case 1:
				fork := fromFork("eve", opened(2, e))
				fork.GetPullRequest().GetPullRequest().Head.Ref = "main"
				d := r.send(fork)
				if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: d.GetBuildIds()[0]}); err != nil {
					t.Fatal(err)
				}
				r.pass(d.GetBuildIds()[0])
			case 2:
				timed{r}.pushed("theirs", e, true)
			}
		}
		// Nor does a branch that has nothing of it in its file take it away.
		timed{r}.pushed("main", "m1", true)
		team.hears(t, r, "main: forge/push passed")
		settled(t, r)
		if got := evil.said(); len(got) > 0 {
			t.Errorf("it was told %q", got)
		}
	})
}

func TestAChatThatASecretLeadsTo(t *testing.T) {
	eachNotifying(t, []*configv1.Notify{{Secret: "CHAT", When: configv1.Notify_WHEN_ALWAYS}, {Channel: "gone", When: configv1.Notify_WHEN_ALWAYS}}, func(t *testing.T, r *rig, _ *chat) {
		own := chatting(t)
		timed{r}.pushed("main", "s1", true) // there is no such secret yet
		settled(t, r)
		_, err := r.secrets.SetSecret(t.Context(), &schedulerv1.SetSecretRequest{Repository: "Acme/shop", Name: "CHAT", Value: own.address()})
		if err != nil {
			t.Fatal(err)
		}
		timed{r}.pushed("main", "s2", true) // it leads to this machine
		settled(t, r)
		if got := own.said(); len(got) > 0 {
			t.Errorf("it was told %q", got)
		}
		known, err := store.Board{Store: r.service.store}.Addresses(t.Context())
		if a := known["chats/7/secret/CHAT"]; err != nil || a.Refused != 2 || !strings.Contains(a.Error, "not on the internet") || strings.Contains(a.Error, "t0ken") {
			t.Errorf("%+v %v", a, err)
		}
		r.service.bulletin.Chats.Private = true
		own.set(true)
		timed{r}.pushed("main", "s3", false)
		kittest.Eventually(t, patience, func() error {
			known, err := store.Board{Store: r.service.store}.Addresses(t.Context())
			if a := known["chats/7/secret/CHAT"]; err == nil && !strings.Contains(a.Error, "502") {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
		own.set(false)
		r.clock.Advance(5 * time.Minute)
		own.hears(t, r, "main: forge/push failed")
	})
}
