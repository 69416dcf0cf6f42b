package content

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Artifacts are what a job is to leave. One without a name is called as the job, or
// as the whole build where that has no jobs.
func Artifacts(b *store.Build) []*configv1.Artifact {
	var all []*configv1.Artifact
	for _, one := range b.ConfigJob().GetArtifacts() {
		named := proto.CloneOf(one)
		named.Name = cmp.Or(one.GetName(), b.ConfigJob().GetName(), "files")
		all = append(all, named)
	}
	return all
}

// planned is what a job is to leave under a name; nil for nothing.
func planned(b *store.Build, name string) *configv1.Artifact {
	all := Artifacts(b)
	if n := slices.IndexFunc(all, func(one *configv1.Artifact) bool { return one.GetName() == name }); n >= 0 {
		return all[n]
	}
	return nil
}
