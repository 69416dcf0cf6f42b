package config

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/forge-ci/forge/services/kit/fault"
)

// apiLateness is how long GitHub's API may not show yet what a webhook told.
// Mostly it is seconds; GitHub documents no bound.
const apiLateness = 5 * time.Minute

// recent reports whether an event told of what is asked for so short a time ago
// that GitHub's API may not show it yet. The clock of the room that received the
// event may be ahead.
func (s *Service) recent(eventTime *timestamppb.Timestamp) bool {
	return eventTime != nil && s.now().Sub(eventTime.AsTime()).Abs() < apiLateness
}

// lateFault makes an absence Unavailable, so that the caller asks again.
func lateFault(err error) error {
	return fault.Newf(fault.Unavailable, "GitHub's API may be later than its webhook: %w", err)
}

// notYet is lateFault of an error where a recent event told of what GitHub says it
// does not have; other errors stay as they are.
func notYet(err error, recent bool) error {
	if recent && fault.Is(err, fault.NotFound) {
		return lateFault(err)
	}
	return err
}
