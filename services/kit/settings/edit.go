package settings

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Value is one setting that a file is to have: a text, a number or a list of texts.
type Value struct {
	Key   string // as in the file: port
	Value any
}

// Read returns the settings that a file has: by their keys, those that are single
// values, and "" for the others.
func Read(text []byte) (map[string]string, error) {
	file, err := parseFile(text)
	values := map[string]string{}
	for key, e := range file {
		values[key] = e.scalar
	}
	return values, err
}

// Edit returns a settings file with these values, behind what is there, and without
// those keys that are named besides. What it does not change stays as it is, comments
// included. A file that is written in a way in which that cannot be done is an error.
func Edit(text []byte, values []Value, without ...string) ([]byte, error) {
	before, err := parseFile(text)
	if err != nil {
		return nil, err
	}
	gone := slices.Clone(without)
	for _, v := range values {
		gone = append(gone, v.Key)
	}
	edited := bytes.TrimRight(cut(text, before, gone), "\n")
	if len(edited) > 0 {
		edited = append(edited, '\n')
	}
	for _, v := range values {
		line, err := yaml.Marshal(map[string]any{v.Key: v.Value})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Key, err)
		}
		edited = append(edited, line...)
	}
	after, err := parseFile(edited)
	if err != nil || !kept(before, after, gone) || !has(after, values) {
		return nil, errors.New("it is written in a way that cannot be added to: give each setting a line of its own, key: value")
	}
	return edited, nil
}

// cut removes the lines of some keys. Comments before the next key are that one's.
func cut(text []byte, file map[string]entry, keys []string) []byte {
	lines := strings.SplitAfter(string(text), "\n")
	order := sortedByLine(file)
	var left strings.Builder
	next := 0 // line that is to be looked at
	for n, key := range order {
		if !slices.Contains(keys, key) {
			continue
		}
		from, to := file[key].line-1, len(lines)
		if n+1 < len(order) {
			to = file[order[n+1]].line - 1
		}
		for to > from+1 && (strings.TrimSpace(lines[to-1]) == "" || strings.HasPrefix(lines[to-1], "#")) {
			to--
		}
		for ; next < from; next++ {
			left.WriteString(lines[next])
		}
		next = max(next, to)
	}
	for ; next < len(lines); next++ {
		left.WriteString(lines[next])
	}
	return []byte(left.String())
}

// kept reports whether all is as before but for the keys that are gone.
func kept(before, after map[string]entry, gone []string) bool {
	for key, e := range before {
		now := after[key]
		now.line = e.line
		if !slices.Contains(gone, key) && !reflect.DeepEqual(e, now) {
			return false
		}
	}
	return true
}

func has(file map[string]entry, values []Value) bool {
	for _, v := range values {
		text, err := yaml.Marshal(map[string]any{v.Key: v.Value})
		if err != nil {
			return false
		}
		want, err := parseFile(text)
		e, now := want[v.Key], file[v.Key]
		now.line = e.line
		if err != nil || !reflect.DeepEqual(e, now) {
			return false
		}
	}
	return true
}
