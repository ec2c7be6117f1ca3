package api

import (
	"context"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// protectionService implements umbrav1.ProtectionServiceServer. CreateDRPair and UpdateDRPair are in files of their
// own.
type protectionService struct {
	umbrav1.UnimplementedProtectionServiceServer
	Deps
}

func (s *protectionService) DeleteDRPair(ctx context.Context, request *umbrav1.DeleteDRPairRequest) (*umbrav1.DeleteDRPairResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	operation, err := s.operate(ctx, request, func(key store.RequestKey) (*umbrav1.Operation, error) {
		return s.start(ctx, id, request.GetEtag(), key, func(r drpair.Request) drpair.Event {
			return drpair.Delete{Request: r, Force: request.GetForce()}
		})
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.DeleteDRPairResponse{Operation: operation}, nil
}

func (s *protectionService) PauseReplication(ctx context.Context, request *umbrav1.PauseReplicationRequest) (*umbrav1.PauseReplicationResponse, error) {
	pair, err := s.switchTo(ctx, request, request.GetName(), request.GetEtag(), drpair.Pause{})
	if err != nil {
		return nil, err
	}
	return &umbrav1.PauseReplicationResponse{DrPair: pair}, nil
}

func (s *protectionService) ResumeReplication(ctx context.Context, request *umbrav1.ResumeReplicationRequest) (*umbrav1.ResumeReplicationResponse, error) {
	pair, err := s.switchTo(ctx, request, request.GetName(), request.GetEtag(), drpair.Resume{})
	if err != nil {
		return nil, err
	}
	return &umbrav1.ResumeReplicationResponse{DrPair: pair}, nil
}

// switchTo carries out a request that makes no operation, and returns the pair as it is then.
func (s *protectionService) switchTo(ctx context.Context, request mutation, name, etag string, event drpair.Event) (*umbrav1.DRPair, error) {
	id, err := parseName("name", pairPrefix, name)
	if err != nil {
		return nil, err
	}
	return s.alter(ctx, request, func(key store.RequestKey) (*umbrav1.DRPair, error) {
		record, err := s.Engine.Request(ctx, reconcile.Request{
			Pair: id, ETag: etag, Key: key, Event: func(string) drpair.Event { return event },
		})
		if err != nil {
			return nil, pairError(id, err)
		}
		return s.changed(record)
	})
}

// changed is the pair of a record that a request has led to. A repeated request may find it deleted.
func (d *Deps) changed(record drpair.Record) (*umbrav1.DRPair, error) {
	if record.Pair.UID == "" {
		return nil, notFound(typePair, pairName(record.Pair.ID))
	}
	return d.pair(record), nil
}
