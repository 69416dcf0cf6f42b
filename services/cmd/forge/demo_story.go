package main

import (
	"context"
	"fmt"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
)

// patience is how long the story waits for one thing to happen.
const patience = 60 * time.Second

// tell plays the story and checks that GitHub shows what it should after each
// chapter.
func (n *narrator) tell(ctx context.Context) error {
	sim := n.world.sim
	if err := sim.CreateBranch(demoOwner, demoRepo, "shout", "main"); err != nil {
		return err
	}
	broken, err := sim.Commit(demoOwner, demoRepo, "shout", githubsim.Commit{
		Message: "Greet louder",
		Files:   map[string]string{"greet.sh": "#!/bin/sh\n# Greets whoever is named, else the world.\necho \"HELLO, ${1:-world}!\"\n"},
	})
	if err != nil {
		return err
	}

	n.chapter("A pull request is opened; its tests fail")
	number, err := sim.OpenPullRequest(demoOwner, demoRepo, githubsim.PullRequest{
		Title: "Greet with an emphasis", Head: "shout", Base: "main", Author: "ada",
	})
	if err != nil {
		return err
	}
	if err := n.expect(ctx, broken, "forge/test", "failure"); err != nil {
		return err
	}

	n.chapter("A fix is pushed; its tests pass")
	fixed, err := sim.Commit(demoOwner, demoRepo, "shout", githubsim.Commit{
		Message: "Keep the voice down",
		Files:   map[string]string{"greet.sh": "#!/bin/sh\n# Greets whoever is named, else the world, and means it.\necho \"Hello, ${1:-world}!\"\n"},
	})
	if err != nil {
		return err
	}
	if err := n.expect(ctx, fixed, "forge/test", "success"); err != nil {
		return err
	}

	n.chapter("It is merged; staging is deployed, and the promotion is asked for")
	merge, err := sim.Merge(demoOwner, demoRepo, number)
	if err != nil {
		return err
	}
	if err := n.expect(ctx, merge, "forge/deploy-staging", "success"); err != nil {
		return err
	}
	promotion, err := n.promotion(ctx)
	if err != nil {
		return err
	}
	if err := n.expect(ctx, promotion.HeadSHA, "forge/staging", "success"); err != nil {
		return err
	}

	n.chapter("The promotion is merged; production is deployed")
	if merge, err = sim.Merge(demoOwner, demoRepo, promotion.Number); err != nil {
		return err
	}
	if err := n.expect(ctx, merge, "forge/deploy-production", "success"); err != nil {
		return err
	}
	if err := n.tellJobs(ctx); err != nil {
		return err
	}
	n.printf("\n%s\n", n.paint(green, "Every status is what it should be."))
	return nil
}

// jobsFile has a matrix, a graph, and a job that may fail.
const jobsFile = `image: busybox:1.37
jobs:
  lint:
    execute: ['for script in greet.sh ci/*.sh; do sh -n "$script"; done']
  test:
    matrix: {name: [Ada, Grace], shell: [sh, sh -u]}
    execute: ['test "$($MATRIX_SHELL greet.sh "$MATRIX_NAME")" = "Hello, $MATRIX_NAME!"']
  next:
    may_fail: true
    execute: [./greet.sh --loud | grep HELLO]
  package:
    needs: [lint, test]
    execute: [tar cf greet.tar greet.sh, ls -l greet.tar]
`

// tellJobs plays the chapter of a build that is more than one container.
func (n *narrator) tellJobs(ctx context.Context) error {
	sim := n.world.sim
	if err := sim.CreateBranch(demoOwner, demoRepo, "jobs", "main"); err != nil {
		return err
	}
	sha, err := sim.Commit(demoOwner, demoRepo, "jobs", githubsim.Commit{
		Message: "Test each name in each shell, and package", Files: map[string]string{".forge.yml": jobsFile},
	})
	if err != nil {
		return err
	}
	n.chapter("A pull request brings jobs: a matrix of four, one that may fail, and one that needs the others")
	_, err = sim.OpenPullRequest(demoOwner, demoRepo, githubsim.PullRequest{Title: "Test more, at once", Head: "jobs", Base: "main", Author: "ada"})
	if err != nil {
		return err
	}
	for _, name := range []string{"forge/test", "forge/test/package"} {
		if err := n.expect(ctx, sha, name, "success"); err != nil {
			return err
		}
	}
	return nil
}

// expect narrates until the commit shows the state in the context. Another final
// state is an error, and so is none within patience.
func (n *narrator) expect(ctx context.Context, sha, statusContext, state string) error {
	return n.until(ctx, fmt.Sprintf("%s on %.7s to be %s", statusContext, sha, state), func() (bool, error) {
		statuses, err := n.world.sim.Statuses(demoOwner, demoRepo, sha)
		if err != nil {
			return false, err
		}
		shown, found := statuses[statusContext]
		switch {
		case !found || shown.State == "pending":
			return false, nil
		case shown.State != state:
			return false, fmt.Errorf("%s on %.7s is %s (%s), it should be %s", statusContext, sha, shown.State, shown.Description, state)
		}
		return true, nil
	})
}

// promotion narrates until the pull request into production is open.
func (n *narrator) promotion(ctx context.Context) (found githubsim.PullRequest, err error) {
	err = n.until(ctx, "the pull request into production", func() (bool, error) {
		pulls, err := n.world.sim.PullRequests(demoOwner, demoRepo)
		if err != nil {
			return false, err
		}
		for _, p := range pulls {
			if p.Base == "production" && p.State == "open" {
				found = p
				return true, nil
			}
		}
		return false, nil
	})
	return found, err
}
