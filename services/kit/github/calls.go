package github

import (
	"net/http"
	"strings"
)

// calls says in plain words what a request asks for, by its method and the
// segment of its path that names the thing.
var calls = map[string]string{
	"GET app":            "read the App",
	"GET installations":  "list the App's installations",
	"POST access_tokens": "get a token for an installation",
	"GET repositories":   "list the repositories of an installation",
	"GET deliveries":     "list the deliveries of the App's hook",
	"POST attempts":      "have a delivery sent again",
	"GET meta":           "read GitHub's own addresses",
	"GET repo":           "read",
	"GET branches":       "read a branch of",
	"GET commits":        "read a commit of",
	"GET compare":        "compare commits of",
	"GET contents":       "read a file of",
	"GET git":            "read a ref of",
	"GET tarball":        "download the source of",
	"GET collaborators":  "read who may write to",
	"GET pulls":          "read pull requests of",
	"POST pulls":         "open a pull request in",
	"GET statuses":       "read commit statuses of",
	"POST statuses":      "set a commit status in",
	"GET check-runs":     "read check runs of",
	"POST check-runs":    "create a check run in",
	"PATCH check-runs":   "update a check run in",
	"GET deployments":    "read deployments of",
	"POST deployments":   "record a deployment in",
	"GET issues":         "read comments in",
	"POST issues":        "comment in",
	"POST reactions":     "react to a comment in",
}

// describe names the call, "set a commit status in octo/shop", and never shows
// a query, which may hold a credential.
func describe(req *http.Request) string {
	if req == nil {
		return "answer"
	}
	path := strings.TrimPrefix(req.URL.Path, "/api/v3")
	segments := strings.Split(strings.Trim(path, "/"), "/")
	noun, where := segments[len(segments)-1], ""
	if segments[0] == "repos" && len(segments) >= 3 {
		noun, where = "repo", " "+segments[1]+"/"+segments[2]
		if len(segments) > 3 {
			noun = segments[3]
		}
		if last := segments[len(segments)-1]; last == "reactions" {
			noun = last
		}
	}
	if words := calls[req.Method+" "+noun]; words != "" {
		return words + where
	}
	return req.Method + " " + path
}
