package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// stepError is an error and the step that it ended.
type stepError struct {
	step umbrav1.StepKind
	err  error
}

func (e *stepError) Error() string { return fmt.Sprintf("%s: %v", e.step, e.err) }
func (e *stepError) Unwrap() error { return e.err }

// refusal is an error whose reason is known.
type refusal struct {
	reason  umbrav1.ErrorReason
	message string
	err     error // may be nil
}

func (e *refusal) Error() string {
	if e.err == nil {
		return e.message
	}
	return fmt.Sprintf("%s: %v", e.message, e.err)
}

func (e *refusal) Unwrap() error { return e.err }

func refuse(reason umbrav1.ErrorReason, format string, args ...any) error {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// hypervisorError is what a call of the hypervisor returned.
type hypervisorError struct {
	doing string
	err   error
}

func (e *hypervisorError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *hypervisorError) Unwrap() error { return e.err }

// reasonOf finds the reason of an error.
func reasonOf(err error) umbrav1.ErrorReason {
	var known *refusal
	var ofHypervisor *hypervisorError
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.Is(err, recoverystore.ErrDamaged), errors.Is(err, recoverystore.ErrCorruptIndex):
		return umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED
	case errors.Is(err, recoverystore.ErrNoPoint):
		return umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND
	case errors.Is(err, recoverystore.ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return umbrav1.ErrorReason_ERROR_REASON_NO_SPACE
	case errors.Is(err, context.DeadlineExceeded):
		return umbrav1.ErrorReason_ERROR_REASON_DEADLINE
	case errors.As(err, &ofHypervisor):
		return umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR
	default:
		return umbrav1.ErrorReason_ERROR_REASON_INTERNAL
	}
}

// failure tells an error so that a person can act on it.
func (w *worker) failure(step umbrav1.StepKind, err error) *umbrav1.Failure {
	var inStep *stepError
	if errors.As(err, &inStep) {
		step, err = inStep.step, inStep.err
	}
	reason := reasonOf(err)
	a := adviceOn(reason)
	return &umbrav1.Failure{
		Code:               int32(a.code),
		Reason:             reason,
		Step:               step,
		Side:               umbrav1.Side_SIDE_SHADOW,
		Message:            err.Error(),
		PossibleCauses:     a.causes,
		RecommendedActions: a.actions,
		Retryable:          a.retryable,
		OccurTime:          timestamppb.New(w.cfg.Clock.Now()),
	}
}
