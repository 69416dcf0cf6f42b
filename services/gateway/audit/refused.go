package audit

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// mostRefused is how many refusals of one person are written down in an hour: whoever can
// sign in at GitHub can ask for what they may not as often as they like. mostPeople bounds
// of how many people that is known.
const (
	mostRefused = 10
	mostPeople  = 1000
)

// refusals counts those of the hour.
type refusals struct {
	now   func() time.Time
	mu    sync.Mutex
	since time.Time
	of    map[int64]int
}

func (r *refusals) take(person int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); r.of == nil || now.Sub(r.since) >= time.Hour {
		r.since, r.of = now, map[int64]int{}
	}
	if _, known := r.of[person]; !known && len(r.of) >= mostPeople || r.of[person] >= mostRefused {
		return false
	}
	r.of[person]++
	return true
}

// Refused writes down that somebody who has signed in was refused a call that would have
// changed something.
func (o *Outbox) Refused(ctx context.Context, person int64, login, method string, request proto.Message) {
	name := method[strings.LastIndex(method, "/")+1:]
	if reads(name) || !o.refused.take(person) {
		return
	}
	e := &schedulerv1.AuditEntry{
		Action: actionOf(name), Actor: login, Refused: true, Detail: name,
		Repository: text(request, "repository"), BuildId: text(request, "build_id"), Environment: text(request, "environment"), Subject: cmp.Or(text(request, "name"), text(request, "host")),
	}
	if err := o.Write(ctx, e); err != nil {
		o.deps.Log.WarnContext(ctx, "a refusal is not in the audit log", "login", login, "method", method, "error", err)
	}
}

// reads reports whether a call changes nothing, by its name.
func reads(name string) bool {
	for _, verb := range []string{"Get", "List", "Watch", "Read", "Search", "Show", "Explain", "Validate", "Download"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

func actionOf(name string) schedulerv1.AuditEntry_Action {
	action, known := map[string]schedulerv1.AuditEntry_Action{
		"CreateBuild": schedulerv1.AuditEntry_ACTION_RUN, "CreateRemoteBuild": schedulerv1.AuditEntry_ACTION_RUN, "RetryBuild": schedulerv1.AuditEntry_ACTION_RETRY,
		"OpenShell": schedulerv1.AuditEntry_ACTION_OPEN_SHELL, "RemoveContainer": schedulerv1.AuditEntry_ACTION_REMOVE_CONTAINER,
		"ApproveBuild": schedulerv1.AuditEntry_ACTION_APPROVE, "CancelBuild": schedulerv1.AuditEntry_ACTION_CANCEL,
		"FreezeEnvironment": schedulerv1.AuditEntry_ACTION_FREEZE, "UnfreezeEnvironment": schedulerv1.AuditEntry_ACTION_UNFREEZE,
		"RollBackEnvironment": schedulerv1.AuditEntry_ACTION_ROLL_BACK, "ReleaseEnvironment": schedulerv1.AuditEntry_ACTION_RELEASE,
		"SetSecret": schedulerv1.AuditEntry_ACTION_SET_SECRET, "DeleteSecret": schedulerv1.AuditEntry_ACTION_DELETE_SECRET,
		"SetRegistryCredentials": schedulerv1.AuditEntry_ACTION_SET_REGISTRY, "DeleteRegistryCredentials": schedulerv1.AuditEntry_ACTION_DELETE_REGISTRY,
		"CreateRepositoryToken": schedulerv1.AuditEntry_ACTION_CREATE_TOKEN, "DeleteRepositoryToken": schedulerv1.AuditEntry_ACTION_DELETE_TOKEN,
		"ExpediteBuild": schedulerv1.AuditEntry_ACTION_EXPEDITE, "RedeliverDelivery": schedulerv1.AuditEntry_ACTION_REDELIVER, "DeleteCaches": schedulerv1.AuditEntry_ACTION_DELETE_CACHES,
	}[name]
	if !known {
		return schedulerv1.AuditEntry_ACTION_OTHER
	}
	return action
}

// text is a text of a request; empty where it has no such.
func text(request proto.Message, name protoreflect.Name) string {
	if request == nil {
		return ""
	}
	m := request.ProtoReflect()
	f := m.Descriptor().Fields().ByName(name)
	if f == nil || f.Kind() != protoreflect.StringKind || f.IsList() {
		return ""
	}
	return m.Get(f).String()
}
