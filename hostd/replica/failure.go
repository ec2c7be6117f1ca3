package replica

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// refusal ends a stream with a reason that the main side is told.
type refusal struct{ failure *umbrav1.Failure }

func (e *refusal) Error() string { return "stream refused: " + e.failure.GetMessage() }

func newFailure(now time.Time, code codes.Code, reason umbrav1.ErrorReason, retryable bool, message string) *umbrav1.Failure {
	return &umbrav1.Failure{
		Code: int32(code), Reason: reason, Side: umbrav1.Side_SIDE_SHADOW, Message: message, Retryable: retryable,
		OccurTime: timestamppb.New(now),
	}
}

func epochOver(now time.Time, rec record) *umbrav1.Failure {
	f := newFailure(now, codes.FailedPrecondition, umbrav1.ErrorReason_ERROR_REASON_EPOCH_OVER, false,
		fmt.Sprintf("the shadow host is in epoch %d and refuses every epoch up to %d", rec.Epoch, rec.RefusedEpoch))
	f.PossibleCauses = []string{"A failover, or a Restart Replication, began a new epoch."}
	f.RecommendedActions = []string{"Wait for the control plane's next assignment; until then do not run the main server."}
	return f
}

func notHere(now time.Time, pair string) *umbrav1.Failure {
	f := newFailure(now, codes.NotFound, umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND, true,
		fmt.Sprintf("pair %s is not assigned to this shadow host", pair))
	f.PossibleCauses = []string{"The shadow host has not heard of the pair yet.", "The pair was deleted, or moved to another host."}
	return f
}

func notYet(now time.Time, message string) *umbrav1.Failure {
	f := newFailure(now, codes.FailedPrecondition, umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, true, message)
	f.PossibleCauses = []string{"One of the two hosts has not got its newest assignment yet."}
	return f
}

func wrongHost(now time.Time, peer, want string) *umbrav1.Failure {
	f := newFailure(now, codes.PermissionDenied, umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, false,
		fmt.Sprintf("host %q is not the main host of the pair, which is %q", peer, want))
	f.PossibleCauses = []string{"The pair's main host has changed.", "A host uses an assignment that is not its own."}
	return f
}

func noSpace(now time.Time, message string) *umbrav1.Failure {
	f := newFailure(now, codes.ResourceExhausted, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE, true, message)
	f.PossibleCauses = []string{
		"The file system of the shadow host's stores is full.", "The pair's limit on store bytes is reached.",
	}
	f.RecommendedActions = []string{
		"Make space on the shadow host, or raise the pair's limit on store bytes.",
		"Delete recovery points, or keep fewer: change the pair's retention.",
	}
	return f
}

func disksChanged(now time.Time, err error) *umbrav1.Failure {
	f := newFailure(now, codes.FailedPrecondition, umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED, false, err.Error())
	f.PossibleCauses = []string{"A disk of the main server was made smaller, or was replaced by another of the same name."}
	f.RecommendedActions = []string{"Protect the server anew; the points that exist stay usable until then."}
	return f
}

func internalFailure(now time.Time, err error) *umbrav1.Failure {
	f := newFailure(now, codes.Internal, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, true, err.Error())
	f.PossibleCauses = []string{"The file system of the shadow host's stores failed.", "The store's files were damaged."}
	f.RecommendedActions = []string{"Look at the shadow host's system log for disk errors.", "Contact support with a support bundle."}
	return f
}

// indexDamaged is for a store that can say nothing about its points any more.
func indexDamaged(now time.Time, err error) *umbrav1.Failure {
	f := newFailure(now, codes.DataLoss, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, false, err.Error())
	f.PossibleCauses = []string{"A disk of the shadow host, or its memory, altered the index of the pair's recovery points."}
	f.RecommendedActions = []string{
		"Look at the shadow host's system log, and replace the disk if it has errors. Other pairs are not affected.",
		"If the stores' file system has a snapshot, stop hostd, put back the whole folder of the pair from it, and start hostd.",
		"Otherwise the points are lost: delete the pair and protect the server anew.",
	}
	return f
}

func isStoreFailure(f *umbrav1.Failure) bool {
	return f.GetReason() == umbrav1.ErrorReason_ERROR_REASON_INTERNAL
}

func anyFailure(*umbrav1.Failure) bool { return true }

// storeFailure turns what the store said into what people are told.
func storeFailure(now time.Time, err error) *umbrav1.Failure {
	switch {
	case errors.Is(err, recoverystore.ErrNoSpace):
		return noSpace(now, err.Error())
	case errors.Is(err, recoverystore.ErrDiskSizeChanged):
		return disksChanged(now, err)
	case errors.Is(err, recoverystore.ErrCorruptIndex):
		return indexDamaged(now, err)
	default:
		return internalFailure(now, err)
	}
}
