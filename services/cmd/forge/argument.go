package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// count is how many are wanted.
type count int

// Validate refuses to ask for none.
func (c count) Validate() error {
	if c < 1 {
		return errors.New("expected 1 or more")
	}
	return nil
}

// ago is a time before now.
type ago time.Duration

// UnmarshalText reads a duration.
func (a *ago) UnmarshalText(text []byte) error {
	duration, err := time.ParseDuration(string(text))
	if err != nil || duration <= 0 {
		return fmt.Errorf("expected a duration such as 90m or 72h but got %q", text)
	}
	*a = ago(duration)
	return nil
}

// timestamp is nil where nothing was given.
func (a ago) timestamp() *timestamppb.Timestamp {
	if a == 0 {
		return nil
	}
	return timestamppb.New(time.Now().Add(-time.Duration(a)))
}

// commit is a commit's id.
type commit string

// Validate refuses what finds nothing.
func (c commit) Validate() error {
	if _, err := hex.DecodeString(string(c)); c != "" && (err != nil || len(c) != 40 && len(c) != 64) {
		return fmt.Errorf("expected the id of a commit in full, 40 digits, but got %q; forge builds show and git rev-parse print it", string(c))
	}
	return nil
}
