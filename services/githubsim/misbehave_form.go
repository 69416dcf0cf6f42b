package githubsim

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A field reads one value of a form into a misbehaviour.
type field func(m *Misbehaviour, value string) error

// misbehaviourFields are the form's: those of Misbehaviour, in small letters.
func misbehaviourFields() map[string]field {
	return map[string]field{
		"route":       func(m *Misbehaviour, v string) error { m.Route = v; return nil },
		"share":       parsed(func(m *Misbehaviour) *float64 { return &m.Share }, parseShare),
		"times":       parsed(func(m *Misbehaviour) *int { return &m.Times }, parseCount),
		"latency":     parsed(func(m *Misbehaviour) *time.Duration { return &m.Latency }, parseWait),
		"jitter":      parsed(func(m *Misbehaviour) *time.Duration { return &m.Jitter }, parseWait),
		"status":      parsed(func(m *Misbehaviour) *int { return &m.Status }, parseStatus),
		"retry_after": parsed(func(m *Misbehaviour) *time.Duration { return &m.RetryAfter }, parseWait),
		"cut":         parsed(func(m *Misbehaviour) *bool { return &m.Cut }, parseSwitch),
		"half":        parsed(func(m *Misbehaviour) *bool { return &m.Half }, parseSwitch),
		"cut_after":   parsed(func(m *Misbehaviour) *int { return &m.CutAfter }, parseCount),
		"hang_after":  parsed(func(m *Misbehaviour) *int { return &m.HangAfter }, parseCount),
		"carried_out": parsed(func(m *Misbehaviour) *bool { return &m.CarriedOut }, parseSwitch),
	}
}

func parsed[T any](of func(*Misbehaviour) *T, parse func(string) (T, error)) field {
	return func(m *Misbehaviour, text string) (err error) {
		*of(m), err = parse(text)
		return err
	}
}

func parseShare(text string) (float64, error) {
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || share <= 0 || share > 1 {
		return 0, errors.New("is a number above 0, up to 1")
	}
	return share, nil
}

func parseCount(text string) (int, error) {
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 {
		return 0, errors.New("is a number above 0")
	}
	return count, nil
}

func parseStatus(text string) (int, error) {
	status, err := strconv.Atoi(text)
	if err != nil || status < 400 || status > 599 {
		return 0, errors.New("is an HTTP status from 400 to 599")
	}
	return status, nil
}

func parseWait(text string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, errors.New(`is a time like "300ms" or "2s"`)
	}
	return wait, nil
}

func parseSwitch(text string) (bool, error) {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, errors.New("is true or false")
	}
	return on, nil
}

func readMisbehaviour(form url.Values) (Misbehaviour, error) {
	var m Misbehaviour
	fields := misbehaviourFields()
	for _, name := range slices.Sorted(maps.Keys(form)) {
		read, known := fields[name]
		if !known {
			return m, fmt.Errorf("there is no field %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		if err := read(&m, form.Get(name)); err != nil {
			return m, fmt.Errorf("%s %w", name, err)
		}
	}
	if !m.spoils() && m.Latency == 0 && m.Jitter == 0 {
		return m, errors.New("nothing would go wrong: give status, cut, half, cut_after, hang_after, latency or jitter")
	}
	return m, nil
}

func (s *pages) pressMisbehave(r *http.Request) (string, error) {
	if err := r.ParseForm(); err != nil {
		return "", fmt.Errorf("read the form: %w", err)
	}
	m, err := readMisbehaviour(r.PostForm)
	if err != nil {
		return "", err
	}
	s.Misbehave(m)
	return m.String(), nil
}

func (s *pages) pressBehave(*http.Request) (string, error) {
	s.Behave()
	return "all is well", nil
}

func (s *pages) showMisbehaviours(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	var list strings.Builder
	for _, m := range s.misbehaviours {
		fmt.Fprintln(&list, m)
	}
	s.mu.Unlock()
	if list.Len() == 0 {
		fmt.Fprintln(&list, "all is well")
	}
	_, _ = fmt.Fprint(w, list.String()) // a client that hung up needs no answer
}
