package input

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

func asked() *configv1.Manual {
	return &configv1.Manual{Inputs: []*configv1.Input{
		{Name: "version", Variable: "INPUT_VERSION", Required: true},
		{Name: "channel", Variable: "INPUT_CHANNEL", Default: "stable", Options: []string{"stable", "beta"}},
		{Name: "region", Variable: "INPUT_REGION", Options: []string{"eu", "us"}},
		{Name: "token", Variable: "INPUT_TOKEN", Secret: true},
	}}
}

func TestInputsAreHeldAgainstTheFile(t *testing.T) {
	type given = map[string]string
	big := strings.Repeat("x", 64<<10)
	many := given{}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		for _, d := range "abcd" {
			many[string(c)+string(d)] = ""
		}
	}
	for name, c := range map[string]struct {
		given given
		want  string // the values, or the error
	}{
		"defaults":              {given{"version": "1.2"}, "1.2|stable||"},
		"empty is not given":    {given{"version": "1.2", "channel": "", "region": ""}, "1.2|stable||"},
		"all":                   {given{"version": "1.2", "channel": "beta", "region": "eu", "token": "hunter2"}, "1.2|beta|eu|hunter2"},
		"newlines and $( ) are": {given{"version": "a\n$(id)`id`${HOME}\"'"}, "a\n$(id)`id`${HOME}\"'|stable||"},
		"the largest":           {given{"version": big}, big + "|stable||"},

		"nothing":           {nil, "input version is required"},
		"required, empty":   {given{"version": ""}, "input version is required"},
		"no option":         {given{"version": "1", "channel": "Beta"}, `input channel: "Beta" is not one of its options: expected stable, beta`},
		"no option, lines":  {given{"version": "1", "region": "eu\nus"}, `input region: "eu\nus" is not one of its options: expected eu, us`},
		"misspelt":          {given{"versions": "1"}, `there is no input "versions", did you mean version?`},
		"unknown":           {given{"version": "1", "colour": "1"}, `there is no input "colour": manual in .forge.yml has version, channel, region, token`},
		"by its variable":   {given{"INPUT_VERSION": "1"}, `there is no input "INPUT_VERSION": manual in .forge.yml has version, channel, region, token`},
		"in capitals":       {given{"VERSION": "1"}, `there is no input "VERSION": manual in .forge.yml has version, channel, region, token`},
		"short secret":      {given{"version": "1", "token": "abc"}, "input token: a secret of under 4 bytes cannot be masked in logs"},
		"blank secret":      {given{"version": "1", "token": " abc "}, "input token: a secret of under 4 bytes cannot be masked in logs"},
		"one byte too many": {given{"version": big + "x"}, `input "version": it has 65537 bytes, and 64 KiB is the most: put it into a file of the repository, or where the commands can fetch it`},
		"a megabyte":        {given{"version": strings.Repeat("x", 1<<20)}, `input "version": it has 1048576 bytes, and 64 KiB is the most: put it into a file of the repository, or where the commands can fetch it`},
		"too much in all":   {given{"version": big, "b": big, "c": big, "d": big, "e": "x"}, "inputs: in all they are larger than 256 KiB"},
		"too many":          {many, "inputs: 104 are more than any build takes"},
		"NUL":               {given{"version": "a\x00b"}, `input "version": a variable cannot hold a NUL; encode it, in base64 for instance`},
		"no text":           {given{"version": "\xff"}, `input "version": it is not UTF-8; encode it, in base64 for instance`},
		"a name of lines":   {given{"version": "1", strings.Repeat("a\n", 40): "1"}, `there is no input "` + strings.Repeat(`a\n`, 29) + `a…": manual in .forge.yml has version, channel, region, token`},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			all, err := Check(asked(), c.given)
			var values []string
			for _, v := range all {
				values = append(values, v.Value)
			}
			got := strings.Join(values, "|")
			if err != nil {
				got = err.Error()
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%v is no invalid argument", err)
				}
			}
			if got != c.want {
				t.Errorf("%.300q, want %.300q", got, c.want)
			}
		})
	}
}

func TestWhereNothingIsAskedForNothingIsTaken(t *testing.T) {
	if all, err := Check(&configv1.Manual{}, nil); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := Check(&configv1.Manual{}, map[string]string{"x": ""}); err == nil || err.Error() != `there is no input "x": manual in .forge.yml has none` {
		t.Errorf("%v", err)
	}
}

func TestPeopleSeeNoSecretAndNotAllOfALongValue(t *testing.T) {
	all, err := Check(asked(), map[string]string{"version": strings.Repeat("ä", 201), "token": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	shown := Show(all)
	if len(shown) != 3 || shown[0].GetValue() != strings.Repeat("ä", 200) || !shown[0].GetClipped() ||
		shown[1].GetName() != "channel" || shown[1].GetValue() != "stable" || shown[1].GetClipped() {
		t.Errorf("shown: %v", shown)
	}
	if last := shown[2]; last.GetName() != "token" || !last.GetSecret() || last.GetValue() != "" {
		t.Errorf("a secret is shown as %v", last)
	}
}
