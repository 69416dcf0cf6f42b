package githubsim

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A reader reads what git has on disk and this GitHub does not keep in memory. What cannot be read is empty, and logged:
// hostile objects may be such.
type reader struct {
	disk            *disk
	folder, objects string

	mu     sync.Mutex      // guards all below
	recent map[string]tree // the last trees that were read, by sha
}

// recentTrees bounds what a reader keeps.
const recentTrees = 8

// in has a command of git run in a repository, without anybody's settings.
func in(folder, objects string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = folder
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_DIR=" + folder, "GIT_OBJECT_DIRECTORY=" + objects,
	}
	cmd.WaitDelay = time.Second
	return cmd
}

// runCommand runs git and says in its error what git said.
func runCommand(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git %s: %w: %s", cmd.Args[1], err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func (o *reader) output(stdin string, args ...string) (string, error) {
	cmd := in(o.folder, o.objects, exec.Command("git", args...)) //nolint:noctx // it is over soon, and close waits for it
	cmd.Stdin = strings.NewReader(stdin)
	return o.disk.output(cmd)
}

// output runs a command that is over soon.
func (d *disk) output(cmd *exec.Cmd) (string, error) {
	end, err := d.hold(nil)
	if err != nil {
		return "", err
	}
	defer end()
	var output bytes.Buffer
	cmd.Stdout = &output
	err = runCommand(cmd)
	return output.String(), err
}

// tree reads a tree with all below it; it is empty where there is no such tree.
func (o *reader) tree(sha string) tree {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.recent[sha]; known != nil {
		return known
	}
	files := tree{}
	listed, err := o.output("", "ls-tree", "-r", "-z", "-l", "--full-tree", sha)
	if err != nil {
		o.disk.log.Warn("tree cannot be read", "sha", sha, "error", err)
	}
	for line := range strings.SplitSeq(listed, "\x00") {
		about, name, _ := strings.Cut(line, "\t")
		if columns := strings.Fields(about); len(columns) == 4 {
			size, _ := strconv.Atoi(columns[3]) // a submodule has "-"
			files[name] = file{mode: columns[0], sha: columns[2], size: size, from: o}
		}
	}
	if len(o.recent) == recentTrees {
		clear(o.recent)
	}
	o.recent[sha] = files
	return files
}

func (o *reader) blob(sha string) []byte {
	content, err := o.output("", "cat-file", "blob", sha)
	if err != nil {
		o.disk.log.Warn("file cannot be read", "sha", sha, "error", err)
	}
	return []byte(content)
}

// commitFormat has a field a line; the message is the last one, of many lines.
const commitFormat = "%H%n%T%n%P%n%an%n%ae%n%ct%n%B"

// commits reads what can be reached from some commits and not from others, parents before their children. The files stay
// on disk.
func (o *reader) commits(from, without []string, now time.Time) ([]commit, error) {
	var revisions strings.Builder
	for _, sha := range from {
		revisions.WriteString(sha + "\n")
	}
	for _, sha := range without {
		revisions.WriteString("^" + sha + "\n")
	}
	listed, err := o.output(revisions.String(), "log", "-z", "--topo-order", "--reverse", "--format="+commitFormat, "--stdin")
	if err != nil {
		return nil, err
	}
	var found []commit
	for text := range strings.SplitSeq(listed, "\x00") {
		fields := strings.SplitN(text, "\n", 7)
		if len(fields) < 7 {
			continue
		}
		seconds, _ := strconv.ParseInt(fields[5], 10, 64) // 0 is what git makes of a time that is none
		found = append(found, commit{
			sha: fields[0], treeSHA: fields[1], parents: strings.Fields(fields[2]), message: strings.TrimSpace(fields[6]),
			author: &account{login: fields[3], kind: "User", mail: fields[4]}, time: time.Unix(seconds, 0).UTC(), since: now,
			from: o, stored: true,
		})
	}
	return found, nil
}
