package config

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
)

// ValidateBuildConfig implements configv1.BuildConfigServiceServer.
func (*Service) ValidateBuildConfig(_ context.Context, req *configv1.ValidateBuildConfigRequest) (*configv1.ValidateBuildConfigResponse, error) {
	config, problems := buildfile.Parse([]byte(req.GetContent()))
	if len(problems) == 0 {
		return &configv1.ValidateBuildConfigResponse{Outcome: &configv1.ValidateBuildConfigResponse_Config{Config: config}}, nil
	}
	return &configv1.ValidateBuildConfigResponse{
		Outcome: &configv1.ValidateBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{Problems: problems}},
		Text:    buildfile.Format(buildfile.Name, problems),
	}, nil
}

// GetSchema implements configv1.BuildConfigServiceServer.
func (*Service) GetSchema(context.Context, *configv1.GetSchemaRequest) (*configv1.GetSchemaResponse, error) {
	schema := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(buildfile.Schema), schema); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", buildfile.Name, err)
	}
	return &configv1.GetSchemaResponse{Schema: schema}, nil
}
