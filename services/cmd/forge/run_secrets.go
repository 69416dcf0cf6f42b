package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// secrets reads the file, and names what it lacks before anything runs. What nobody asks
// for is left in the file.
func (r *runHere) secrets(needed map[string]bool) (map[string]string, error) {
	given := map[string]string{}
	if r.Secrets != "" {
		text, err := os.ReadFile(r.Secrets)
		if err != nil {
			return nil, err
		}
		if given, err = dotenv(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Secrets, err)
		}
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if _, there := given[name]; !there {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0 && r.Secrets == "":
		return nil, fmt.Errorf(".forge.yml names secrets: write %s to a file, as lines of NAME=VALUE, and give it by --secrets FILE", strings.Join(missing, ", "))
	case len(missing) > 0:
		return nil, fmt.Errorf("%s lacks secrets that .forge.yml names: %s", r.Secrets, strings.Join(missing, ", "))
	}
	maps.DeleteFunc(given, func(name, _ string) bool { return !needed[name] })
	return given, nil
}

var assignment = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)$`)

// dotenv reads lines of NAME=VALUE. A value in '…' is as it stands; in "…" \n, \t, \" and
// \\ have their meaning. Either may have several lines. Nothing is filled in. Errors name
// lines, never values.
func dotenv(text string) (map[string]string, error) {
	all := map[string]string{}
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := assignment.FindStringSubmatch(strings.TrimLeft(lines[i], " \t\ufeff"))
		if m == nil {
			return nil, fmt.Errorf("line %d is no NAME=VALUE", i+1)
		}
		first, value := i, m[2]
		if _, twice := all[m[1]]; twice {
			return nil, fmt.Errorf("line %d sets %s once more", first+1, m[1])
		}
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			unquoted, rest, err := quotedValue(value)
			for err != nil && i+1 < len(lines) {
				i++
				value += "\n" + lines[i]
				unquoted, rest, err = quotedValue(value)
			}
			if rest = strings.TrimSpace(rest); err == nil && rest != "" && !strings.HasPrefix(rest, "#") {
				err = errors.New("there is more after the value")
			}
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", first+1, err)
			}
			all[m[1]] = unquoted
			continue
		}
		if comment := strings.Index(value, " #"); comment >= 0 {
			value = value[:comment]
		}
		all[m[1]] = strings.TrimSpace(value)
	}
	return all, nil
}

// quotedValue is what stands between quotes, and what comes after.
func quotedValue(text string) (value, rest string, err error) {
	quote := text[0]
	var all strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == quote:
			return all.String(), text[i+1:], nil
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			meant, known := map[byte]string{'n': "\n", 't': "\t", 'r': "\r", '"': `"`, '\\': `\`, '$': "$"}[text[i]]
			if !known {
				meant = `\` + text[i:i+1]
			}
			all.WriteString(meant)
		default:
			all.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("the value has no %c at its end", quote)
}
