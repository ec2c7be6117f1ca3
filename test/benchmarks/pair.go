package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/test/landscape"
)

// idleInterval keeps a pair from making points by itself, once it has one.
const idleInterval = 24 * time.Hour

// protect makes a pair for the server, of the same name, which makes a point at every interval and keeps them all.
func (s *site) protect(ctx context.Context, name string, interval time.Duration) error {
	return s.protectBy(ctx, name, policy(interval))
}

// protectBy makes a pair for the server, of the same name. Without a policy it has the product's default.
func (s *site) protectBy(ctx context.Context, name string, policy *umbrav1.Policy) error {
	_, err := s.Protection.CreateDRPair(ctx, &umbrav1.CreateDRPairRequest{DrPairId: name, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/" + landscape.MainHost, Server: name},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/" + landscape.ShadowHost},
		Policy: policy,
	}})
	if err != nil {
		return fmt.Errorf("protect server %s: %w", name, err)
	}
	return nil
}

func policy(interval time.Duration) *umbrav1.Policy {
	return &umbrav1.Policy{
		Interval:  durationpb.New(interval),
		Retention: &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{{MaxAge: durationpb.New(10 * idleInterval)}}},
	}
}

// waitPoints waits until the pair has so many points.
func (s *site) waitPoints(ctx context.Context, pair string, count int64) error {
	_, err := s.WaitPair(ctx, pair, func(p *umbrav1.DRPair) bool { return p.GetReplication().GetRecoveryPointCount() >= count })
	return err
}

// succeed waits for the end of an operation that must succeed.
func (s *site) succeed(ctx context.Context, op *umbrav1.Operation) error {
	ended, err := s.WaitOperation(ctx, op.GetName())
	if err != nil {
		return err
	}
	if ended.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		return fmt.Errorf("%s has ended as %v", ended.GetName(), ended)
	}
	return nil
}

func pairName(id string) string { return "drPairs/" + id }
