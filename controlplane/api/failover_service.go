package api

import (
	"context"
	"errors"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// failoverService implements umbrav1.FailoverServiceServer. Its longer methods are in files of their own.
type failoverService struct {
	umbrav1.UnimplementedFailoverServiceServer
	Deps
}

func (s *failoverService) ListDRPairs(_ context.Context, request *umbrav1.ListDRPairsRequest) (*umbrav1.ListDRPairsResponse, error) {
	terms, err := parseFilter(request.GetFilter())
	if err != nil {
		return nil, err
	}
	list := listID("ListDRPairs", request.GetFilter())
	after, err := afterPage(list, request.GetPageToken())
	if err != nil {
		return nil, err
	}
	response := &umbrav1.ListDRPairsResponse{}
	size, last := pageSize(request.GetPageSize()), ""
	for entry := range s.Cache.After(after) {
		if !matches(terms, entry.Record.Pair) {
			continue
		}
		if len(response.DrPairs) == size {
			response.NextPageToken = nextPage(list, last)
			break
		}
		last = entry.Record.Pair.ID
		response.DrPairs = append(response.DrPairs, s.pair(entry.Record))
	}
	return response, nil
}

func (s *failoverService) GetDRPair(ctx context.Context, request *umbrav1.GetDRPairRequest) (*umbrav1.GetDRPairResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	entry, err := s.storedPair(ctx, id, "")
	if err != nil {
		return nil, err
	}
	return &umbrav1.GetDRPairResponse{DrPair: s.pair(entry.Record)}, nil
}

func (s *failoverService) CommitFailover(ctx context.Context, request *umbrav1.CommitFailoverRequest) (*umbrav1.CommitFailoverResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	operation, err := s.operate(ctx, request, func(key store.RequestKey) (*umbrav1.Operation, error) {
		return s.start(ctx, id, request.GetEtag(), key, func(r drpair.Request) drpair.Event {
			return drpair.CommitFailover{Request: r, DeletePoints: request.GetDeleteRecoveryPoints()}
		})
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.CommitFailoverResponse{Operation: operation}, nil
}

func (s *failoverService) RestartReplication(ctx context.Context, request *umbrav1.RestartReplicationRequest) (*umbrav1.RestartReplicationResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	operation, err := s.operate(ctx, request, func(key store.RequestKey) (*umbrav1.Operation, error) {
		return s.start(ctx, id, request.GetEtag(), key, func(r drpair.Request) drpair.Event {
			return drpair.RestartReplication{Request: r, DeletePoints: request.GetDeleteRecoveryPoints()}
		})
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.RestartReplicationResponse{Operation: operation}, nil
}

func (s *failoverService) GetOperation(ctx context.Context, request *umbrav1.GetOperationRequest) (*umbrav1.GetOperationResponse, error) {
	operation, err := s.storedOperation(ctx, request.GetName())
	if err != nil {
		return nil, err
	}
	return &umbrav1.GetOperationResponse{Operation: s.liveOperation(operation)}, nil
}

// storedOperation reads the operation that a request names.
func (s *failoverService) storedOperation(ctx context.Context, name string) (drpair.Operation, error) {
	id, err := parseName("name", operationPrefix, name)
	if err != nil {
		return drpair.Operation{}, err
	}
	operation, err := s.Store.Operation(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		err = notFound(typeOperation, name)
	}
	return operation, err
}

func (s *failoverService) ListOperations(ctx context.Context, request *umbrav1.ListOperationsRequest) (*umbrav1.ListOperationsResponse, error) {
	var pair string
	if request.GetDrPair() != "" {
		var err error
		if pair, err = parseName("dr_pair", pairPrefix, request.GetDrPair()); err != nil {
			return nil, err
		}
	}
	list := listID("ListOperations", pair)
	after, err := afterPage(list, request.GetPageToken())
	if err != nil {
		return nil, err
	}
	page, next, err := s.Store.Operations(ctx, pair, pageSize(request.GetPageSize()), after)
	if errors.Is(err, store.ErrBadToken) {
		return nil, invalid("page_token", "is not a next_page_token of this list")
	}
	if err != nil {
		return nil, err
	}
	if pair != "" && len(page) == 0 && after == "" { // the operations of a pair outlive it
		if _, err := s.storedPair(ctx, pair, ""); err != nil {
			return nil, err
		}
	}
	response := &umbrav1.ListOperationsResponse{}
	for _, operation := range page {
		response.Operations = append(response.Operations, s.liveOperation(operation))
	}
	if next != "" {
		response.NextPageToken = nextPage(list, next)
	}
	return response, nil
}
