package settings_test

import (
	"testing"

	"github.com/forge-ci/forge/services/settings"
)

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]settings.Size{"512MiB": 512 << 20, "4GiB": 4 << 30, "1000": 1000, "2 GB": 2e9} {
		var got settings.Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"much", "-1GiB", "99999999999GiB", "4 elephants"} {
		if err := new(settings.Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s is taken for a size", text)
		}
	}
}
