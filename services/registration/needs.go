package registration

// Permission is one that the App asks for.
type Permission struct {
	Name  string // in GitHub's API
	Title string // on GitHub's pages
	Level string // read or write
	// Needed: without it no pull request is built. The others are for what For says.
	Needed bool
	For    string // what it is for
	Cost   string // what does not work without it
}

// Permissions are what the App may do in the repositories it is installed on.
func Permissions() []Permission {
	return []Permission{
		{"contents", "Contents", "read", true, "reading .forge.yml and the source", "nothing can be built"},
		{"metadata", "Metadata", "read", true, "reading who may write; GitHub gives it to every App", "nothing can be built"},
		{"merge_queues", "Merge queues", "read", false, "testing what a merge queue is about to merge", "merge queues wait for a check that never comes"},
		{"statuses", "Commit statuses", "write", true, "showing how a build went", "GitHub shows no result"},
		{"checks", "Checks", "write", false, "check runs: annotations, and buttons to re-run and to approve", "there are no check runs and no buttons"},
		{"deployments", "Deployments", "write", false, "recording what is deployed where", "GitHub shows no deployments"},
		{"issues", "Issues", "write", false, "comments such as /forge retest, and the answers to them", "comments do nothing"},
		{"pull_requests", "Pull requests", "write", true, "reading pull requests, and opening the one that promotes to production", "no pull request is built, and none promotes"},
	}
}

// Members is the permission that is needed, besides, where teams are among
// FORGE_ADMINS or let deploys go. It is the organization's.
func Members() Permission {
	return Permission{"members", "Members", "read", false, "knowing who is in the teams of FORGE_ADMINS, and in those that let deploys go", "members of those teams are no admins, and let nothing go"}
}

// Event is one that the App subscribes to. Those about its own installations come
// unasked.
type Event struct {
	Name   string // in GitHub's API
	Title  string // on GitHub's pages
	Needed bool   // without it no pull request is built
	For    string
	Cost   string
}

// Events are what the App is told of.
func Events() []Event {
	return []Event{
		{"pull_request", "Pull request", true, "building pull requests, and deploying once they are merged", "pull requests are noticed once an hour alone"},
		{"push", "Push", true, "deploying, and builds of pushes", "pushes are noticed once an hour alone"},
		{"merge_group", "Merge group", false, "testing what a merge queue is about to merge", "merge queues wait for a check that never comes"},
		{"check_run", "Check run", false, "the buttons of check runs", "buttons of check runs do nothing"},
		{"check_suite", "Check suite", false, "GitHub's own button to re-run all", "re-running all checks does nothing"},
		{"issue_comment", "Issue comment", false, "comments such as /forge retest", "comments do nothing"},
		{"release", "Release", false, "builds of releases", "releases are not built"},
		{"repository", "Repository", false, "following repositories that are renamed or moved", "what is renamed is noticed late"},
	}
}
