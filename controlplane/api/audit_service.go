package api

import (
	"context"
	"errors"

	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type auditService struct {
	umbrav1.UnimplementedAuditServiceServer
	Deps
}

func (s *auditService) ListAuditEvents(ctx context.Context, request *umbrav1.ListAuditEventsRequest) (*umbrav1.ListAuditEventsResponse, error) {
	list := listID("ListAuditEvents")
	after, err := afterPage(list, request.GetPageToken())
	if err != nil {
		return nil, err
	}
	events, next, err := s.Store.AuditEvents(ctx, pageSize(request.GetPageSize()), after)
	if errors.Is(err, store.ErrBadToken) {
		return nil, invalid("page_token", "is not a next_page_token of this list")
	}
	if err != nil {
		return nil, err
	}
	response := &umbrav1.ListAuditEventsResponse{}
	if next != "" {
		response.NextPageToken = nextPage(list, next)
	}
	for _, event := range events {
		response.AuditEvents = append(response.AuditEvents, auditEvent(event))
	}
	return response, nil
}

func auditEvent(event store.AuditEvent) *umbrav1.AuditEvent {
	message := &umbrav1.AuditEvent{
		Id: event.ID, CallTime: timestamp(event.Time), Caller: event.Caller, Address: event.Address, Method: event.Method,
		Resource: event.Resource, RequestId: event.RequestID, RequestJson: string(event.Request),
		Reason: umbrav1.ErrorReason(umbrav1.ErrorReason_value[reasonPrefix+event.Reason]), ErrorMessage: event.Message,
		Operation: event.Operation, OmittedCount: event.Omitted,
	}
	if !event.EndTime.IsZero() {
		message.EndTime = timestamp(event.EndTime)
		message.Code = int32(event.Code)
	}
	return message
}
