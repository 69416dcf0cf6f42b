package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/forge-ci/forge/services/kit/kittest"
)

type binary struct {
	Port     int               `short:"p" env:"FORGE_PORT" default:"9098" help:"HTTP port."`
	Debug    bool              `short:"d" env:"FORGE_DEBUG" help:"Say more."`
	Branches []string          `env:"FORGE_INTEGRATION_BRANCHES" default:"master,main" help:"Branches that are tested."`
	Tokens   map[string]string `env:"FORGE_ROOM_TOKENS" secret:"" help:"Accepted tokens."`
	Timeout  time.Duration     `env:"FORGE_TIMEOUT" default:"30m" help:"Most a build may take."`
	Engine   string            `env:"FORGE_ENGINE" enum:"docker,process" default:"docker" help:"Where builds run."`
	Key      string            `env:"FORGE_GITHUB_PRIVATE_KEY" secret:"" help:"The App's key."`
	DataDir  string            `env:"FORGE_DATA_DIR" default:"${data}" help:"Where state is kept."`

	Up   struct{} `cmd:"" help:"Run all rooms."`
	Demo struct {
		Pace time.Duration `env:"FORGE_PACE" default:"1s" help:"Pause between steps."`
	} `cmd:"" help:"Show it."`
}

func defaults() binary {
	b := binary{
		Port: 9098, Branches: []string{"master", "main"}, Timeout: 30 * time.Minute, Engine: "docker", DataDir: "./forge-data",
	}
	b.Demo.Pace = time.Second
	return b
}

// parse runs in an empty directory with the given forge.yaml, "" for none.
func parse(t *testing.T, args, env []string, file string) (binary, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		write(t, "forge.yaml", file)
	}
	return parseHere(args, env)
}

func parseHere(args, env []string) (binary, error) {
	var got binary
	_, err := Parse(&got, Source{
		Name: "forge", Args: append([]string{"up"}, args...), Env: env, Prefix: "FORGE_",
		Known: []string{"FORGE_SHA", "FORGE_REPORT"}, Vars: kong.Vars{"data": "./forge-data"},
	})
	return got, err
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverDefaults(t *testing.T) {
	flag, env, file := []string{"--port=1"}, []string{"FORGE_PORT=2"}, "port: 3"
	for _, c := range []struct {
		name string
		args []string
		env  []string
		file string
		want int
	}{
		{"default", nil, nil, "", 9098},
		{"file", nil, nil, file, 3},
		{"environment", nil, env, "", 2},
		{"flag", flag, nil, "", 1},
		{"environment over file", nil, env, file, 2},
		{"flag over file", flag, nil, file, 1},
		{"flag over environment", flag, env, "", 1},
		{"flag over all", flag, env, file, 1},
		{"short flag over all", []string{"-p", "4"}, env, file, 4},
		{"empty variable is absent", nil, []string{"FORGE_PORT="}, file, 3},
		{"empty key is absent", nil, nil, "port:", 9098},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse(t, c.args, c.env, c.file)
			if err != nil || got.Port != c.want {
				t.Errorf("port %d, %v; want %d", got.Port, err, c.want)
			}
		})
	}
}

func TestProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("FORGE_PORT", "7")
	t.Setenv("FORGE_NONSENSE", "7")
	if got, err := parse(t, nil, nil, ""); err != nil || got.Port != 9098 {
		t.Errorf("port %d, %v; want the default", got.Port, err)
	}
}

func TestAllKindsOfValues(t *testing.T) {
	want := binary{
		Port: 1, Debug: true, Branches: []string{"main", "a,b"}, Tokens: map[string]string{"gateway": "x=1", "config": "y"},
		Timeout: 90 * time.Second, Engine: "process", Key: "line one\nline two\n", DataDir: "/data",
	}
	want.Demo = defaults().Demo
	fromFile, err := parse(t, nil, nil, `
# a comment
port: 1
debug: true
integration_branches: [main, "a,b"]
room_tokens:
  gateway: x=1
  config: y
timeout: 90s
engine: process
github_private_key: |
  line one
  line two
data_dir: "/data"
`)
	if err != nil || !reflect.DeepEqual(fromFile, want) {
		t.Errorf("file: %+v, %v; want %+v", fromFile, err, want)
	}
	fromEnv, err := parse(t, nil, []string{
		"FORGE_PORT=1", "FORGE_DEBUG=true", `FORGE_INTEGRATION_BRANCHES=main,a\,b`, "FORGE_ROOM_TOKENS=gateway=x=1;config=y",
		"FORGE_TIMEOUT=90s", "FORGE_ENGINE=process", "FORGE_GITHUB_PRIVATE_KEY=line one\nline two\n", "FORGE_DATA_DIR=/data",
		"PATH=/bin", "FORGE_SHA=abc",
	}, "")
	if err != nil || !reflect.DeepEqual(fromEnv, want) {
		t.Errorf("environment: %+v, %v; want %+v", fromEnv, err, want)
	}
	if got, err := parse(t, nil, nil, ""); err != nil || !reflect.DeepEqual(got, defaults()) {
		t.Errorf("defaults: %+v, %v; want %+v", got, err, defaults())
	}
}

func TestMistakesStopStartUpAndSayWhereTheyAre(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		env  []string
		file string
		want string
	}{
		{
			name: "unknown variable", env: []string{"FORGE_PROT=1"},
			want: "unknown setting FORGE_PROT in the environment: did you mean FORGE_PORT?",
		},
		{
			name: "unknown empty variable", env: []string{"FORGE_PROT="},
			want: "unknown setting FORGE_PROT in the environment: did you mean FORGE_PORT?",
		},
		{
			name: "variable like nothing", env: []string{"FORGE_XXXXXXXXXXXXXXXXXXX=1"},
			want: "unknown setting FORGE_XXXXXXXXXXXXXXXXXXX in the environment; --help lists the settings",
		},
		{
			name: "unknown key", file: "\ndebug: true\nprot: 1\n",
			want: "unknown setting prot in forge.yaml, line 3: did you mean port?",
		},
		{name: "key of another binary", file: "report: checks", want: ""},
		{
			name: "unknown flag", args: []string{"--prot=1"},
			want: `unknown flag --prot, did you mean "--port"?; see forge up --help`,
		},
		{
			name: "all at once", env: []string{"FORGE_PROT=1", "FORGE_DEBUGG=1", "FORGE_ENGINE=podman"}, file: "prot: 1",
			want: "unknown setting FORGE_DEBUGG in the environment: did you mean FORGE_DEBUG?\n" +
				"unknown setting FORGE_PROT in the environment: did you mean FORGE_PORT?\n" +
				"unknown setting prot in forge.yaml, line 1: did you mean port?\n" +
				`FORGE_ENGINE in the environment: must be one of docker, process, not "podman"`,
		},
		{
			name: "bad flag", args: []string{"--port=x"},
			want: `--port: expected a valid 64 bit int but got "x"; see forge up --help`,
		},
		{
			name: "bad variable", env: []string{"FORGE_PORT=x"},
			want: `FORGE_PORT in the environment: expected a valid 64 bit int but got "x"`,
		},
		{
			name: "bad key", file: "timeout: soon",
			want: `timeout in forge.yaml, line 1: expected duration but got "soon": time: invalid duration "soon"`,
		},
		{
			name: "bad choice", file: "engine: podman",
			want: `engine in forge.yaml, line 1: must be one of docker, process, not "podman"`,
		},
		{
			name: "below zero", env: []string{"FORGE_PORT=-1"},
			want: "FORGE_PORT (--port) is -1: it cannot be below 0",
		},
		{
			name: "time below zero", file: "timeout: -5m",
			want: "FORGE_TIMEOUT (--timeout) is -5m0s: it cannot be below 0",
		},
		{
			name: "list in a list", file: "integration_branches:\n  - [a]",
			want: "settings file forge.yaml: integration_branches, line 1: expected a single value, a list of values, or a map of values",
		},
		{
			name: "no keys", file: "just text",
			want: "settings file forge.yaml: expected lines of key: value",
		},
		{
			name: "file that is not there", args: []string{"--config=other.yaml"},
			want: "settings file: open other.yaml: no such file or directory",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(t, c.args, c.env, c.file)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || err.Error() != c.want {
				t.Errorf("error\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestBrokenFileIsShownWithItsLine(t *testing.T) {
	for file, want := range map[string]string{
		"port: 1\nport: 2": "port, line 2: stands already on line 1",
		"port: [1":         "yaml: line 2: did not find expected ',' or ']'",
		"a: b: c":          "yaml: line 1: mapping values are not allowed in this context",
	} {
		if _, err := parse(t, nil, nil, file); err == nil || err.Error() != "settings file forge.yaml: "+want {
			t.Errorf("%q: error %v, want %s", file, err, want)
		}
	}
}

func TestFileIsTheOneAskedFor(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "forge.yaml", "port: 1")
	write(t, "env.yaml", "port: 2")
	write(t, "flag.yaml", "port: 3")
	for _, c := range []struct {
		args, env []string
		want      int
	}{
		{nil, nil, 1},
		{nil, []string{"FORGE_CONFIG=" + filepath.Join(dir, "env.yaml")}, 2},
		{[]string{"--config", "flag.yaml"}, []string{"FORGE_CONFIG=env.yaml"}, 3},
	} {
		if got, err := parseHere(c.args, c.env); err != nil || got.Port != c.want {
			t.Errorf("%v %v: port %d, %v; want %d", c.args, c.env, got.Port, err, c.want)
		}
	}
}

func TestAnOldNameStopsStartUpWithTheNewOne(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  []string
		file string
		want string // "": no error
	}{
		{env: []string{"FORGE_HTTP_PORT=1"}, want: "FORGE_HTTP_PORT in the environment: this setting is named FORGE_PORT now"},
		{env: []string{"FORGE_HTTP_PORT="}, want: "FORGE_HTTP_PORT in the environment: this setting is named FORGE_PORT now"},
		{env: []string{"FORGE_PORT=2", "FORGE_HTTP_PORT=1"}, want: "FORGE_HTTP_PORT in the environment: this setting is named FORGE_PORT now"},
		{file: "debug: true\nhttp_port: 1", want: "http_port in forge.yaml, line 2: this setting is named port now"},
		{args: []string{"--http-port=1"}, want: "--http-port: this flag is named --port now"},
		{args: []string{"--debug", "--http-port", "1"}, want: "--http-port: this flag is named --port now"},
		{args: []string{"--data-dir=--http-port"}},
	} {
		t.Chdir(t.TempDir())
		if c.file != "" {
			write(t, "forge.yaml", c.file)
		}
		var got binary
		_, err := Parse(&got, Source{
			Name: "forge", Args: append([]string{"up"}, c.args...), Env: c.env, Prefix: "FORGE_",
			Renamed: map[string]string{"FORGE_HTTP_PORT": "FORGE_PORT"}, Vars: kong.Vars{"data": "./forge-data"},
		})
		said := ""
		if err != nil {
			said = err.Error()
		}
		if said != c.want {
			t.Errorf("%v, %v, %q: error %q, want %q", c.args, c.env, c.file, said, c.want)
		}
	}
}

func TestSettingOfAnotherCommandIsKnown(t *testing.T) {
	if _, err := parse(t, nil, []string{"FORGE_PACE=nonsense"}, ""); err != nil {
		t.Errorf("up cares about demo's setting: %v", err)
	}
}

func TestHelpNamesTheVariables(t *testing.T) {
	t.Setenv("COLUMNS", "80") // to which kong wraps
	var out bytes.Buffer
	var got binary
	exited := -1
	_, err := Parse(&got, Source{
		Name: "forge", Description: "CI/CD for a team.", Args: []string{"up", "--help"}, Prefix: "FORGE_",
		Env: []string{"FORGE_PROT=1"}, Vars: kong.Vars{"data": "./forge-data"}, Stdout: &out, Stderr: &out,
		Exit: func(code int) { exited = code },
	})
	// Only because the test's Exit returns is the mistake reached.
	if exited != 0 || err == nil {
		t.Errorf("exit code %d, %v", exited, err)
	}
	kittest.Golden(t, "help", out.Bytes())
}

func TestNamesListsEverySetting(t *testing.T) {
	got := Names(&binary{}, kong.Vars{"data": "./forge-data"})
	want := Setting{Env: "FORGE_GITHUB_PRIVATE_KEY", Flag: "key", Help: "The App's key.", Secret: true}
	if !slices.Contains(got, want) {
		t.Errorf("%+v lacks %+v", got, want)
	}
	var names []string
	for _, setting := range got {
		names = append(names, setting.Env+"="+setting.Default)
	}
	all := []string{
		"FORGE_PORT=9098", "FORGE_DEBUG=", "FORGE_INTEGRATION_BRANCHES=master,main", "FORGE_ROOM_TOKENS=", "FORGE_TIMEOUT=30m",
		"FORGE_ENGINE=docker", "FORGE_GITHUB_PRIVATE_KEY=", "FORGE_DATA_DIR=./forge-data", "FORGE_PACE=1s",
	}
	if !slices.Equal(names, all) {
		t.Errorf("got  %v\nwant %v", names, all)
	}
}

func TestSecretFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, "s3cret\n")
	for _, c := range []struct{ value, path, want, err string }{
		{"", "", "", ""},
		{"direct", "", "direct", ""},
		{"", path, "s3cret", ""},
		{"direct", path, "", "given directly and as the file " + path + ": keep one of the two"},
		{"", path + "x", "", "secret from a file: open " + path + "x: no such file or directory"},
	} {
		got, err := FromFile(c.value, c.path)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != c.want || said != c.err {
			t.Errorf("FromFile(%q, %q) = %q, %v; want %q, %s", c.value, c.path, got, err, c.want, c.err)
		}
	}
}

func TestEverySecretMayBeInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, "gateway=a;reporter=b\n")
	empty := path + "-empty"
	write(t, empty, "\n")
	want := map[string]string{"gateway": "a", "reporter": "b"}
	for _, c := range []struct {
		env  []string
		file string
		err  string
	}{
		{env: []string{"FORGE_ROOM_TOKENS_FILE=" + path}},
		{file: "room_tokens_file: " + path},
		{env: []string{"FORGE_ROOM_TOKENS=gateway=a;reporter=b"}, file: "room_tokens_file: /nonexistent"}, // the environment wins
		{env: []string{"FORGE_ROOM_TOKENS_FILE=" + path}, file: "room_tokens: {other: c}"},
		{
			env: []string{"FORGE_ROOM_TOKENS=gateway=a", "FORGE_ROOM_TOKENS_FILE=" + path},
			err: "FORGE_ROOM_TOKENS in the environment: given directly and as the file " + path + ": keep one of the two",
		},
		{
			file: "room_tokens_file: /nonexistent",
			err:  "room_tokens in forge.yaml, line 1: secret from a file: open /nonexistent: no such file or directory",
		},
		{env: []string{"FORGE_ROOM_TOKENS_FILE=" + empty}, err: "FORGE_ROOM_TOKENS in the environment: the file " + empty + " is empty"},
		{
			env: []string{"FORGE_DATA_DIR_FILE=" + path}, // no secret
			err: "unknown setting FORGE_DATA_DIR_FILE in the environment: did you mean FORGE_DATA_DIR?",
		},
	} {
		got, err := parse(t, nil, c.env, c.file)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if said != c.err {
			t.Errorf("%q and %q: error %q, want %q", c.env, c.file, said, c.err)
		}
		if c.err == "" && !reflect.DeepEqual(got.Tokens, want) {
			t.Errorf("%q and %q: tokens %v, want %v", c.env, c.file, got.Tokens, want)
		}
	}
}
