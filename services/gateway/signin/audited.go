package signin

import (
	"context"
	"database/sql"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// audited does a part of a transaction and writes down in it that a person has done that.
func (s *Service) audited(action schedulerv1.AuditEntry_Action, login, subject string, do func(context.Context, *sql.Tx) error) func(context.Context, *sql.Tx) error {
	if s.deps.Audit == nil {
		return do
	}
	note := s.deps.Audit.Add(&schedulerv1.AuditEntry{Action: action, Actor: login, Subject: subject})
	return func(ctx context.Context, tx *sql.Tx) error {
		if err := do(ctx, tx); err != nil {
			return err
		}
		return note(ctx, tx)
	}
}

// handOver has what was written down reach the audit log soon.
func (s *Service) handOver() {
	if s.deps.Audit != nil {
		s.deps.Audit.Wake()
	}
}
