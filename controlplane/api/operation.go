package api

import (
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

func operationMessage(o drpair.Operation) *umbrav1.Operation {
	message := &umbrav1.Operation{
		Name:                 operationName(o.ID),
		DrPair:               pairName(o.Pair),
		Kind:                 enum[umbrav1.OperationKind](umbrav1.OperationKind_value, operationKindPrefix, o.Kind),
		State:                enum[umbrav1.OperationState](umbrav1.OperationState_value, operationStatePrefix, o.State),
		CreateTime:           timestamp(o.CreateTime),
		EndTime:              timestamp(o.EndTime),
		RecoveryPoint:        pointName(o.Pair, o.Point),
		RequestId:            o.RequestID,
		Failure:              failureMessage(o.Failure),
		AllowedActions:       actionsMessage(o.Allowed),
		Epoch:                o.Epoch,
		DeleteRecoveryPoints: o.DeletePoints,
		TraceId:              tracing.OfOperation(o.ID, o.TraceParent).TraceID(),
	}
	for _, step := range o.Steps {
		message.Steps = append(message.Steps, &umbrav1.Step{
			Kind:      stepKind(step.Kind),
			State:     enum[umbrav1.StepState](umbrav1.StepState_value, stepStatePrefix, step.State),
			StartTime: timestamp(step.StartTime),
			EndTime:   timestamp(step.EndTime),
			Message:   step.Message,
		})
	}
	return message
}

// liveOperation is the operation with the progress that its hosts last reported for steps that are under way.
func (d *Deps) liveOperation(o drpair.Operation) *umbrav1.Operation {
	message := operationMessage(o)
	if o.State != drpair.OperationRunning {
		return message
	}
	if main, ok := d.Observed.Main(o.Pair); ok && main.Epoch == o.Epoch && o.Kind == drpair.KindRestartReplication {
		setProgress(message, umbrav1.StepKind_STEP_KIND_RESYNCHRONIZE, main.Report.GetProgress())
	}
	shadow, ok := d.Observed.Shadow(o.Pair)
	if !ok || !reportIsOf(shadow.Epoch, shadow.Report, o) {
		return message
	}
	for _, step := range shadow.Report.GetSteps() {
		setProgress(message, step.GetKind(), step.GetProgress())
	}
	return message
}

// reportIsOf tells whether the steps that a shadow host reports are those of the operation.
func reportIsOf(epoch uint64, report *umbrav1.ShadowReport, o drpair.Operation) bool {
	switch o.Kind {
	case drpair.KindFailover, drpair.KindChangeRecoveryPoint:
		return epoch == o.Epoch && report.GetAttempt() == o.Attempt
	case drpair.KindCommitFailover:
		return epoch == o.Epoch && report.GetPhase() == umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTING
	default:
		return false
	}
}

func setProgress(operation *umbrav1.Operation, kind umbrav1.StepKind, progress *umbrav1.Progress) {
	for _, step := range operation.GetSteps() {
		if step.GetKind() == kind && step.GetEndTime() == nil && progress != nil {
			step.Progress = proto.CloneOf(progress)
		}
	}
}
