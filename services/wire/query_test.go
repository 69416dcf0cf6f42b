package wire_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// query is what an expression of PromQL asks for.
type query struct {
	metrics []string
	labels  []string // by which it groups: of each of the metrics
	matches []match
}

type match struct{ metric, label, operator, value string }

// tokens of PromQL, as far as names are to be told from all else.
var tokens = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|\\[[^\\]]*\\]|[a-zA-Z_:][\\w:]*|\\d[\\w.]*|=~|!~|!=|>=|<=|==|\\S")

// readQuery finds the names in an expression: a word is a metric unless a bracket follows,
// or it is one of the language's own.
func readQuery(expression string) (q query) {
	words := tokens.FindAllString(expression, -1)
	next := func(i int) string {
		if i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}
	own := []string{"and", "or", "unless", "offset", "bool", "inf", "nan"}
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case slices.Contains([]string{"by", "without", "on", "ignoring", "group_left", "group_right"}, word):
			if next(i) != "(" {
				continue
			}
			for i += 2; i < len(words) && words[i] != ")"; i++ {
				if words[i] != "," {
					q.labels = append(q.labels, words[i])
				}
			}
		case !regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(word), next(i) == "(", slices.Contains(own, strings.ToLower(word)), next(i) == "by":
		default:
			q.metrics = append(q.metrics, word)
			if next(i) != "{" {
				continue
			}
			for i += 2; i+2 < len(words) && words[i] != "}"; i++ {
				if words[i] == "," {
					continue
				}
				q.matches = append(q.matches, match{word, words[i], words[i+1], strings.Trim(words[i+2], `"`)})
				i += 2
			}
		}
	}
	return q
}

func TestQueriesAreRead(t *testing.T) {
	for expression, want := range map[string]string{
		`up == 0`: `[up] [] []`,
		`sum by (receiver, le) (rate(forge_a_bucket{event="push",state=~"a|b"}[$__rate_interval])) > 1e3`: `[forge_a_bucket] [receiver le] [{forge_a_bucket event = push} {forge_a_bucket state =~ a|b}]`,
		`histogram_quantile(0.9, sum(rate(a_bucket[5m])) by (le))`:                                        `[a_bucket] [le] []`,
		`a / on (room) b unless (c offset 5m) and d{x!="y} {"}`:                                           `[a b c d] [room] [{d x != y} {}]`,
		`max(a - time()) < 14 * 86400`:                                                                    `[a] [] []`,
	} {
		q := readQuery(expression)
		if got := fmt.Sprint(q.metrics, q.labels, q.matches); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
}

// lacks says what an expression asks for that was not measured. What Prometheus adds to
// each target is there: up, job, instance.
func (m measured) lacks(q query) (wrong []string) {
	for _, metric := range q.metrics {
		if metric == "up" {
			continue
		}
		if len(m[metric]) == 0 {
			wrong = append(wrong, metric+" is not measured")
		}
		for _, label := range q.labels {
			if label != "instance" && !m.any(metric, label, regexp.MustCompile(".")) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", metric, label))
			}
		}
	}
	for _, match := range q.matches {
		value := match.value
		if match.operator == "=" || match.operator == "!=" {
			value = regexp.QuoteMeta(value)
		}
		// That something was refused, or broke, need not have happened yet.
		if match.label == "http_response_status_code" {
			value = ".+"
		}
		if match.label != "job" && !m.any(match.metric, match.label, regexp.MustCompile("^(?:"+value+")$")) {
			wrong = append(wrong, fmt.Sprintf("%s is never %s of %s", match.value, match.label, match.metric))
		}
	}
	return wrong
}

// any reports whether a series has a label with such a value.
func (m measured) any(metric, label string, value *regexp.Regexp) bool {
	return slices.ContainsFunc(m[metric], func(labels map[string]string) bool { return value.MatchString(labels[label]) })
}

// rules are the expressions of the alert rules, each of which says what to do.
func rules(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/prometheus/forge.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Load(text, &file, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" || rule.For == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s %q lacks something", group.Name, rule.Alert)
			}
			expressions = append(expressions, rule.Expr)
		}
	}
	return expressions
}

// dashboard are the expressions of Grafana's dashboard.
func dashboard(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/dashboards/forge.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, panel := range file.Panels {
		if panel.Title == "" || ids[panel.ID] || len(panel.Targets) == 0 != (panel.Type == "row") {
			t.Errorf("panel %d %q, of type %s, has %d queries, or its number is another's", panel.ID, panel.Title, panel.Type, len(panel.Targets))
		}
		ids[panel.ID] = true
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}
