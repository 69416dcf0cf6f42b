package settings

import "testing"

func TestAFileIsAddedTo(t *testing.T) {
	values := []Value{{"port", 8080}, {"key_file", "/a b/#c: d"}, {"names", []string{"x", "y"}}}
	const added = "port: 8080\nkey_file: '/a b/#c: d'\nnames:\n    - x\n    - \"y\"\n"
	for name, c := range map[string]struct{ before, after string }{
		"nothing":          {"", added},
		"comments":         {"# Ours.\n", "# Ours.\n" + added},
		"no line end":      {"debug: true", "debug: true\n" + added},
		"others":           {"# Ours.\ndebug: true # yes\n\n# More.\nengine: docker\n\n", "# Ours.\ndebug: true # yes\n\n# More.\nengine: docker\n" + added},
		"replaced":         {"port: 1\n# Of debug.\ndebug: true\nnames:\n  - a\n  - b\n", "# Of debug.\ndebug: true\n" + added},
		"without, of many": {"key: |\n  -----BEGIN\n\n  # no comment\n  -----END\n# Of debug.\ndebug: true\nkey_file: x\n", "# Of debug.\ndebug: true\n" + added},
	} {
		got, err := Edit([]byte(c.before), values, "key")
		if err != nil || string(got) != c.after {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, c.after)
		}
	}
}

func TestAFileThatCannotBeAddedToIsLeft(t *testing.T) {
	for _, text := range []string{"{debug: true, port: 1}", "{debug: true}", "debug: true\n...\n", "- a", "a: b: c", "debug: &x true\nengine: *x\nport: 1\n---\na: b"} {
		if got, err := Edit([]byte(text), []Value{{"port", 2}}); err == nil {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestAFileIsRead(t *testing.T) {
	values, err := Read([]byte("debug: true\nport: '1'\na: [1]\n"))
	if err != nil || len(values) != 3 || values["debug"] != "true" || values["port"] != "1" || values["a"] != "" {
		t.Errorf("%v, %v", values, err)
	}
}
