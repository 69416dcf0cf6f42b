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
		"alias_bomb": syntax, "yaml_after": syntax, "yaml_binary": syntax, "yaml_documents": syntax, "yaml_tag": syntax,
		"ports_hex":   "a number like another",
		"command_nul": exact, "environment_nul": exact, "image_upper": exact, "push_glob": exact, "timeout_huge": exact, "timeout_zero": exact,
		"services_ready_long": exact, "volumes_forge": exact, "volumes_parent": exact,
		"ports_host_twice": "values cannot be held against each other",
		"matrix_value":     exact, "matrix_value_unseen": exact, "hole_unused": filled,
		"hole_filled_wrongly": filled, "hole_in_some_cells": filled, "hole_of_the_file": filled, "hole_open": filled, "hole_unknown": filled,
		"jobs_101": filled, "jobs_large": filled, "matrix_10000": filled, "matrix_101": filled, "matrix_exclude_all": filled,
		"matrix_titles": filled,
		"if_never":      apart, "if_tag": apart, "image_missing_with_jobs": apart, "job_image_missing": apart, "job_names_collide": apart,
		"needs_alone": apart, "needs_cycle": apart, "needs_cycle_long": apart, "needs_itself": apart, "outputs_collide": apart,
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("forge.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("forge.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestSchemaTakesWhatTheParserTakes(t *testing.T) {
	schema := compiled(t)
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
	walk(compiled(t), "", described)
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
