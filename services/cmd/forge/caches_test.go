package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/settings"
)

// cacher is a Forge that has caches.
type cacher struct {
	schedulerv1.UnimplementedCacheServiceServer
	deleted []string
}

func (c *cacher) ListCaches(_ context.Context, req *schedulerv1.ListCachesRequest) (*schedulerv1.ListCachesResponse, error) {
	at := timestamppb.New(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	one := &schedulerv1.Cache{Repository: "acme/shop", Key: "go-1", Scope: "merged", Size: 3 << 30, Files: 20_000, CreateTime: at, UseTime: at}
	if req.GetPageToken() == "" {
		return &schedulerv1.ListCachesResponse{NextPageToken: "more", Caches: []*schedulerv1.Cache{one}, StoredBytes: 1 << 30}, nil
	}
	return &schedulerv1.ListCachesResponse{StoredBytes: 1 << 30, Caches: []*schedulerv1.Cache{{Repository: "acme/shop", Key: "go-2", Scope: "pull/7", CreateTime: at, UseTime: at}}}, nil
}

func (c *cacher) DeleteCaches(_ context.Context, req *schedulerv1.DeleteCachesRequest) (*schedulerv1.DeleteCachesResponse, error) {
	c.deleted = append(c.deleted, req.GetRepository()+" "+req.GetKeyPrefix()+" "+req.GetScope())
	return &schedulerv1.DeleteCachesResponse{Count: int32(len(c.deleted))}, nil
}

func (c *cacher) serve(t *testing.T) remote {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "cacher", AdminToken: "admin", Access: map[string]rpc.Access{
		schedulerv1.CacheService_ListCaches_FullMethodName:   {},
		schedulerv1.CacheService_DeleteCaches_FullMethodName: {},
	}})
	schedulerv1.RegisterCacheServiceServer(server, c)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return remote{Common: settings.Common{AdminToken: "admin"}, GRPC: settings.GRPC{GRPCAddress: lis.Addr().String()}}
}

func TestCachesAreListedAndDeleted(t *testing.T) {
	c := &cacher{}
	forge := c.serve(t)
	var out strings.Builder
	all, err := listCaches{query: query{remote: forge}, Repo: "acme/shop", Limit: 50}.fetch()
	if err != nil {
		t.Fatal(err)
	}
	printCaches(&out, "acme/shop", all)
	printCaches(&out, "", &schedulerv1.ListCachesResponse{})
	for _, d := range []deleteCaches{
		{remote: forge, Repo: "acme/shop", KeyPrefix: "go-"},
		{remote: forge, Repo: "acme/shop", Scope: "pull/7"},
		{remote: forge, Repo: "acme/shop", All: true},
	} {
		if err := d.delete(&out); err != nil {
			t.Error(err)
		}
	}
	const want = `REPOSITORY  KEY   SCOPE   FILES  SIZE     SAVED                USED
acme/shop   go-1  merged  20000  3.0 GiB  2026-11-25 12:00:00  2026-11-25 12:00:00
acme/shop   go-2  pull/7  0      0 B      2026-11-25 12:00:00  2026-11-25 12:00:00
All caches of acme/shop take 1.0 GiB as they are stored.
no caches
1 cache of acme/shop deleted
2 caches of acme/shop deleted
3 caches of acme/shop deleted
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", &out, want)
	}
	if got := fmt.Sprintf("%q", c.deleted); got != `["acme/shop go- " "acme/shop  pull/7" "acme/shop  "]` {
		t.Errorf("deleted %s", got)
	}
	if one, err := (listCaches{query: query{remote: forge}, Limit: 1}).fetch(); err != nil || len(one.GetCaches()) != 1 || one.GetNextPageToken() != "more" {
		t.Errorf("one alone: %v, %v", one, err)
	}
	for want, d := range map[string]deleteCaches{
		"or say --all":            {remote: forge, Repo: "acme/shop"},
		"--all is of every key":   {remote: forge, Repo: "acme/shop", KeyPrefix: "go-", All: true},
		"set FORGE_ADMIN_TOKEN":   {remote: remote{Common: settings.Common{DataDir: t.TempDir() + "/none"}, GRPC: forge.GRPC}, Repo: "acme/shop", All: true},
		"the admin token is wron": {remote: remote{Common: settings.Common{AdminToken: "other"}, GRPC: forge.GRPC}, Repo: "acme/shop", All: true},
	} {
		if err := d.delete(&out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if len(c.deleted) != 3 {
		t.Errorf("what was refused is deleted: %q", c.deleted)
	}
}
