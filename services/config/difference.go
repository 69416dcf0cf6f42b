package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"unicode"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
)

// What a difference has at most.
const (
	maxDifference = 16 << 20 // bytes of paths and contents
	maxChanges    = 20_000
	maxLinkTarget = 4 << 10
)

var authorPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

// readDifference is a difference as git is to make a commit of it. What git itself is to
// refuse, it does.
func readDifference(d *configv1.Difference) (*mirror.Difference, error) {
	made := &mirror.Difference{Author: d.GetAuthor(), Time: d.GetTime().AsTime()}
	if !authorPattern.MatchString(made.Author) || d.GetTime() == nil {
		return nil, fault.New(fault.Invalid, "a difference has an author, by login, and a time")
	}
	if len(d.GetChanges()) > maxChanges {
		return nil, fault.Newf(fault.Invalid, "the difference has %d files, more than %d: push a commit that is nearer", len(d.GetChanges()), maxChanges)
	}
	size, seen := 0, map[string]bool{}
	for _, c := range d.GetChanges() {
		if size += len(c.GetPath()) + len(c.GetContent()); size > maxDifference {
			return nil, fault.Newf(fault.Invalid, "the difference is larger than %d MiB: push a commit that is nearer, or have .gitignore name what is not to be built", maxDifference>>20)
		}
		if !fs.ValidPath(c.GetPath()) || c.GetPath() == "." || strings.ContainsFunc(c.GetPath(), unicode.IsControl) {
			return nil, fault.Newf(fault.Invalid, "the difference names the path %q, which no file of a repository has", c.GetPath())
		}
		if seen[c.GetPath()] {
			return nil, fault.Newf(fault.Invalid, "the difference names the path %q twice", c.GetPath())
		}
		seen[c.GetPath()] = true
		mode, known := map[configv1.Difference_Mode]string{
			configv1.Difference_MODE_FILE: "100644", configv1.Difference_MODE_EXECUTABLE: "100755", configv1.Difference_MODE_LINK: "120000", configv1.Difference_MODE_GONE: "",
		}[c.GetMode()]
		switch {
		case !known:
			return nil, fault.Newf(fault.Invalid, "the difference does not say what %q is", c.GetPath())
		case mode == "120000" && (len(c.GetContent()) == 0 || len(c.GetContent()) > maxLinkTarget || strings.Contains(string(c.GetContent()), "\x00")):
			return nil, fault.Newf(fault.Invalid, "the link %q points at nothing that can be", c.GetPath())
		}
		made.Changes = append(made.Changes, mirror.Change{Path: c.GetPath(), Mode: mode, Content: c.GetContent()})
	}
	return made, nil
}

// differenceName tells differences apart; "" is that of none.
func differenceName(d *mirror.Difference) string {
	if d == nil {
		return ""
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%q %d", d.Author, d.Time.Unix())
	for _, c := range d.Changes {
		_, _ = fmt.Fprintf(sum, " %q %q %d ", c.Path, c.Mode, len(c.Content))
		_, _ = sum.Write(c.Content)
	}
	return fmt.Sprintf(" %x", sum.Sum(nil))
}

// differenceConfig reads the file of the commit that a difference makes.
func differenceConfig(ctx context.Context, s *Service, g grant, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	if req.GetChange() != nil {
		return nil, fault.New(fault.Invalid, "paths do not count for a difference")
	}
	d, err := readDifference(req.GetDifference())
	if err != nil {
		return nil, err
	}
	if err := s.checkouts.possible(g); err != nil {
		return nil, err
	}
	sha, found, err := s.checkouts.mirrors.Files(ctx, s.checkouts.remote(g), mirror.Want{SHA: req.GetSha(), Difference: d}, buildfile.MaxSize, buildfile.Name, buildfile.OtherName)
	if err != nil {
		return nil, notYet(err, s.recent(req.GetEventTime()))
	}
	read := readFound(found)
	read.Sha = sha
	return read, nil
}

// readFound is the answer that the files make which a commit has under either name.
func readFound(found []mirror.Found) *configv1.GetBuildConfigResponse {
	switch {
	case len(found) == 0:
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}
	case len(found) > 1:
		return TwoFiles()
	}
	f := found[0]
	if kind := map[string]string{"040000": "folder", "160000": "submodule", "120000": "symbolic link"}[f.Mode]; kind != "" {
		return NotFile(f.Name, kind)
	}
	if f.Size > buildfile.MaxSize {
		return oversize(f.Name)
	}
	return Read(f.Name, f.Text)
}
