package githubsim

import "fmt"

func (l links) checkRun(s *state, suite *checkSuite, run *CheckRun) object {
	r := suite.repo
	self := fmt.Sprintf("%s/repos/%s/check-runs/%d", l, r.fullName(), run.ID)
	status, conclusion := suite.state()
	return object{
		"id": run.ID, "node_id": nodeID("CheckRun", run.ID), "head_sha": run.HeadSHA, "external_id": run.ExternalID, "url": self,
		"html_url": fmt.Sprintf("%s/%s/runs/%d", l, r.fullName(), run.ID), "details_url": orNull(run.DetailsURL),
		"status": run.Status, "conclusion": orNull(run.Conclusion), "started_at": timestamp(run.Started), "completed_at": timestamp(run.Completed),
		"output": object{
			"title": orNull(run.Title), "summary": orNull(run.Summary), "text": orNull(run.Text),
			"annotations_count": len(run.Annotations), "annotations_url": self + "/annotations",
		},
		"name": run.Name, "app": l.app(s), "pull_requests": each(r.pullsAt(run.HeadSHA), l.checkedPull), "deployment": nil,
		"check_suite": object{
			"id": suite.id, "node_id": nodeID("CheckSuite", suite.id), "head_branch": orNull(suite.branch), "head_sha": suite.sha,
			"status": status, "conclusion": orNull(conclusion), "url": l.suiteURL(suite), "before": nil, "after": suite.sha,
			"pull_requests": each(r.pullsAt(suite.sha), l.checkedPull), "app": l.app(s),
			"created_at": timestamp(suite.created), "updated_at": timestamp(suite.updated),
		},
	}
}

func (l links) suiteURL(suite *checkSuite) string {
	return fmt.Sprintf("%s/repos/%s/check-suites/%d", l, suite.repo.fullName(), suite.id)
}

func (l links) checkSuite(s *state, suite *checkSuite) object {
	status, conclusion := suite.state()
	return object{
		"id": suite.id, "node_id": nodeID("CheckSuite", suite.id), "head_branch": orNull(suite.branch), "head_sha": suite.sha,
		"status": status, "conclusion": orNull(conclusion), "url": l.suiteURL(suite), "before": nil, "after": suite.sha,
		"pull_requests": each(suite.repo.pullsAt(suite.sha), l.checkedPull), "app": l.app(s),
		"created_at": timestamp(suite.created), "updated_at": timestamp(suite.updated),
		"latest_check_runs_count": len(suite.latest()), "check_runs_url": l.suiteURL(suite) + "/check-runs",
		"rerequestable": true, "runs_rerequestable": true,
	}
}

// checkedPull is the shortest form of a pull request.
func (l links) checkedPull(p *pull) object {
	end := func(e end) object {
		return object{"ref": e.branch, "sha": e.sha, "repo": object{
			"id": e.repo.id, "url": fmt.Sprintf("%s/repos/%s", l, e.repo.fullName()), "name": e.repo.name,
		}}
	}
	return object{
		"url": fmt.Sprintf("%s/repos/%s/pulls/%d", l, p.base.repo.fullName(), p.number), "id": p.id, "number": p.number,
		"head": end(p.head), "base": end(p.base),
	}
}
