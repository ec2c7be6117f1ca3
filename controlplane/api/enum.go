package api

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Prefixes of the names of enum values. drpair and the store use the names without them.
const (
	statePrefix          = "DR_PAIR_STATE_"
	actionPrefix         = "DR_PAIR_ACTION_"
	reasonPrefix         = "ERROR_REASON_"
	sidePrefix           = "SIDE_"
	stepKindPrefix       = "STEP_KIND_"
	stepStatePrefix      = "STEP_STATE_"
	operationKindPrefix  = "OPERATION_KIND_"
	operationStatePrefix = "OPERATION_STATE_"
	onMainReturnPrefix   = "ON_MAIN_RETURN_"
)

// enum is the enum value of a word; the zero value if there is none, as for a word of a newer version.
func enum[E ~int32, W ~string](values map[string]int32, prefix string, word W) E {
	return E(values[prefix+string(word)])
}

// word is the word for the name of an enum value.
func word[W ~string](name, prefix string) W { return W(strings.TrimPrefix(name, prefix)) }

// timestamp translates a time, of which the zero value means that it is not known.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stepKind(kind drpair.StepKind) umbrav1.StepKind {
	return enum[umbrav1.StepKind](umbrav1.StepKind_value, stepKindPrefix, kind)
}

func actionsMessage(actions []drpair.Action) []umbrav1.DRPairAction {
	messages := make([]umbrav1.DRPairAction, len(actions))
	for i, action := range actions {
		messages[i] = enum[umbrav1.DRPairAction](umbrav1.DRPairAction_value, actionPrefix, action)
	}
	return messages
}
