package buildfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// beyondSchema are the bad files that only Parse refuses, with the reason.
func beyondSchema() map[string]string {
	const (
		syntax = "gone once YAML is read"
		exact  = "a pattern for it would be longer than its use"
		filled = "shows once the matrix is filled in"
		apart  = "places of the file cannot be held against each other"
	)
	return map[string]string{
		"previews_after": apart, "previews_event": exact, "previews_same": apart, "previews_taken": apart, "previews_url": apart,
		"alias_bomb": syntax, "yaml_after": syntax, "yaml_binary": syntax, "yaml_documents": syntax, "yaml_tag": syntax,
		"environments_after_itself": apart, "environments_after_moon": apart, "environments_after_unknown": apart, "environments_cycle": apart,
		"ports_hex":   "a number like another",
		"command_nul": exact, "environment_nul": exact, "image_upper": exact, "push_glob": exact, "timeout_huge": exact, "timeout_zero": exact, "keep_short": exact,
		"services_ready_long": exact, "volumes_forge": exact, "volumes_parent": exact,
		"ports_host_twice": "values cannot be held against each other",
		"matrix_value":     exact, "matrix_value_unseen": exact, "hole_unused": filled,
		"hole_filled_wrongly": filled, "hole_in_some_cells": filled, "hole_of_the_file": filled, "hole_open": filled, "hole_unknown": filled,
		"jobs_101": filled, "jobs_large": filled, "matrix_10000": filled, "matrix_101": filled, "matrix_exclude_all": filled,
		"matrix_titles": filled,
		"if_never":      apart, "if_tag": apart, "image_load": apart, "image_missing_with_jobs": apart, "job_image_missing": apart, "job_names_collide": apart,
		"artifacts_21": exact, "artifacts_51": exact, "artifacts_twice": apart, "artifacts_files": apart, "artifacts_job_name": filled, "artifacts_matrix": filled,
		"release_never": apart, "manual_never": apart, "schedule_twice": apart, "cache_matrix": filled, "cache_unused": filled, "cache_of_the_file": filled, "cache_twice": apart, "cache_key_long": exact,
		"needs_alone": apart, "needs_cycle": apart, "needs_cycle_long": apart, "needs_itself": apart, "outputs_collide": apart,
	}
}

// compiled is the schema, or the part of it that a fragment names.
func compiled(t *testing.T, fragment string) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("forge.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("forge.json" + fragment)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestSchemaTakesWhatTheParserTakes(t *testing.T) {
	schema := compiled(t, "")
	paths, err := filepath.Glob("testdata/*/*.yml")
	if err != nil || len(paths) < 60 {
		t.Fatalf("%d files, error %v", len(paths), err)
	}
	beyond := beyondSchema()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			continue // no schema is asked about what is not YAML
		}
		refused := schema.Validate(inJSON(value))
		name := strings.TrimSuffix(filepath.Base(path), ".yml")
		because, known := beyond[name]
		delete(beyond, name)
		switch good := strings.Contains(path, "/good/"); {
		case good && refused != nil:
			t.Errorf("%s: %v", path, refused)
		case !good && refused == nil && because == "":
			t.Errorf("%s is taken", path)
		case !good && refused != nil && known:
			t.Errorf("%s is refused, so it is no longer beyond the schema", path)
		}
	}
	for name := range beyond {
		t.Errorf("there is no bad file %s", name)
	}
}

// A file is refused for its first mistake, an editor shows all of them.
func TestSchemaAndParserKnowPathsAndKeys(t *testing.T) {
	for name, texts := range map[string]struct {
		right, wrong []string
		in           string // a job
	}{
		"cachePath": {
			in:    "cache: {key: k, paths: %q}",
			right: []string{"a", "./a/", "a b", ".github", ".git-cache", "~/.git", "/root/.cache", "a/${x}", "${x}", "/process", "a..b", "..a"},
			wrong: []string{
				"", " ", "/", "//", ".", "./", "././", "~", "~/", "~/.", "..", "../x", "a/../x", "~/..", ".git", "./.git/x", ".GIT", "a/.git", "/proc", "/sys/x", "/dev", "/forge/x",
				"*.o", "a/**", "a?", "[ab]", "{a,b}", "$HOME/x", "$${x}", "${x", "~x", "a\nb", strings.Repeat("x", 1001),
			},
		},
		"cacheKey": {
			in:    "cache: {key: %q, paths: a}",
			right: []string{"a", "go ${x}-${hash:go.sum}-", "${hash:**/go.sum,a b/*.[ch]}", "${FORGE_SHA}", "${hash:.github/x,a..b}"},
			wrong: []string{
				"", " ", "a\nb", "$x", "a$", "$${x}", "${x", "${}", "${hash:}", "${hash:a,}", "${hash:a, b}", "${hash:/a}", "${hash:~/a}", "${hash:../a}", "${hash:a/..}", "${hash:{a,b}}",
				"${hash:./a}", "${hash:a//b}", "${hash:.git/HEAD}", "${hash:a,b/.git/x}", "${hash:${x}}",
			},
		},
		"artifactPath": {
			in:    "artifacts: %q",
			right: []string{"dist/**", "./a/", "**", "{a,b}/*", "a/${x}", ".github/**", "a..b"},
			wrong: []string{"", " ", "/a", "~/a", "!a", ".", "./", "..", "a/../b", "{a,..}/b", ".git/**", "**/.git", "{.git,a}", ".GIT", "a\nb", "${x", strings.Repeat("x", 1001)},
		},
	} {
		schema := compiled(t, "#/$defs/"+name)
		parse := func(text string) []*Problem {
			_, problems := Parse([]byte("image: busybox\njobs: {a: {matrix: {x: v}, execute: make, " + fmt.Sprintf(texts.in, text) + "}}"))
			return problems
		}
		for _, text := range texts.right {
			if err, problems := schema.Validate(text), parse(text); err != nil || len(problems) > 0 {
				t.Errorf("%s %q: %v, to the parser %v", name, text, err, problems)
			}
		}
		for _, text := range texts.wrong {
			if err, problems := schema.Validate(text), parse(text); err == nil || len(problems) != 1 {
				t.Errorf("%s %q: %v, to the parser %v", name, text, err, problems)
			}
		}
	}
}

// inJSON is YAML as an editor hands it to a schema: keys are text.
func inJSON(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for k, v := range value {
			value[k] = inJSON(v)
		}
	case map[any]any:
		object := map[string]any{}
		for k, v := range value {
			object[fmt.Sprint(k)] = inJSON(v)
		}
		return object
	case []any:
		for i, v := range value {
			value[i] = inJSON(v)
		}
	case time.Time:
		return value.Format(time.DateOnly)
	}
	return value
}

func TestSchemaDescribesEveryKey(t *testing.T) {
	described := map[string]bool{}
	walk(compiled(t, ""), "", described)
	var last []string
	for _, key := range Keys() {
		last = append(last, key[strings.LastIndex(key, ".")+1:])
		for _, name := range []string{"staging", "production"} {
			if key := strings.Replace(key, "deploy.*", "deploy."+name, 1); !described[key] {
				t.Errorf("the schema does not describe %s", key)
			}
		}
	}
	for key := range described {
		if !slices.Contains(last, key[strings.LastIndex(key, ".")+1:]) {
			t.Errorf("the schema has %s, the parser has not", key)
		}
	}
}

// walk collects the keys of a schema as Keys writes them, and whether each is
// described.
func walk(s *jsonschema.Schema, path string, into map[string]bool) {
	if s == nil {
		return
	}
	walk(s.Ref, path, into)
	for _, one := range s.AnyOf {
		walk(one, path, into)
	}
	walk(s.Items2020, path+"[]", into)
	if more, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		walk(more, path+".*", into)
	}
	for name, property := range s.Properties {
		key := strings.TrimPrefix(path+"."+name, ".")
		into[key] = property.Description != ""
		walk(property, key, into)
	}
}
