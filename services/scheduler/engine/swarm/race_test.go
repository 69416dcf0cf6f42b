package swarm_test

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

// Docker may remove a network in the moment in which a service is made on it, and then
// refuses to change that service.
func whatIsMadeWhileItsNetworkGoesIsStopped(t *testing.T, s *kittest.Swarm, image string) {
	r := newRig(t, s, swarmengine.Config{Image: image})
	busybox := s.Image(t)
	for began := time.Now(); time.Since(began) < 5*time.Minute; {
		attempt, raced := r.race(t, busybox)
		if err := r.Stop(t.Context(), attempt); err != nil {
			t.Fatalf("stop, whose network was removed first %t: %v", raced, err)
		}
		if raced {
			t.Logf("a service was without a network after %v", time.Since(began))
			if left := left(t.Context(), t, r.api, r.config.Instance); left != "" {
				t.Errorf("left: %s", left)
			}
			return
		}
	}
	t.Fatal("no service was made while its network was removed")
}

// race makes a job on a network while it is removed; raced where both was done.
func (r *rig) race(t *testing.T, image string) (attempt string, raced bool) {
	t.Helper()
	spec := r.spec(image)
	labels := dockerapi.Labels(r.config.Instance, spec)
	network, err := r.api.NetworkCreate(t.Context(), dockerapi.Name(spec.Attempt), client.NetworkCreateOptions{Driver: "overlay", Scope: "swarm", Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	one := uint64(1)
	job := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: dockerapi.Name(spec.Attempt), Labels: labels},
		Mode:        swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: image, Command: []string{"sleep", "1000"}, Labels: labels},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
			Networks:      []swarm.NetworkAttachmentConfig{{Target: network.ID}},
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
	}
	removed := make(chan error, 1)
	go func() {
		_, err := r.api.NetworkRemove(t.Context(), network.ID, client.NetworkRemoveOptions{})
		removed <- err
	}()
	_, made := r.api.ServiceCreate(t.Context(), client.ServiceCreateOptions{Spec: job})
	return spec.Attempt, <-removed == nil && made == nil
}
