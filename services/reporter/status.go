package reporter

import (
	"context"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"
)

func statusColumn(v view) string { return v.status }

// publishStatus sets a commit status. GitHub keeps all that were ever set and
// shows the newest of a context, so setting one twice is harmless.
func publishStatus(ctx context.Context, client *github.Client, t target) (receipt, error) {
	_, _, err := client.Repositories.CreateStatus(ctx, t.repository.GetOwner(), t.repository.GetName(), t.sha, &github.RepoStatus{
		State: &t.desired.state, Description: &t.desired.description, TargetURL: &t.desired.url, Context: &t.context,
	})
	return receipt{}, err
}

// readStatuses reads the newest of each context at a commit.
func readStatuses(ctx context.Context, client *github.Client, group []target) ([]display, error) {
	found := make([]display, len(group))
	options := &github.ListOptions{PerPage: largestList}
	for {
		r := group[0].repository
		combined, resp, err := client.Repositories.GetCombinedStatus(ctx, r.GetOwner(), r.GetName(), group[0].sha, options)
		if err != nil {
			return nil, err
		}
		for _, st := range combined.Statuses {
			i := slices.IndexFunc(group, func(t target) bool { return strings.EqualFold(t.context, st.GetContext()) })
			if i >= 0 {
				found[i] = display{st.GetState(), st.GetDescription(), st.GetTargetURL()}
			}
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return found, nil
		}
	}
}
