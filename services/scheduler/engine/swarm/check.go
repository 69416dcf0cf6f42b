package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

const (
	// oldestAPI has replicated jobs, limits of processes and capabilities of services.
	oldestAPI = "1.41"
	// privilegesAPI and privilegesEngine are the first that apply no-new-privileges to
	// the containers of services.
	privilegesAPI    = "1.44"
	privilegesEngine = 25
)

// checkSwarm says in one line what keeps builds from running here.
func (e *Engine) checkSwarm(ctx context.Context) error {
	ping, err := e.client.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return unanswered(e.client.DaemonHost(), err)
	}
	if versions.LessThan(ping.APIVersion, oldestAPI) {
		return fmt.Errorf("docker swarm: the Docker engine at %s speaks API %s, and %s is needed (Docker 20.10)", e.client.DaemonHost(), ping.APIVersion, oldestAPI)
	}
	found, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil {
		return unanswered(e.client.DaemonHost(), err)
	}
	switch info := found.Info.Swarm; {
	case info.LocalNodeState != swarm.LocalNodeStateActive:
		return fmt.Errorf("docker swarm: the Docker engine at %s is in no swarm (%s): docker swarm init makes one, docker swarm join joins one",
			e.client.DaemonHost(), info.LocalNodeState)
	case !info.ControlAvailable:
		return errors.New("docker swarm: this engine is a worker: DOCKER_HOST must lead to a manager")
	}
	nodes, err := e.nodes(ctx)
	if err != nil {
		return fmt.Errorf("docker swarm: %w", err)
	}
	var old []string
	for _, node := range nodes {
		if major, _, _ := strings.Cut(node.Description.Engine.EngineVersion, "."); olderThan(major, privilegesEngine) {
			old = append(old, fmt.Sprintf("%s (%s)", node.Description.Hostname, node.Description.Engine.EngineVersion))
		}
	}
	slices.Sort(old)
	if versions.LessThan(ping.APIVersion, privilegesAPI) || len(old) > 0 {
		e.config.Log.WarnContext(ctx, "Docker engines this old do not apply no-new-privileges to builds: a setuid program in an image makes root of its user",
			"needed", "API "+privilegesAPI, "manager", "API "+ping.APIVersion, "machines", strings.Join(old, ", "))
	}
	return nil
}

// olderThan is about a version's first number; what cannot be read is not old.
func olderThan(major string, than int) bool {
	number, err := strconv.Atoi(major)
	return err == nil && number < than
}

func unanswered(host string, err error) error {
	if strings.HasPrefix(err.Error(), "permission denied") { // all that the client leaves of it
		return fmt.Errorf("docker swarm: the Docker engine at %s is not for this user: add the user to the group of that socket (docker), or set DOCKER_HOST", host)
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok {
		err = dial // the client's words around it say the same
	}
	return fmt.Errorf("docker swarm: the Docker engine at %s does not answer: %w; start it, or set DOCKER_HOST", host, err)
}

// checkConstraint refuses what the swarm would refuse for each build.
func checkConstraint(expression string) error {
	for _, operator := range []string{"==", "!="} {
		key, value, found := strings.Cut(expression, operator)
		if !found {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		known := strings.HasPrefix(key, "node.") || strings.HasPrefix(key, "engine.labels.")
		if known && value != "" && !strings.ContainsAny(key+value, " =!") {
			return nil
		}
	}
	return fmt.Errorf("docker swarm: %q is no constraint: FORGE_SWARM_CONSTRAINTS and FORGE_SWARM_FORK_CONSTRAINTS take them as docker service create does, "+
		"such as node.labels.builds==true", expression)
}
