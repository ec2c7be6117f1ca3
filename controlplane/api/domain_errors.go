package api

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/refusal"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// pairError makes the status for an error that a read or a request of a pair got.
func pairError(pair string, err error) error {
	name := pairName(pair)
	var refused *drpair.NotAllowedError
	var exists *store.ExistsError
	var protected *store.AlreadyProtectedError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return notFound(typePair, name)
	case errors.As(err, &refused):
		return notAllowed(pair, refused)
	case errors.Is(err, reconcile.ErrETag):
		return refusal.New(codes.Aborted, umbrav1.ErrorReason_ERROR_REASON_ETAG_MISMATCH, refusal.Metadata{"dr_pair": name},
			name+" has changed since it was read: read it again and decide again")
	case errors.As(err, &exists):
		return refusal.New(codes.AlreadyExists, umbrav1.ErrorReason_ERROR_REASON_ALREADY_EXISTS,
			refusal.Metadata{"dr_pair": pairName(exists.Pair)}, pairName(exists.Pair)+" exists already",
			resourceInfo(typePair, pairName(exists.Pair), "It exists already."))
	case errors.As(err, &protected):
		return alreadyProtected(protected.Pair)
	default:
		return leftOver(err)
	}
}

func alreadyProtected(pair string) error {
	return refusal.New(codes.AlreadyExists, umbrav1.ErrorReason_ERROR_REASON_ALREADY_PROTECTED,
		refusal.Metadata{"dr_pair": pairName(pair)}, "the server is protected already, by "+pairName(pair),
		resourceInfo(typePair, pairName(pair), "It protects this server."))
}

// notAllowed says what the pair's state is and what it allows.
func notAllowed(pair string, refused *drpair.NotAllowedError) error {
	allowed := make([]string, len(refused.Allowed))
	for i, action := range refused.Allowed {
		allowed[i] = string(action)
	}
	info := refusal.Metadata{
		"dr_pair": pairName(pair), "state": string(refused.State), "allowed_actions": strings.Join(allowed, ","),
		"action": string(refused.Action),
	}
	reason := umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED
	switch {
	case refused.NoPoint:
		reason = umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT
	case refused.Operation != "":
		reason = umbrav1.ErrorReason_ERROR_REASON_OPERATION_RUNNING
		info["operation"] = operationName(refused.Operation)
	}
	return precondition(reason, pairName(pair), info, pairName(pair)+": "+refused.Error())
}

// leftOver makes a status of an error that nobody has made one of: what belongs to no resource, and what should not
// happen.
func leftOver(err error) error {
	var reused *store.RequestReusedError
	var etcd rpctypes.EtcdError
	if full := refusal.StoreFull(err); full != nil {
		return full
	}
	switch {
	case hasInfo(err), status.Code(err) == codes.Unauthenticated, status.Code(err) == codes.PermissionDenied:
		return err
	case errors.As(err, &reused):
		return refusal.New(codes.InvalidArgument, umbrav1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, nil, reused.Error(),
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{
				Field: "request_id", Description: "It was used for another request.",
			}}})
	case errors.Is(err, store.ErrConflict):
		return refusal.New(codes.Aborted, umbrav1.ErrorReason_ERROR_REASON_ETAG_MISMATCH, nil,
			"others kept changing the same pair: try again")
	case errors.Is(err, context.Canceled), status.Code(err) == codes.Canceled:
		return status.Error(codes.Canceled, "the caller has gone")
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return refusal.New(codes.DeadlineExceeded, umbrav1.ErrorReason_ERROR_REASON_DEADLINE, nil,
			"the request was not done by its deadline")
	case status.Code(err) == codes.Unavailable, errors.As(err, &etcd) && etcd.Code() == codes.Unavailable:
		return refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil,
			"the control plane cannot reach its state now: "+err.Error())
	default:
		return internal(err)
	}
}

// hasInfo tells whether the error is a status that carries its ErrorInfo already.
func hasInfo(err error) bool {
	made, ok := status.FromError(err)
	if !ok {
		return false
	}
	for _, detail := range made.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == refusal.Domain {
			return true
		}
	}
	return false
}
