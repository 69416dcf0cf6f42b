package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// maxDifference bounds what is unpacked of one, in bytes: config takes 16 MiB at most.
const maxDifference = 32 << 20

// IsRemote reports whether this is a run of somebody's working tree, or a job of one.
// Nobody but who looks at it hears of it.
func (b *Build) IsRemote() bool { return b.GetRemoteBy() != "" }

// AddDifference stores what a remote run was asked for.
func AddDifference(ctx context.Context, t *Tx, buildID string, asked *schedulerv1.CreateRemoteBuildRequest) error {
	text, err := proto.Marshal(asked)
	if err != nil {
		return err
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO differences (build_id, request) VALUES ($1, $2)`, buildID, encoder.EncodeAll(text, nil))
}

// ReadDifference reads what a remote run was asked for. A job's is that of its build.
func ReadDifference(ctx context.Context, q sqldb.Querier, buildID string) (*schedulerv1.CreateRemoteBuildRequest, error) {
	var packed []byte
	err := q.QueryRowContext(ctx, `SELECT request FROM differences WHERE build_id = $1`, WholeID(buildID)).Scan(&packed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "what build %s was run of is not kept any more", WholeID(buildID))
	}
	if err != nil {
		return nil, fmt.Errorf("difference of build %s: %w", buildID, sqldb.Kind(err))
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDifference))
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	text, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("difference of build %s: %w", buildID, err)
	}
	asked := &schedulerv1.CreateRemoteBuildRequest{}
	return asked, proto.Unmarshal(text, asked)
}
