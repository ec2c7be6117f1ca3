package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func (s *failoverService) Failover(ctx context.Context, request *umbrav1.FailoverRequest) (*umbrav1.FailoverResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	event := func(r drpair.Request, point string) drpair.Event {
		return drpair.Failover{Request: r, Point: point, Force: request.GetForce()}
	}
	if request.GetValidateOnly() {
		plan, err := s.plan(ctx, id, request)
		if err != nil {
			return nil, err
		}
		return &umbrav1.FailoverResponse{Plan: plan}, nil
	}
	operation, err := s.boot(ctx, id, request, event)
	if err != nil {
		return nil, err
	}
	return &umbrav1.FailoverResponse{Operation: operation}, nil
}

func (s *failoverService) ChangeRecoveryPoint(ctx context.Context, request *umbrav1.ChangeRecoveryPointRequest) (*umbrav1.ChangeRecoveryPointResponse, error) {
	id, err := parseName("name", pairPrefix, request.GetName())
	if err != nil {
		return nil, err
	}
	operation, err := s.boot(ctx, id, request, func(r drpair.Request, point string) drpair.Event {
		return drpair.ChangeRecoveryPoint{Request: r, Point: point, Force: request.GetForce()}
	})
	if err != nil {
		return nil, err
	}
	return &umbrav1.ChangeRecoveryPointResponse{Operation: operation}, nil
}

// bootRequest is what the two requests have in common that boot the shadow server from a point.
type bootRequest interface {
	mutation
	GetRecoveryPoint() string
	GetForce() bool
	GetEtag() string
}

// boot answers a request to boot the shadow server from a point. A repeated request is found before anything is
// checked, since its first one has moved the state on. The state is checked before the shadow host is asked for its
// points, and once more when the request is stored.
func (s *failoverService) boot(ctx context.Context, id string, request bootRequest, event func(drpair.Request, string) drpair.Event) (*umbrav1.Operation, error) {
	wanted, err := wantedPoint(id, request)
	if err != nil {
		return nil, err
	}
	return s.operate(ctx, request, func(key store.RequestKey) (*umbrav1.Operation, error) {
		p, err := s.allowed(ctx, id, request.GetEtag(), event(drpair.Request{}, wanted))
		if err != nil {
			return nil, err
		}
		points, err := s.points(ctx, p)
		if err != nil {
			return nil, err
		}
		point, err := pick(p, points, wanted)
		if err != nil {
			return nil, err
		}
		if point.GetDamaged() && !request.GetForce() {
			return nil, damaged(point)
		}
		return s.start(ctx, id, request.GetEtag(), key, func(r drpair.Request) drpair.Event { return event(r, idOf(point)) })
	})
}

func wantedPoint(pair string, request bootRequest) (string, error) {
	if request.GetRecoveryPoint() == "" {
		return "", nil
	}
	return parsePoint("recovery_point", pair, request.GetRecoveryPoint())
}

// allowed asks the state machine whether it would take the event now, and returns the pair as it is.
func (d *Deps) allowed(ctx context.Context, id, etag string, event drpair.Event) (drpair.Pair, error) {
	entry, err := d.storedPair(ctx, id, etag)
	if err != nil {
		return drpair.Pair{}, err
	}
	_, err = drpair.Apply(entry.Record, event, d.Clock.Now())
	return entry.Record.Pair, pairError(id, err)
}

// plan says what the failover would do now, and what stands in its way.
func (s *failoverService) plan(ctx context.Context, id string, request *umbrav1.FailoverRequest) (*umbrav1.FailoverPlan, error) {
	wanted, err := wantedPoint(id, request)
	if err != nil {
		return nil, err
	}
	p, err := s.allowed(ctx, id, request.GetEtag(), drpair.Failover{Point: wanted, Force: request.GetForce()})
	if err != nil {
		return nil, err
	}
	plan := &umbrav1.FailoverPlan{}
	for _, kind := range drpair.FailoverSteps {
		plan.Steps = append(plan.Steps, stepKind(kind))
	}
	points, err := s.points(ctx, p)
	if status.Code(err) == codes.Unavailable {
		plan.Blockers = append(plan.Blockers, s.blocker(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE,
			status.Convert(err).Message(), "Bring the shadow host, its hostd or the network back."))
		return plan, nil
	}
	if err != nil {
		return nil, err
	}
	if plan.RecoveryPoint, err = pick(p, points, wanted); err != nil {
		return nil, err
	}
	if plan.RecoveryPoint.GetDamaged() && !request.GetForce() {
		plan.Blockers = append(plan.Blockers, s.blocker(codes.FailedPrecondition, umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED,
			"Stored data of the recovery point is known to be damaged.", "Take another recovery point.", "Set force to boot it nevertheless."))
	}
	if fact := ready(p, seenOf(p, s.Observed)); fact.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_FALSE {
		reason := enum[umbrav1.ErrorReason](umbrav1.ErrorReason_value, reasonPrefix, fact.GetReason())
		plan.Blockers = append(plan.Blockers, s.blocker(codes.FailedPrecondition, reason, fact.GetMessage()))
	}
	return plan, nil
}

// blocker is something at the shadow host that stands in the way of a failover.
func (d *Deps) blocker(code codes.Code, reason umbrav1.ErrorReason, message string, actions ...string) *umbrav1.Failure {
	return &umbrav1.Failure{
		Code: int32(code), Reason: reason, Side: umbrav1.Side_SIDE_SHADOW, Message: message,
		RecommendedActions: actions, OccurTime: timestamp(d.Clock.Now()),
	}
}
