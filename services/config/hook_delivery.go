package config

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

const hookDeliveryPage = 100 // the most that GitHub allows

// ListHookDeliveries implements configv1.HookDeliveryServiceServer.
func (s *Service) ListHookDeliveries(ctx context.Context, req *configv1.ListHookDeliveriesRequest) (*configv1.ListHookDeliveriesResponse, error) {
	size := int(req.GetPageSize())
	if size < 0 {
		return nil, fault.Newf(fault.Invalid, "page_size is %d: expected 1 to %d, or 0 for that", size, hookDeliveryPage)
	}
	if size == 0 || size > hookDeliveryPage {
		size = hookDeliveryPage
	}
	page, resp, err := s.installations.app.ListHookDeliveries(ctx, &github.ListCursorOptions{PerPage: size, Cursor: req.GetPageToken()})
	if err != nil {
		return nil, fmt.Errorf("hook deliveries: %w", appFault(err))
	}
	response := &configv1.ListHookDeliveriesResponse{NextPageToken: resp.Cursor}
	for _, one := range page {
		response.Deliveries = append(response.Deliveries, &configv1.HookDelivery{
			Id: one.GetID(), DeliveryId: one.GetGUID(), Event: one.GetEvent(), Action: one.GetAction(),
			DeliverTime: timestamppb.New(one.GetDeliveredAt().Time), Redelivery: one.GetRedelivery(),
			StatusCode: int32(one.GetStatusCode()), Status: one.GetStatus(), //nolint:gosec // three digits
			InstallationId: one.GetInstallationID(), RepositoryId: one.GetRepositoryID(),
		})
	}
	return response, nil
}

// RedeliverHookDelivery implements configv1.HookDeliveryServiceServer.
func (s *Service) RedeliverHookDelivery(ctx context.Context, req *configv1.RedeliverHookDeliveryRequest) (*configv1.RedeliverHookDeliveryResponse, error) {
	if req.GetId() <= 0 {
		return nil, fault.Newf(fault.Invalid, "%d is not the id of an attempt", req.GetId())
	}
	_, _, err := s.installations.app.RedeliverHookDelivery(ctx, req.GetId())
	// GitHub answers 202, "agreed to", which go-github returns as an error.
	if _, accepted := errors.AsType[*github.AcceptedError](err); err != nil && !accepted {
		return nil, fmt.Errorf("hook delivery %d: %w", req.GetId(), appFault(err))
	}
	return &configv1.RedeliverHookDeliveryResponse{}, nil
}
