package forgexec

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/forgexec/tree"
)

// keepWithin bounds what is restored, and what is kept, where the plan does not.
const keepWithin = 10 * time.Minute

func withinOf(plan *schedulerv1.Plan) time.Duration {
	return cmp.Or(plan.GetArtifacts().GetWithin().AsDuration(), keepWithin)
}

// bring puts the artifacts that are needed into the workspace. It returns nil, or how
// the attempt ends without them.
func (r *runner) bring(ctx context.Context, plan *schedulerv1.Plan) *schedulerv1.Ended {
	for _, needed := range plan.GetArtifacts().GetNeeded() {
		if r.store == nil {
			return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_ARTIFACT, Message: errNoStore.Error()}
		}
		begin := time.Now()
		found, err := r.store.get(ctx, keepWithin, &schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Artifact{Artifact: needed}}, []string{r.workspace.path})
		if ctx.Err() != nil {
			return halted(ctx).ended()
		}
		if err != nil {
			return &schedulerv1.Ended{
				Cause:   schedulerv1.Ended_CAUSE_ARTIFACT,
				Message: fmt.Sprintf("artifact %s, which this job needs, could not be had: %s", needed.GetName(), plainly(err)),
			}
		}
		r.notices = append(r.notices, fmt.Sprintf("forge: artifact %s: put into the workspace, %s", needed.GetName(), amount(found.GetSize(), begin)))
	}
	return nil
}

// keep keeps artifacts and saves caches, as the steps have ended.
func (s *sequence) keep(ctx context.Context, ended *schedulerv1.Ended, caches []*cache) *schedulerv1.Ended {
	done := ended.GetCause() == schedulerv1.Ended_CAUSE_DONE
	if !done && ended.GetCause() != schedulerv1.Ended_CAUSE_TIMED_OUT {
		return ended
	}
	passed := done && !s.failed
	within := withinOf(s.plan)
	keeping, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("it took longer than %s: %w", short(within), context.DeadlineExceeded))
	defer cancel()
	problem := s.artifacts(keeping)
	if ctx.Err() == nil {
		s.save(keeping, caches, passed)
	}
	switch {
	case passed && ctx.Err() != nil:
		return halted(ctx).ended()
	case passed && problem != "": // what comes after would do without it
		return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_ARTIFACT, Message: problem}
	}
	return ended
}

// withFolders has a pattern that matches a folder match all in it, too.
func withFolders(globs []string) []string {
	all := slices.Clone(globs)
	for _, glob := range globs {
		all = append(all, strings.TrimSuffix(strings.TrimSpace(glob), "/")+"/**")
	}
	return all
}

// artifacts keeps what there is of them, and returns what went wrong.
func (s *sequence) artifacts(ctx context.Context) (problem string) {
	for _, one := range s.plan.GetArtifacts().GetKept() {
		begin := time.Now()
		if s.store == nil {
			s.sayf("forge: artifact %s: not kept: %v", one.GetName(), errNoStore)
			continue
		}
		names, err := s.workspace.files(withFolders(one.GetPaths()))
		names = slices.DeleteFunc(names, func(name string) bool {
			if s.masker.String(name) == name {
				return false
			}
			s.sayf("forge: artifact %s: %s is left out, its name holds a secret", one.GetName(), name)
			return true
		})
		if err == nil && len(names) == 0 {
			s.sayf("forge: artifact %s: nothing matches %s", one.GetName(), quotedAll(one.GetPaths()))
			continue
		}
		var listing *tree.Listing
		if err == nil {
			listing, err = tree.ListFiles(s.workspace.path, names, mostEntries)
		}
		if err == nil {
			_, err = s.store.put(ctx, keepWithin, &schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Artifact{Artifact: one.GetName()}}, listing)
		}
		if err != nil {
			problem = cmp.Or(problem, fmt.Sprintf("artifact %s could not be kept: %s", one.GetName(), plainly(err)))
			s.sayf("forge: artifact %s: not kept: %s", one.GetName(), plainly(err))
			continue
		}
		s.sayf("forge: artifact %s: kept, %d files, %s", one.GetName(), listing.Files, amount(listing.Size, begin))
	}
	return problem
}

func quotedAll(texts []string) string {
	all := slices.Clone(texts)
	for i := range all {
		all[i] = quoted(all[i])
	}
	return fmt.Sprint(all)
}
