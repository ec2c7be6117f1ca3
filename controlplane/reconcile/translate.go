package reconcile

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func mainReported(main observed.Main) drpair.MainReported {
	return drpair.MainReported{
		Epoch:            main.Epoch,
		ResyncGeneration: main.Report.GetResyncGeneration(),
		Phase:            drpair.MainPhase(enumWord(main.Report.GetPhase().String(), "MAIN_PHASE_")),
		Failure:          failure(main.Report.GetFailure()),
		FenceMessage:     main.Report.GetFenceMessage(),
	}
}

func shadowReported(shadow observed.Shadow) drpair.ShadowReported {
	return drpair.ShadowReported{
		Epoch:          shadow.Epoch,
		Phase:          drpair.ShadowPhase(enumWord(shadow.Report.GetPhase().String(), "SHADOW_PHASE_")),
		StoppedEpoch:   shadow.Report.GetStoppedEpoch(),
		Attempt:        shadow.Report.GetAttempt(),
		Steps:          steps(shadow.Report.GetSteps()),
		Failure:        failure(shadow.Report.GetFailure()),
		RunningAttempt: shadow.Report.GetRunningAttempt(),
		RunningPoint:   shadow.Report.GetRunningRecoveryPoint(),
		HasPoint:       shadow.Report.GetRecoveryPointCount() > 0,
	}
}

func steps(reported []*umbrav1.Step) []drpair.Step {
	steps := make([]drpair.Step, len(reported))
	for i, step := range reported {
		steps[i] = drpair.Step{
			Kind:      drpair.StepKind(enumWord(step.GetKind().String(), "STEP_KIND_")),
			State:     drpair.StepState(enumWord(step.GetState().String(), "STEP_STATE_")),
			StartTime: timeOf(step.GetStartTime()),
			EndTime:   timeOf(step.GetEndTime()),
			Message:   step.GetMessage(),
		}
	}
	return steps
}

func failure(reported *umbrav1.Failure) *drpair.Failure {
	if reported == nil {
		return nil
	}
	return &drpair.Failure{
		Code:      reported.GetCode(),
		Reason:    drpair.Reason(enumWord(reported.GetReason().String(), "ERROR_REASON_")),
		Step:      drpair.StepKind(enumWord(reported.GetStep().String(), "STEP_KIND_")),
		Side:      drpair.Side(enumWord(reported.GetSide().String(), "SIDE_")),
		Message:   reported.GetMessage(),
		Causes:    reported.GetPossibleCauses(),
		Actions:   reported.GetRecommendedActions(),
		Retryable: reported.GetRetryable(),
		Time:      timeOf(reported.GetOccurTime()),
	}
}

// enumWord is the word that drpair uses for a value of an enum: its name without prefix, and "" for the unset one.
func enumWord(name, prefix string) string {
	word := strings.TrimPrefix(name, prefix)
	if word == "UNSPECIFIED" {
		return ""
	}
	return word
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
