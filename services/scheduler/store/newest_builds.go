package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/wording"
)

// NewestBuilds are those of a commit that no newer one repeats, by pull request.
func NewestBuilds(ctx context.Context, q sqldb.Querier, repositoryID int64, sha string) ([]*Build, error) {
	all, err := sqldb.Collect(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE sha = $1 AND repository_id = $2 AND part_of = ''
		ORDER BY number DESC`, sha, repositoryID)
	if err != nil {
		return nil, fmt.Errorf("builds of %s: %w", wording.Short(sha), err)
	}
	type content struct {
		pull   int32
		action schedulerv1.Build_Action
		ref    string
	}
	seen := map[content]bool{}
	newest := slices.DeleteFunc(all, func(b *Build) bool {
		c := content{b.GetPullRequest(), b.GetAction(), b.GetRef()}
		older := seen[c]
		seen[c] = true
		return older
	})
	slices.SortFunc(newest, func(a, b *Build) int { return cmp.Compare(a.GetPullRequest(), b.GetPullRequest()) })
	return newest, nil
}
