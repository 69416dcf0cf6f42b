package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/githubsim"
)

// commands are what scripts have besides testscript's own. REPO is a name without its
// owner; FOLDER one of the script's own folders.
//
//	repo REPO FOLDER [public]        adds a repository with these files; sets $REPO, with its owner
//	commit REPO BRANCH FOLDER        puts the files onto a branch; sets $SHA
//	propose REPO BRANCH FOLDER       the same, and opens a pull request into main; sets $PULL, too
//	merge REPO PULL                  merges it; sets $SHA
//	shows REPO SHA CONTEXT STATE     waits until GitHub shows that; sets $BUILD, the build it leads to
//	may REPO LOGIN ROLE              gives somebody a role
//	signin LOGIN                     does what forge login does, at once
//	enter LOGIN FILE                 waits until the file shows the code of forge login, and enters it
//	until REGEXP CMD [ARG…]          runs the command until its output matches; then stdout and stderr are that run's
//	field VAR NAME                   sets the variable to the first field of that name in the JSON printed last
//	model TOOL JSON CMD [ARG…]       runs the command, a server of MCP, and calls a tool of it; "tools" lists them
//	exits CODE CMD [ARG…]            runs the command, which ends with that code
func (w scriptWorld) commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	all := map[string]func(ts *testscript.TestScript, neg bool, args []string){}
	add := func(name string, least int, do func(ts *testscript.TestScript, args []string)) {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < least {
				ts.Fatalf("%s: takes %d arguments or more, and no !", name, least)
			}
			do(ts, args)
		}
	}
	add("repo", 2, func(ts *testscript.TestScript, args []string) {
		ts.Check(w.repository(args[0], ts.MkAbs(args[1]), len(args) > 2))
		ts.Setenv("REPO", demoOwner+"/"+args[0])
	})
	add("commit", 3, w.commitCommand)
	add("propose", 3, func(ts *testscript.TestScript, args []string) {
		w.commitCommand(ts, args)
		number, err := w.sim.OpenPullRequest(demoOwner, args[0], githubsim.PullRequest{Title: "Change " + args[1], Head: args[1], Base: "main", Author: "ada"})
		ts.Check(err)
		ts.Setenv("PULL", strconv.Itoa(number))
	})
	add("merge", 2, func(ts *testscript.TestScript, args []string) {
		number, err := strconv.Atoi(args[1])
		ts.Check(err)
		sha, err := w.sim.Merge(demoOwner, args[0], number)
		ts.Check(err)
		ts.Setenv("SHA", sha)
	})
	add("shows", 4, w.showsCommand)
	add("may", 3, func(ts *testscript.TestScript, args []string) {
		ts.Check(w.sim.SetPermission(demoOwner, args[0], args[1], args[2]))
	})
	add("signin", 1, w.signInCommand)
	add("enter", 2, func(ts *testscript.TestScript, args []string) {
		var code []string
		w.await(ts, func() error {
			text, err := os.ReadFile(ts.MkAbs(args[1]))
			if code = regexp.MustCompile(`Enter the code (\S+) at `).FindStringSubmatch(string(text)); code == nil {
				return fmt.Errorf("%s shows no code: %q, %w", args[1], text, err)
			}
			return nil
		})
		ts.Check(w.sim.EnterDeviceCode(args[0], code[1], true))
	})
	add("until", 2, func(ts *testscript.TestScript, args []string) {
		wanted, err := regexp.Compile("(?m)" + args[0])
		ts.Check(err)
		w.awaitEvery(ts, 200*time.Millisecond, func() error { // each try costs a process
			err := ts.Exec(args[1], args[2:]...)
			if said := ts.ReadFile("stdout"); !wanted.MatchString(said) {
				return fmt.Errorf("it says %q, not %s; %w", said, args[0], err)
			}
			return nil
		})
	})
	add("field", 2, func(ts *testscript.TestScript, args []string) {
		found := regexp.MustCompile(`"` + args[1] + `": "([^"]*)"`).FindStringSubmatch(ts.ReadFile("stdout"))
		if found == nil {
			ts.Fatalf("%s is not in what was printed", args[1])
		}
		ts.Setenv(args[0], found[1])
	})
	add("model", 3, modelCommand)
	add("exits", 2, func(ts *testscript.TestScript, args []string) {
		err := ts.Exec(args[1], args[2:]...)
		ended, code := (*exec.ExitError)(nil), 0
		if errors.As(err, &ended) {
			code = ended.ExitCode()
		} else if err != nil {
			ts.Fatalf("%v", err)
		}
		if strconv.Itoa(code) != args[0] {
			ts.Fatalf("exit code %d, want %s\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	})
	return all
}

func (w scriptWorld) commitCommand(ts *testscript.TestScript, args []string) {
	sha, err := w.commit(args[0], args[1], ts.MkAbs(args[2]))
	ts.Check(err)
	ts.Setenv("SHA", sha)
}

func (w scriptWorld) showsCommand(ts *testscript.TestScript, args []string) {
	w.await(ts, func() error {
		statuses, err := w.sim.Statuses(demoOwner, args[0], args[1])
		if err != nil {
			return err
		}
		shown := statuses[args[2]]
		if shown.State != args[3] {
			return fmt.Errorf("%s on %.7s is %q (%s), want %s", args[2], args[1], shown.State, shown.Description, args[3])
		}
		ts.Setenv("BUILD", path.Base(shown.TargetURL))
		return nil
	})
}

// signInCommand signs in as forge login does, but does not wait before its question.
func (w scriptWorld) signInCommand(ts *testscript.TestScript, args []string) {
	ctx, k := context.Background(), kept{Address: w.forge, Login: args[0]}
	client := gatewayv1.NewSignInServiceClient(k.conn())
	begun, err := client.StartSignIn(ctx, &gatewayv1.StartSignInRequest{})
	ts.Check(err)
	ts.Check(w.sim.EnterDeviceCode(args[0], begun.GetUserCode(), true))
	done, err := client.FinishSignIn(ctx, &gatewayv1.FinishSignInRequest{DeviceCode: begun.GetDeviceCode(), Name: ts.Name()})
	ts.Check(err)
	k.Token = done.GetToken()
	if k.Token == "" {
		ts.Fatalf("GitHub asks to wait")
	}
	ts.Check(k.keepAt(ts.MkAbs("home/.config/forge/login.json")))
}

// await tries until it holds.
func (w scriptWorld) await(ts *testscript.TestScript, holds func() error) {
	w.awaitEvery(ts, 20*time.Millisecond, holds)
}

func (w scriptWorld) awaitEvery(ts *testscript.TestScript, pause time.Duration, holds func() error) {
	late := time.NewTimer(patienceOfScripts)
	defer late.Stop()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-late.C:
			ts.Fatalf("not within %v: %v", patienceOfScripts, err)
		case <-w.exited:
			ts.Fatalf("forge up has ended")
		case <-tick.C:
		}
	}
}
