package api

import (
	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func failureMessage(f *drpair.Failure) *umbrav1.Failure {
	if f == nil {
		return nil
	}
	reason := enum[umbrav1.ErrorReason](umbrav1.ErrorReason_value, reasonPrefix, f.Reason)
	if reason == umbrav1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		reason = umbrav1.ErrorReason_ERROR_REASON_INTERNAL
	}
	return &umbrav1.Failure{
		Code:               f.Code,
		Reason:             reason,
		Step:               stepKind(f.Step),
		Side:               enum[umbrav1.Side](umbrav1.Side_value, sidePrefix, f.Side),
		Message:            f.Message,
		PossibleCauses:     f.Causes,
		RecommendedActions: f.Actions,
		Retryable:          f.Retryable,
		OccurTime:          timestamp(f.Time),
	}
}
