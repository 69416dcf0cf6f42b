package forgexec

import (
	"strings"
	"testing"
)

func TestSudoThatCannotWorkIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   bool
	}{
		"new":     {`echo 'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.' >&2; exit 1`, true},
		"old":     {`echo "sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set?"; exit 1`, true},
		"divided": {`printf 'sudo: The "no new privileges" flag is'; sleep 0.2; echo ' set, which prevents sudo from running as root.'`, true},
		"other":   {`echo sudo is not here`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, c.script)
			s.forgexec(t).wantExit(t, exitReported)
			if got := strings.Contains(string(s.output()), sudoNotice); got != c.want {
				t.Errorf("explained: %v; the log is %q", got, s.output())
			}
		})
	}
}
