package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const (
	demoOwner = "octo-org"
	demoRepo  = "hello"
	demoApp   = 1
)

// demo plays the main story: a simulated GitHub in this process, Forge in
// another, exactly as a user would start it.
type demo struct {
	Once bool `help:"End after the story; the exit code says whether every status was what it should be."`
}

// Run plays the story, then stays up until Ctrl-C.
func (d demo) Run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "forge-demo-")
	if err != nil {
		return fmt.Errorf("demo folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	world, err := newWorld(dir)
	if err != nil {
		return err
	}
	defer world.close()
	if err := world.start(ctx); err != nil {
		return err
	}
	n := &narrator{world: world, out: os.Stdout}
	n.printf("\nA simulated GitHub is at %s/sim/%s/%s\nForge is at            %s\n", world.github, demoOwner, demoRepo, world.forge)
	if err := n.tell(ctx); err != nil {
		return errors.Join(err, world.logTail())
	}
	if d.Once {
		return nil
	}
	n.printf(`
Forge stays up until Ctrl-C. Try it yourself:
  open a pull request   curl -X POST %[1]s/sim/%[2]s/%[3]s/pulls
  or press the buttons  %[1]s/sim/%[2]s/%[3]s
  ask what was decided  curl -H "authorization: Bearer $(cat %[4]s/admin-token)" %[5]s/v1/deliveries
  look in a browser     %[5]s/builds, %[5]s/deliveries (they ask for the token in %[4]s/admin-token)
  with the forge tool   export FORGE_CONFIG=%[7]s
                        %[8]s deliveries; %[8]s builds; %[8]s doctor; %[8]s --help
  Forge's log           %[6]s

`, world.github, demoOwner, demoRepo, world.data, world.forge, world.log.Name(), world.config, os.Args[0])
	return n.watch(ctx)
}
