package scheduler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/content"
)

// beginCache begins a save of a cache.
func beginCache(key string, size, chunks int64) *schedulerv1.PutContentRequest_Begin {
	return &schedulerv1.PutContentRequest_Begin{
		RunnerId: "runner-1", Size: size, Chunks: chunks, Content: &schedulerv1.PutContentRequest_Begin_Cache{Cache: cacheKey(key)},
	}
}

func listedAs(data []byte, size int32) *schedulerv1.Chunk {
	digest := sha256.Sum256(data)
	return &schedulerv1.Chunk{Digest: digest[:], Size: size}
}

// Whoever says less than they bring fills the disk with no limit: neither a chunk nor
// the list of files has more than was said.
func TestNobodyBringsMoreThanTheySay(t *testing.T) {
	r := sqliteRig(t)
	r.deps.Contents = content.Limits{Cache: 1 << 20}
	k := startKeeping(r).pulled(1, "aaa")
	large := noise(1, chunks.Most)

	_, err := k.send(beginCache("small chunk", 1, 1), &schedulerv1.Manifest{Chunks: []*schedulerv1.Chunk{listedAs(large, 1)}}, [][]byte{large})
	wantCode(t, err, codes.InvalidArgument)

	all, cut := &schedulerv1.Manifest{}, [][]byte{}
	for n := range byte(8) {
		piece := noise(n, chunks.Most)
		all.Chunks, cut = append(all.Chunks, listedAs(piece, chunks.Most)), append(cut, piece)
	}
	all.IndexChunks = int32(len(cut))
	_, err = k.send(beginCache("large index", 0, int64(len(cut))), all, cut)
	wantCode(t, err, codes.ResourceExhausted)
	if n := r.count(`SELECT count(*) FROM contents`); n > 0 {
		t.Errorf("%d contents are kept", n)
	}
}

// What is not committed goes at once: it counts for no limit.
func TestSaveThatIsBrokenOffLeavesNothing(t *testing.T) {
	eachStopped(t, func(t *testing.T, of *rig) {
		r := startKeeping(of)
		k := r.pulled(1, "aaa")
		for range 3 {
			if err := k.breaksOff("broken off"); err != nil {
				t.Fatal(err)
			}
		}
		kittest.Eventually(t, patience, func() error {
			if files, rows := r.contentFiles(), r.count(`SELECT count(*) FROM packs`); len(files)+rows > 0 {
				return fmt.Errorf("%q and %d rows are left", files, rows)
			}
			return nil
		})
	})
}

// A build that opens saves and says nothing keeps nobody else from saving.
func TestOneBuildCannotTakeAllPlaces(t *testing.T) {
	r := startKeeping(sqliteRig(t))
	hoarder, main := r.pulled(1, "aaa"), r.pushed("refs/heads/main", "bbb")
	ctx, leave := context.WithCancel(withToken(hoarder))
	defer leave()
	refused := 0
	for n := range 20 {
		stream, err := hoarder.runners.PutContent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		begin := &schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Begin_{Begin: beginCache(strings.Repeat("k", n+1), 0, 0)}}
		if err := stream.Send(begin); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil { // else it is the list of what is lacking, and the place is taken
			wantCode(t, err, codes.Unavailable)
			refused++
		}
	}
	if refused < 18 {
		t.Errorf("%d of 20 saves at once were refused", refused)
	}
	if _, err := main.saves("key", noise(1, 1000)); err != nil {
		t.Errorf("main could not save: %v", err)
	}
}

// A build that has ended, or was replaced by another attempt, commits nothing that it
// began before.
func TestSaveOfAnAttemptThatEndedIsNotCommitted(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		k := startKeeping(r).pushed("refs/heads/main", "aaa")
		stream, err := k.runners.PutContent(withToken(k))
		if err != nil {
			t.Fatal(err)
		}
		data := []byte("late")
		for _, message := range []*schedulerv1.PutContentRequest{
			{Message: &schedulerv1.PutContentRequest_Begin_{Begin: beginCache("key", 4, 1)}},
			{Message: &schedulerv1.PutContentRequest_Manifest{Manifest: &schedulerv1.Manifest{Chunks: []*schedulerv1.Chunk{listedAs(data, 4)}}}},
		} {
			if err := stream.Send(message); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		u := r.reattach(k.token)
		u.send(passing(2)...)
		if err := u.refused(); err != nil {
			t.Fatal(err)
		}
		packer, err := chunks.NewPacker()
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range []*schedulerv1.PutContentRequest{
			{Message: &schedulerv1.PutContentRequest_Data{Data: packer.Pack(nil, data)}},
			{Message: &schedulerv1.PutContentRequest_Commit_{Commit: &schedulerv1.PutContentRequest_Commit{}}},
		} {
			if err := stream.Send(message); err != nil {
				t.Fatal(err)
			}
		}
		_, err = stream.Recv()
		wantCode(t, err, codes.FailedPrecondition)
		if n := r.count(`SELECT count(*) FROM contents`); n > 0 {
			t.Error("it is kept all the same")
		}
	})
}

// Whoever can write to the bucket, and not to the database, cannot hand main what a
// fork has saved: neither its manifest nor its chunks in place of main's.
func TestWhatAForkSavedStandsForNothingElseInTheBucket(t *testing.T) {
	for name, size := range map[string]func(size int64) bool{
		"manifest": func(size int64) bool { return size < 1000 },
		"chunks":   func(size int64) bool { return size >= 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			r := startKeeping(sqliteRig(t))
			main, fork := r.pushed("refs/heads/main", "aaa"), r.forked(1, "bbb")
			if _, err := main.saves("key", noise(1, 5000)); err != nil {
				t.Fatal(err)
			}
			of := map[string]bool{} // main's blobs
			for _, file := range r.contentFiles() {
				of[file] = true
			}
			if _, err := fork.saves("key", noise(2, 5000)); err != nil {
				t.Fatal(err)
			}
			var evil []byte
			for _, file := range r.contentFiles() {
				if data, err := os.ReadFile(file); err != nil {
					t.Fatal(err)
				} else if !of[file] && size(int64(len(data))) {
					evil = data
				}
			}
			for file := range of {
				info, err := os.Stat(file)
				wantNil(t, err)
				if size(info.Size()) {
					wantNil(t, os.WriteFile(file, evil, 0o600))
				}
			}
			if _, got, err := main.restores("key"); err == nil || len(got) > 0 {
				t.Errorf("main has got %d bytes, error %v", len(got), err)
			}
			request := &schedulerv1.GetContentRequest{Verify: true, Content: &schedulerv1.GetContentRequest_Cache{Cache: cacheKey("key")}}
			_, _, err := main.get(request)
			wantCode(t, err, codes.NotFound)
			if _, got, err := fork.restores("key"); err != nil || !bytes.Equal(got, noise(2, 5000)) {
				t.Errorf("the fork has lost its own: %d bytes, error %v", len(got), err)
			}
		})
	}
}

// A fork that lies about chunks which main has cannot have main's blobs taken for
// broken: main goes on to share them.
func TestLieAboutSharedChunksHarmsTheLiarAlone(t *testing.T) {
	r := startKeeping(sqliteRig(t))
	main, fork := r.pushed("refs/heads/main", "aaa"), r.forked(1, "bbb")
	data := noise(1, 20_000) // one chunk
	if _, err := main.saves("key", data); err != nil {
		t.Fatal(err)
	}
	_, err := fork.send(beginCache("lie", 7, 1), &schedulerv1.Manifest{Chunks: []*schedulerv1.Chunk{listedAs(data, 7)}}, [][]byte{data[:7]})
	if err == nil {
		_, _, _ = fork.get(&schedulerv1.GetContentRequest{Verify: true, Content: &schedulerv1.GetContentRequest_Cache{Cache: cacheKey("lie")}})
	}
	if n := r.count(`SELECT count(*) FROM packs WHERE broken`); n > 0 {
		t.Logf("%d packs are taken for broken", n)
	}
	if sent, err := main.saves("again", data); err != nil || sent > 0 {
		t.Errorf("main had to send %d bytes that are there, error %v", sent, err)
	}
	if _, got, err := main.restores("key"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("main gets %d bytes, error %v", len(got), err)
	}
}

// Keys come from whoever holds the token.
func TestKeysThatAreNoneAreRefused(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		k := startKeeping(r).pulled(1, "aaa")
		for _, key := range []string{"", "a\x00b", "a\nb", "\x1b[2J", strings.Repeat("k", 513)} {
			_, err := k.saves(key, noise(1, 10))
			wantCode(t, err, codes.InvalidArgument)
			_, _, err = k.restores(key)
			wantCode(t, err, codes.InvalidArgument)
			if key != "" {
				_, _, err = k.restores("key", key)
				wantCode(t, err, codes.InvalidArgument)
			}
		}
	})
}

// An artifact is for the jobs of its build that need the one which left it.
func TestArtifactsGoToTheJobsThatNeedThemAlone(t *testing.T) {
	eachStopped(t, func(t *testing.T, of *rig) {
		leaves := func(j *configv1.Job) { j.Artifacts = []*configv1.Artifact{{Name: "dist", Paths: []string{"dist/**"}}} }
		r := startKeeping(of)
		for _, sha := range []string{"aaa", "bbb"} {
			r.config.set(sha, ofJobs(job("make", leaves), job("other", leaves), job("use", leaves, needs("make"))))
		}
		mine, fork := r.built(opened(1, "aaa")), r.built(fromFork("ada", opened(2, "bbb")))
		puts := func(k *keeper, name string) error {
			_, err := k.put(&schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Artifact{Artifact: name}}, []byte("made"))
			return err
		}
		maker := r.keeper(mine + "-1")
		wantCode(t, puts(maker, "other"), codes.InvalidArgument)
		wantNil(t, puts(maker, "dist"))
		gets := func(k *keeper, buildID string) error {
			_, _, err := k.get(&schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Artifact{
				Artifact: &schedulerv1.NeededArtifact{BuildId: buildID, Name: "dist"},
			}})
			return err
		}
		wantCode(t, gets(r.keeper(mine+"-2"), mine+"-1"), codes.NotFound) // it does not need it
		wantCode(t, gets(maker, mine+"-1"), codes.NotFound)
		u := r.reattach(maker.token)
		u.send(passing(1)...)
		if err := u.refused(); err != nil {
			t.Fatal(err)
		}
		user := r.keeper(mine + "-3")
		wantNil(t, gets(user, mine+"-1"))
		wantCode(t, gets(user, mine), codes.NotFound)
		wantCode(t, gets(user, fork+"-1"), codes.NotFound)
		wantNil(t, puts(r.keeper(fork+"-1"), "dist"))
		wantCode(t, gets(user, fork+"-1"), codes.NotFound)
		wantCode(t, gets(r.keeper(fork+"-2"), mine+"-1"), codes.NotFound)
	})
}
