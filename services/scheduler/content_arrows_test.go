package scheduler

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// everybody is a build of each kind, with what its kind may find besides its own.
func everybody(of *rig) (r keeping, all map[string]*keeper, finds map[string][]string) {
	of.branches()
	r = startKeeping(of)
	byHand, err := r.builds.CreateBuild(r.t.Context(), &schedulerv1.CreateBuildRequest{Repository: "Acme/shop", Branch: "main"})
	if err != nil {
		r.t.Fatal(err)
	}
	all = map[string]*keeper{
		"fork 1": r.forked(1, "f1"), "fork 2": r.forked(2, "f2"), "pull 3": r.pulled(3, "p3"), "pull 4": r.pulled(4, "p4"),
		"feature": r.pushed("refs/heads/feature", "b1"), "branch called default": r.pushed("refs/heads/default", "b2"),
		"queue": r.keeper(r.built(group("checks_requested", "main", "q1"))), "by hand": r.keeper(byHand.GetBuild().GetId()),
		"main": r.pushed("refs/heads/main", "m1"), "tag": r.pushed("refs/tags/v1", "t1"),
		"staging": r.keeper(r.built(mergedInto(5, "main", "d1"))), "production": r.keeper(r.built(mergedInto(6, "production", "d2"))),
	}
	merged := []string{"main", "tag"}
	finds = map[string][]string{"staging": nil, "production": nil}
	for name := range all {
		if _, deploys := finds[name]; !deploys {
			finds[name] = merged
		}
	}
	return r, all, finds
}

// What a build has saved is found by its own kind and, where it was merged, by those
// that are built upon it; by nobody else, whether it is asked for by its key or by a
// beginning of it.
func TestCachesGoAlongNoOtherArrow(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		_, all, finds := everybody(r)
		names := slices.Sorted(maps.Keys(all))
		bytesOf := map[string][]byte{}
		for n, writer := range names {
			bytesOf[writer] = noise(byte(n+1), 1000)
			if _, err := all[writer].saves("of "+writer, bytesOf[writer]); err != nil {
				t.Fatalf("%s: %v", writer, err)
			}
		}
		for _, reader := range names {
			for _, writer := range names {
				may := reader == writer || slices.Contains(finds[reader], writer)
				for how, ask := range map[string]func() (string, []byte, error){
					"key":    func() (string, []byte, error) { return all[reader].restores("of " + writer) },
					"prefix": func() (string, []byte, error) { return all[reader].restores("none", "of "+writer[:len(writer)-1]) },
				} {
					found, got, err := ask()
					switch {
					case may && how == "key" && (err != nil || found != "of "+writer || !bytes.Equal(got, bytesOf[writer])):
						t.Errorf("%s gets %q by the key of what %s has saved, error %v", reader, found, writer, err)
					case !may && how == "key" && status.Code(err) != codes.NotFound:
						t.Errorf("%s gets %q, which %s has saved, error %v", reader, found, writer, err)
					case how == "prefix" && err == nil && !slices.Contains(append(finds[reader], reader), strings.TrimPrefix(found, "of ")):
						t.Errorf("%s gets %q by a beginning of what %s has saved", reader, found, writer)
					}
				}
			}
		}
	})
}

// All save under one key: each finds what it has saved itself, as if the others were
// not there, whoever comes first.
func TestSameKeyIsAnotherCacheToEachTier(t *testing.T) {
	eachStopped(t, func(t *testing.T, of *rig) {
		r, all, _ := everybody(of)
		names := slices.Sorted(maps.Keys(all)) // main and tag come in the middle
		wrote, merged := map[string]byte{}, byte(0)
		for n, name := range names {
			_, err := all[name].saves("same", noise(byte(n+1), 1000))
			switch shared := slices.Contains([]string{"main", "tag"}, name); {
			case shared && merged != 0:
				wantCode(t, err, codes.AlreadyExists)
				wrote[name] = merged
			case err != nil:
				t.Fatalf("%s: %v", name, err)
			case shared:
				merged = byte(n + 1)
				fallthrough
			default:
				wrote[name] = byte(n + 1)
			}
		}
		for _, name := range names {
			if _, got, err := all[name].restores("same"); err != nil || !bytes.Equal(got, noise(wrote[name], 1000)) {
				t.Errorf("%s does not find what it has saved: %d bytes, error %v", name, len(got), err)
			}
		}
		for n, late := range []*keeper{r.forked(11, "f11"), r.pulled(12, "p12"), r.pushed("refs/heads/late", "b3")} {
			if _, got, err := late.restores("same"); err != nil || !bytes.Equal(got, noise(merged, 1000)) {
				t.Errorf("newcomer %d gets %d bytes that main has not saved, error %v", n, len(got), err)
			}
		}
	})
}
