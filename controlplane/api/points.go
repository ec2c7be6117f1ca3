package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/refusal"
	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// pointsTimeout is how long a host may take to list the recovery points of a pair.
const pointsTimeout = 10 * time.Second

func (s *failoverService) ListRecoveryPoints(ctx context.Context, request *umbrav1.ListRecoveryPointsRequest) (*umbrav1.ListRecoveryPointsResponse, error) {
	id, err := parseName("parent", pairPrefix, request.GetParent())
	if err != nil {
		return nil, err
	}
	list := listID("ListRecoveryPoints", id)
	after, err := afterPage(list, request.GetPageToken())
	if err != nil {
		return nil, err
	}
	entry, err := s.storedPair(ctx, id, "")
	if err != nil {
		return nil, err
	}
	points, err := s.points(ctx, entry.Record.Pair)
	if err != nil {
		return nil, err
	}
	if after != "" {
		begin := slices.IndexFunc(points, func(point *umbrav1.RecoveryPoint) bool { return position(point) < after })
		if begin < 0 {
			begin = len(points)
		}
		points = points[begin:]
	}
	response := &umbrav1.ListRecoveryPointsResponse{RecoveryPoints: points}
	if size := pageSize(request.GetPageSize()); len(points) > size {
		response.RecoveryPoints = points[:size]
		response.NextPageToken = nextPage(list, position(points[size-1]))
	}
	return response, nil
}

// points asks the shadow host for the pair's recovery points, newest first.
func (d *Deps) points(ctx context.Context, p drpair.Pair) ([]*umbrav1.RecoveryPoint, error) {
	asking, cancel := context.WithTimeout(ctx, pointsTimeout)
	defer cancel()
	points, err := d.Hosts.RecoveryPoints(asking, p.Shadow.Host, p.ID)
	switch {
	case status.Code(err) == codes.NotFound:
		points = nil // the host has not begun with the pair yet, or is through with it
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, session.ErrNotConnected):
		return nil, shadowUnreachable(p, "is not connected to the control plane")
	case errors.Is(err, session.ErrElsewhere):
		return nil, shadowUnreachable(p, "cannot be asked now, try again: "+session.ErrElsewhere.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return nil, shadowUnreachable(p, fmt.Sprintf("did not answer within %v", pointsTimeout))
	case err != nil:
		return nil, internal(fmt.Errorf("%s could not list the recovery points of %s: %w", hostName(p.Shadow.Host), pairName(p.ID), err))
	}
	newestFirst := func(a, b *umbrav1.RecoveryPoint) int { return cmp.Compare(position(b), position(a)) }
	return slices.SortedFunc(slices.Values(points), newestFirst), nil
}

// position is where a point is among the points of its pair. Names are given in the order in which points are made; their times
// may say otherwise when the main host's clock was set. Positions sort as strings.
func position(point *umbrav1.RecoveryPoint) string { return point.GetName() }

func shadowUnreachable(p drpair.Pair, what string) error {
	host := hostName(p.Shadow.Host)
	return refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE,
		refusal.Metadata{"host": host, "dr_pair": pairName(p.ID)}, "the shadow host "+host+" "+what)
}

// pick finds the point with that id among the pair's points; with no id the newest that is not damaged, or the newest
// of all if every one is damaged.
func pick(p drpair.Pair, points []*umbrav1.RecoveryPoint, id string) (*umbrav1.RecoveryPoint, error) {
	if id != "" {
		for _, point := range points {
			if point.GetName() == pointName(p.ID, id) {
				return point, nil
			}
		}
		return nil, notFound(typePoint, pointName(p.ID, id))
	}
	for _, point := range points {
		if !point.GetDamaged() {
			return point, nil
		}
	}
	if len(points) == 0 {
		return nil, precondition(umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, pairName(p.ID),
			refusal.Metadata{"dr_pair": pairName(p.ID), "state": string(p.State)}, pairName(p.ID)+" has no complete recovery point")
	}
	return points[0], nil
}

// idOf is the id of a point that a host has named.
func idOf(point *umbrav1.RecoveryPoint) string {
	_, id, _ := strings.Cut(point.GetName(), pointInfix)
	return id
}

func damaged(point *umbrav1.RecoveryPoint) error {
	return precondition(umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED, point.GetName(),
		refusal.Metadata{"recovery_point": point.GetName()},
		point.GetName()+" is known to be damaged: take another recovery point, or set force",
		resourceInfo(typePoint, point.GetName(), "Stored data of it is damaged."))
}
