package testreport

import (
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// maxRules is how many rules of a tool are remembered.
const maxRules = 20_000

// SARIF reads what a tool found, in SARIF 2.1:
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
func SARIF(from io.Reader, r Report) error {
	s := &sarif{walker: walker{json.NewDecoder(newClipJSON(from)), 0}, report: r, places: newPlaces(r)}
	found := false
	err := s.object(func(key string) error {
		if key != "runs" {
			return s.skip()
		}
		found = true
		return s.list(s.run)
	})
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is no SARIF: it ends too early")
	case err != nil:
		return err
	case !found:
		return errors.New("it is no SARIF: it has no runs")
	}
	return nil
}

type sarif struct {
	walker
	report Report
	places *places

	tool  string
	rules []rule // of the run, by their index
	names map[string]string
}

type rule struct{ id, level string }

func (s *sarif) run() error {
	s.tool, s.rules, s.names = "", nil, map[string]string{}
	return s.object(func(key string) error {
		switch key {
		case "tool":
			return s.object(s.only("driver", func() error {
				return s.object(func(key string) (err error) {
					switch key {
					case "name":
						s.tool, err = s.text()
						return err
					case "rules":
						return s.list(s.rule)
					}
					return s.skip()
				})
			}))
		case "results":
			return s.list(s.result)
		}
		return s.skip()
	})
}

func (s *sarif) rule() error {
	var r rule
	err := s.object(func(key string) (err error) {
		switch key {
		case "id":
			r.id, err = s.text()
			return err
		case "defaultConfiguration":
			return s.object(s.only("level", func() (err error) {
				r.level, err = s.text()
				return err
			}))
		}
		return s.skip()
	})
	if len(s.rules) < maxRules {
		s.rules = append(s.rules, r)
		s.names[r.id] = r.level
	}
	return err
}

// result is a finding, where it is one: what passed, or somebody has settled, is not.
func (s *sarif) result() error {
	f := &schedulerv1.Finding{Tool: s.tool}
	kind, level, index, settled := "fail", "", int64(-1), false
	placed := false
	err := s.object(func(key string) (err error) {
		switch key {
		case "ruleId":
			f.Rule, err = s.text()
		case "ruleIndex":
			index, err = s.number()
		case "rule":
			err = s.object(func(key string) (err error) {
				switch key {
				case "id":
					f.Rule, err = s.text()
				case "index":
					index, err = s.number()
				default:
					err = s.skip()
				}
				return err
			})
		case "level":
			level, err = s.text()
		case "kind":
			kind, err = s.text()
		case "message":
			err = s.object(func(key string) (err error) {
				switch {
				case key == "text", key == "markdown" && f.GetMessage() == "":
					f.Message, err = s.text()
				default:
					err = s.skip()
				}
				return err
			})
		case "suppressions":
			err = s.list(func() error { return s.suppression(&settled) })
		case "locations":
			err = s.list(func() error {
				if placed {
					return s.skip()
				}
				placed = true
				return s.object(s.only("physicalLocation", func() error { return s.place(f) }))
			})
		default:
			err = s.skip()
		}
		return err
	})
	if err != nil || settled || kind != "fail" && kind != "" {
		return err
	}
	if index >= 0 && index < int64(len(s.rules)) {
		if f.GetRule() == "" {
			f.Rule = s.rules[index].id
		}
		if level == "" {
			level = s.rules[index].level
		}
	}
	if level == "" {
		level = s.names[f.GetRule()]
	}
	f.Level = levelOf(level)
	f.Message = text("", f.GetMessage())
	if f.File = s.places.file(f.GetFile()); f.GetFile() == "" {
		f.Line, f.EndLine = 0, 0
	}
	f.EndLine = max(f.GetEndLine(), f.GetLine())
	return s.report.Finding(f)
}

func levelOf(level string) schedulerv1.Finding_Level {
	switch level {
	case "error":
		return schedulerv1.Finding_LEVEL_ERROR
	case "note", "none":
		return schedulerv1.Finding_LEVEL_NOTE
	}
	return schedulerv1.Finding_LEVEL_WARNING // which is the standard's default
}

// suppression settles a finding, unless it was refused.
func (s *sarif) suppression(settled *bool) error {
	status := ""
	err := s.object(s.only("status", func() (err error) {
		status, err = s.text()
		return err
	}))
	*settled = *settled || status == "" || status == "accepted"
	return err
}

func (s *sarif) place(f *schedulerv1.Finding) error {
	return s.object(func(key string) error {
		switch key {
		case "artifactLocation":
			return s.object(s.only("uri", func() error {
				uri, err := s.text()
				if unescaped, wrong := url.PathUnescape(uri); wrong == nil && !strings.HasPrefix(uri, "file://") {
					uri = unescaped
				}
				f.File = uri
				return err
			}))
		case "region":
			return s.object(func(key string) error {
				switch key {
				case "startLine":
					return s.line(&f.Line)
				case "endLine":
					return s.line(&f.EndLine)
				}
				return s.skip()
			})
		}
		return s.skip()
	})
}

func (s *sarif) line(into *int32) error {
	n, err := s.number()
	if n >= 1 && n <= maxLine {
		*into = int32(n)
	}
	return err
}
