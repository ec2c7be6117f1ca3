package api

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Types of conditions.
const (
	conditionReady      = "ReadyForFailover"
	conditionProtected  = "Protected"
	conditionFenced     = "Fenced"
	conditionCanProtect = "CanProtect"
	conditionCanShadow  = "CanBeFailedOverTo"
	conditionClock      = "ClockInTime"
)

// protectedIntervals is how many intervals the newest point may be old while the pair counts as protected.
const protectedIntervals = 3

// conditions are the facts about a pair. What the shadow host reports is taken as it is.
func conditions(p drpair.Pair, s seen, now time.Time) []*umbrav1.Condition {
	facts := []*umbrav1.Condition{ready(p, s), protected(p, s, now), fenced(p.Fence)}
	for _, reported := range s.shadow.GetConditions() {
		if reported.GetType() != conditionReady {
			facts = append(facts, proto.CloneOf(reported))
		}
	}
	return facts
}

// ready is whether a failover would work now.
func ready(p drpair.Pair, s seen) *umbrav1.Condition {
	switch {
	case p.Restored:
		return fact(conditionReady, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, string(drpair.ReasonRestored), drpair.NextStep(p), p.UpdateTime)
	case !replicating(p) && p.State != drpair.FailoverError:
		return fact(conditionReady, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "STATE_NOT_ALLOWED",
			"The state of the pair does not allow a failover.", p.UpdateTime)
	case !p.HasPoint:
		return fact(conditionReady, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "NO_RECOVERY_POINT",
			"There is no complete recovery point yet.", p.CreateTime)
	case !s.shadowConnected:
		return fact(conditionReady, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "SHADOW_HOST_UNREACHABLE",
			"The shadow host is not connected to the control plane.", s.shadowChangeTime)
	}
	for _, reported := range s.shadow.GetConditions() {
		if reported.GetType() == conditionReady {
			return proto.CloneOf(reported)
		}
	}
	return fact(conditionReady, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, "NOT_REPORTED",
		"The shadow host has not checked this yet.", time.Time{})
}

// protected is whether the newest point is as young as the interval promises.
func protected(p drpair.Pair, s seen, now time.Time) *umbrav1.Condition {
	limit := protectedIntervals * p.Policy.Interval
	switch {
	case !replicating(p):
		return fact(conditionProtected, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "REPLICATION_STOPPED",
			"Replication has stopped for a failover, or for good.", time.Time{})
	case !p.HasPoint:
		return fact(conditionProtected, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "NO_RECOVERY_POINT",
			"There is no complete recovery point yet.", p.CreateTime)
	case s.newest.IsZero():
		return fact(conditionProtected, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, "NOT_REPORTED",
			"The shadow host has not reported its recovery points yet.", time.Time{})
	case age(s.newest, now) > limit:
		return fact(conditionProtected, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "RECOVERY_POINT_TOO_OLD",
			fmt.Sprintf("The newest recovery point is older than %d intervals of %v.", protectedIntervals, p.Policy.Interval), s.newest.Add(limit))
	default:
		return fact(conditionProtected, umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, "RECOVERY_POINT_RECENT",
			fmt.Sprintf("The newest recovery point is younger than %d intervals of %v.", protectedIntervals, p.Policy.Interval), time.Time{})
	}
}

// fenced is whether the main server is out of the way since the last failover.
func fenced(f drpair.Fence) *umbrav1.Condition {
	switch f.State {
	case drpair.FenceConfirmed:
		return fact(conditionFenced, umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, string(f.State), f.Message, f.Since)
	case drpair.FenceUnconfirmed:
		return fact(conditionFenced, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, string(f.State), f.Message, f.Since)
	case drpair.FencePending:
		return fact(conditionFenced, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN, string(f.State),
			"The main host has been told, and has not confirmed yet.", f.Since)
	default:
		return fact(conditionFenced, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, "NO_FAILOVER",
			"The main server may run: there has been no failover since replication began.", time.Time{})
	}
}

func fact(kind string, status umbrav1.ConditionStatus, reason, message string, since time.Time) *umbrav1.Condition {
	return &umbrav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: timestamp(since)}
}
