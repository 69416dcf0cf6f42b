package web

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// auditPages tell who did what.
type auditPages struct {
	*Pages
	log schedulerv1.AuditServiceClient
}

func newAudit(p *Pages) auditPages {
	return auditPages{p, schedulerv1.NewAuditServiceClient(p.deps.Scheduler)}
}

// auditList is a part of the audit log with its filters.
type auditList struct {
	Query         query
	Chips         []chip
	Actions       []choice
	Entries       []*schedulerv1.AuditEntry
	Newest, Older string
	Everything    string // the address without filters
	Problem       string
}

// Filter is the value of a filter of the list.
func (l *auditList) Filter(name string) string { return l.Query.Get(name) }

func auditFilters() [][2]string {
	return [][2]string{{"repository", "repository"}, {"actor", "by"}, {"action", "what"}, {"since", "from"}, {"until", "to"}}
}

// auditActions are the actions as filters have them.
func auditActions() (names []string) {
	for number := range schedulerv1.AuditEntry_Action_name {
		if number != 0 {
			names = append(names, filterName(wording.Value(schedulerv1.AuditEntry_Action(number))))
		}
	}
	slices.Sort(names)
	return names
}

// list is the page of who did what.
func (p auditPages) list(w http.ResponseWriter, r *http.Request) {
	q := p.readQuery(r, "/audit", "repository", "actor", "action", "since", "until")
	list := &auditList{
		Query: q, Chips: q.chips(auditFilters()...), Actions: q.choices("action", auditActions()...), Newest: q.newest(), Everything: q.path,
	}
	req := &schedulerv1.ListAuditEntriesRequest{Repository: q.Get("repository"), Actor: q.Get("actor"), PageToken: q.Get("page")}
	if action := q.Get("action"); action != "" {
		number, known := schedulerv1.AuditEntry_Action_value["ACTION_"+strings.ToUpper(action)]
		if !known {
			list.Problem = "There is no such action."
		}
		req.Actions = []schedulerv1.AuditEntry_Action{schedulerv1.AuditEntry_Action(number)}
	}
	var ok [2]bool
	req.Since, ok[0] = dayOf(q.Get("since"), 0)
	req.Until, ok[1] = dayOf(q.Get("until"), 24*time.Hour) // the day itself is meant, too
	if !ok[0] || !ok[1] {
		list.Problem = "A day is written as 2026-11-27."
	}
	if list.Problem != "" {
		p.render(w, r, http.StatusBadRequest, "audit.html", list)
		return
	}
	answer, err := p.log.ListAuditEntries(r.Context(), req)
	list.Problem = invalid(err)
	if err != nil && list.Problem == "" {
		p.fails(w, r, "ListAuditEntries", err)
		return
	}
	list.Entries, list.Older = answer.GetEntries(), q.older(answer.GetNextPageToken())
	p.render(w, r, codeOf(list.Problem), "audit.html", list)
}

// dayOf is the beginning of a day, UTC, or so long after it; nil for no day.
func dayOf(text string, after time.Duration) (at *timestamppb.Timestamp, ok bool) {
	if text == "" {
		return nil, true
	}
	day, err := time.Parse(time.DateOnly, text)
	return timestamppb.New(day.Add(after)), err == nil
}

// entryBuild is the address of the build that an entry is of.
func entryBuild(base string, e *schedulerv1.AuditEntry) string {
	return address(base+"/builds", e.GetBuildId())
}

// entryFrom is where an entry came from, as a text.
func entryFrom(e *schedulerv1.AuditEntry) string {
	parts := []string{map[schedulerv1.AuditEntry_Origin]string{
		schedulerv1.AuditEntry_ORIGIN_COMMENT: "a comment", schedulerv1.AuditEntry_ORIGIN_BUTTON: "a button at a check", schedulerv1.AuditEntry_ORIGIN_EVENT: "an event of GitHub",
		schedulerv1.AuditEntry_ORIGIN_PAGE: "a page", schedulerv1.AuditEntry_ORIGIN_API: "the API", schedulerv1.AuditEntry_ORIGIN_GRPC: "gRPC", schedulerv1.AuditEntry_ORIGIN_DEPLOY: "the deploy before it",
	}[e.GetOrigin()]}
	if parts[0] == "" {
		parts[0] = wording.Value(e.GetOrigin())
	}
	for _, more := range []string{e.GetCredential(), e.GetAddress()} {
		if more != "" {
			parts = append(parts, more)
		}
	}
	return strings.Join(parts, ", ")
}
