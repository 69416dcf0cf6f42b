package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// benchService is a scheduler on a database of its own, with builds in its
// queue, spread over 50 repositories.
func benchService(b *testing.B, cfg sqldb.Config, queued int) *Service {
	b.Helper()
	cfg.Room, cfg.Migrations = "scheduler", Migrations()
	db, err := sqldb.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	containers := &memoryEngine{containers: map[string]engine.Container{}, specs: map[string]engine.Spec{}}
	s, err := New(Deps{DB: db, Blobs: blobsIn(b, b.TempDir()), Engine: containers, Capacity: 8, Policy: trigger.Policy{IntegrationBranches: []string{"main"}, Forks: trigger.ForkRun}, SecretsKeys: [][]byte{make([]byte, 32)}})
	if err != nil {
		b.Fatal(err)
	}
	err = s.store.Write(b.Context(), func(ctx context.Context, t *store.Tx) error {
		insert, err := t.PrepareContext(ctx, `INSERT INTO builds (id, repository_id, repository, pull_request, sha, action, state, priority,
				due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config)
			VALUES ($1, $2, 'acme/shop', $3, $1, 1, 1, 2, $4, 0, 0, 0, '', '', $5, $6)`)
		if err != nil {
			return err
		}
		defer insert.Close()
		config, err := proto.Marshal(usual())
		if err != nil {
			return err
		}
		for n := range queued {
			id := fmt.Sprintf("build%021d", n)
			seen, err := proto.Marshal(&schedulerv1.Build{
				Id: id, Repository: &eventv1.Repository{Id: int64(n % 5), Owner: "acme", Name: "shop"}, InstallationId: 3,
				Action: schedulerv1.Build_ACTION_TEST, Sha: id, Ref: "refs/pull/1/head", BaseRef: "main", PullRequest: int32(n),
				Title: "Add a till", Actor: "ada", State: schedulerv1.Build_STATE_QUEUED, Context: "forge/test", Image: "golang:1.26", StepCount: 2,
			})
			if err != nil {
				return err
			}
			if _, err := insert.ExecContext(ctx, id, n%5, n, sqldb.Micros(t.Now), seen, config); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// place takes one build from the queue, has the engine start it and stores that,
// and says how long it took. Its place is given back afterwards.
func (s *Service) place(b *testing.B) time.Duration {
	b.Helper()
	took, err := s.placeOne(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return took
}

func (s *Service) placeOne(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	claimed, err := s.attempts.ClaimStarts(ctx, 1)
	if err != nil || len(claimed) != 1 {
		return 0, fmt.Errorf("claimed %d: %w", len(claimed), err)
	}
	s.attempts.Start(ctx, claimed[0])
	took := time.Since(begin)
	return took, s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		placed, err := t.Build(ctx, claimed[0].Build.GetId())
		if err != nil {
			return err
		}
		return s.attempts.Finish(ctx, t, placed, schedulerv1.Build_STATE_PASSED, schedulerv1.Build_REASON_UNSPECIFIED, "")
	})
}

// commit makes one row durable and says how long it took.
func (s *Service) commit(b *testing.B, n int) time.Duration {
	b.Helper()
	begin := time.Now()
	err := s.store.Write(b.Context(), func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `INSERT INTO tokens (hash, build_id, attempt) VALUES ($1, 'none', 1)`, attempt.TokenHash(strconv.Itoa(n)))
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// A placement in durable commits of the same database: at most 3.
func BenchmarkPlace(b *testing.B) {
	s := benchService(b, sqldb.Config{Dir: b.TempDir()}, 20000)
	var placing, committing time.Duration
	for n := 0; b.Loop(); n++ {
		committing += s.commit(b, n)
		placing += s.place(b)
	}
	b.ReportMetric(float64(placing)/float64(committing), "commits/placement")
	b.ReportMetric(float64(committing.Microseconds())/float64(b.N), "µs/commit")
	b.ReportMetric(0, "ns/op")
}

// A placement with 100,000 builds queued, in placements with 1,000: at most 1.5.
func BenchmarkPlaceFromALongQueue(b *testing.B) {
	compare := func(b *testing.B, few, many *Service) {
		b.Helper()
		var short, long time.Duration
		for n := 0; n < 500 && b.Loop(); n++ {
			short += few.place(b)
			long += many.place(b)
		}
		b.ReportMetric(float64(long)/float64(short), "ratio")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("sqlite", func(b *testing.B) {
		compare(b, benchService(b, sqldb.Config{Dir: b.TempDir()}, 1000), benchService(b, sqldb.Config{Dir: b.TempDir()}, 100000))
	})
	b.Run("postgres", func(b *testing.B) {
		kittest.Require(b, "postgres")
		compare(b, benchService(b, sqldb.Config{URL: kittest.PostgresURL(b)}, 1000), benchService(b, sqldb.Config{URL: kittest.PostgresURL(b)}, 100000))
	})
}

// What three replicas place in a time, in what one does, in the middle: at least 0.9.
func BenchmarkPlaceByReplicas(b *testing.B) {
	const placements, workers = 120, 2
	kittest.Require(b, "postgres")
	cfg := sqldb.Config{URL: kittest.PostgresURL(b)}
	replicas := []*Service{benchService(b, cfg, 20000), benchService(b, cfg, 0), benchService(b, cfg, 0)}
	place := func(by []*Service) time.Duration {
		begin := time.Now()
		var all sync.WaitGroup
		for _, s := range by {
			for range workers {
				all.Go(func() {
					for range placements / workers / len(by) {
						if _, err := s.placeOne(b.Context()); err != nil {
							b.Error(err)
						}
					}
				})
			}
		}
		all.Wait()
		return time.Since(begin)
	}
	var rates, ratios []float64
	for n := 0; n < 60 && b.Loop(); n++ {
		one, three := place(replicas[:1]), place(replicas)
		rates = append(rates, placements/one.Seconds())
		ratios = append(ratios, float64(one)/float64(three))
	}
	slices.Sort(rates)
	slices.Sort(ratios)
	b.ReportMetric(rates[len(rates)/2], "placements/s-by-one")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(0, "ns/op")
}

// planningSiblings answer what planning asks of config.
type planningSiblings struct {
	configv1.BuildConfigServiceClient
	configv1.CommitServiceClient
	config *configv1.BuildConfig
}

func (p planningSiblings) GetBuildConfig(context.Context, *configv1.GetBuildConfigRequest, ...grpc.CallOption) (*configv1.GetBuildConfigResponse, error) {
	return valid(proto.CloneOf(p.config)), nil
}

func (planningSiblings) GetCommit(context.Context, *configv1.GetCommitRequest, ...grpc.CallOption) (*configv1.GetCommitResponse, error) {
	return &configv1.GetCommitResponse{Message: "Add a till"}, nil
}

// To plan a build of 100 jobs, all rows written, in plans of one job: at most 3, and
// under 50 ms. What reading the file takes is HundredJobs'.
func BenchmarkPlan(b *testing.B) {
	s := benchService(b, sqldb.Config{Dir: b.TempDir()}, 0)
	plan := func(n, jobs int) time.Duration {
		var all []*configv1.Job
		for j := range jobs {
			all = append(all, job(fmt.Sprintf("job-%d", j)))
		}
		siblings := planningSiblings{config: ofJobs(all...).GetConfig()}
		s.plan.Configs, s.plan.Commits = siblings, siblings
		begin := time.Now()
		d, err := s.plan.Decide(b.Context(), opened(int32(n), fmt.Sprintf("sha-%d-%d", n, jobs)))
		took := time.Since(begin)
		if err != nil || len(d.GetBuildIds()) != 1 {
			b.Fatal(d, err)
		}
		return took
	}
	var one, hundred time.Duration
	for n := 1; b.Loop(); n++ {
		one += plan(2*n, 1)
		hundred += plan(2*n+1, 100)
	}
	b.ReportMetric(float64(hundred.Microseconds())/1000/float64(b.N), "ms-for-100-jobs")
	b.ReportMetric(float64(hundred)/float64(one), "ratio")
	b.ReportMetric(0, "ns/op")
}
