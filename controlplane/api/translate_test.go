package api

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// enumWords fails the test for each word that has no value in the API's enum.
func enumWords[W ~string](t *testing.T, values map[string]int32, prefix string, words ...W) {
	t.Helper()
	for _, word := range words {
		if enum[int32](values, prefix, word) == 0 {
			t.Errorf("the API has no %s%s", prefix, word)
		}
	}
}

func TestEveryWordOfTheStateMachineHasItsEnumValue(t *testing.T) {
	enumWords(t, umbrav1.DRPairState_value, statePrefix, drpair.States...)
	enumWords(t, umbrav1.DRPairAction_value, actionPrefix, drpair.Actions...)
	enumWords(t, umbrav1.ErrorReason_value, reasonPrefix,
		drpair.ReasonMainUnreachable, drpair.ReasonShadowUnreachable, drpair.ReasonDeadline, drpair.ReasonNoSpace, drpair.ReasonSuperseded)
	enumWords(t, umbrav1.Side_value, sidePrefix, drpair.SideMain, drpair.SideShadow, drpair.SideControlPlane)
	enumWords(t, umbrav1.StepKind_value, stepKindPrefix, append(drpair.FailoverSteps,
		drpair.StepStopServer, drpair.StepFlattenDisks, drpair.StepDeletePoints, drpair.StepResynchronize)...)
	enumWords(t, umbrav1.StepState_value, stepStatePrefix,
		drpair.StepPending, drpair.StepRunning, drpair.StepDone, drpair.StepSkipped, drpair.StepFailed)
	enumWords(t, umbrav1.OperationKind_value, operationKindPrefix, drpair.KindFailover, drpair.KindChangeRecoveryPoint,
		drpair.KindCommitFailover, drpair.KindRestartReplication, drpair.KindDelete)
	enumWords(t, umbrav1.OperationState_value, operationStatePrefix,
		drpair.OperationRunning, drpair.OperationSucceeded, drpair.OperationFailed, drpair.OperationCancelled)
	enumWords(t, umbrav1.OnMainReturn_value, onMainReturnPrefix, drpair.ShutDown, drpair.DisconnectNetwork, drpair.LeaveRunning)
}

func TestEveryActionOfTheAPIIsOneOfTheStateMachine(t *testing.T) {
	if got, want := len(umbrav1.DRPairAction_value)-1, len(drpair.Actions); got != want {
		t.Errorf("the API has %d actions, the state machine %d", got, want)
	}
	if got, want := len(umbrav1.DRPairState_value)-1, len(drpair.States); got != want {
		t.Errorf("the API has %d states, the state machine %d", got, want)
	}
}

func TestAPolicySurvivesTheWayToTheAPIAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(least, most int) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(t, "seconds")) * time.Second
		}
		want := drpair.Policy{
			Interval: seconds(1, 86400), StoreBytesMax: rapid.Int64Min(0).Draw(t, "cap"),
			BandwidthBytesPerSecond: rapid.Int64Min(0).Draw(t, "bandwidth"), FenceTimeout: seconds(0, 600),
			ApplicationConsistent: rapid.Bool().Draw(t, "application"),
			OnMainReturn:          rapid.SampledFrom([]drpair.OnMainReturn{drpair.ShutDown, drpair.DisconnectNetwork, drpair.LeaveRunning}).Draw(t, "return"),
			Verification:          drpair.Verification{RunTime: seconds(0, 600), Timeout: seconds(601, 3600), GuestAgent: rapid.Bool().Draw(t, "agent")},
		}
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			want.Retention = append(want.Retention, drpair.RetentionRule{MaxAge: seconds(1, 1<<20), Spacing: seconds(0, 1<<20)})
		}
		for _, name := range rapid.SliceOfDistinct(rapid.StringMatching("[a-z]{1,9}"), rapid.ID[string]).Draw(t, "networks") {
			want.Networks = append(want.Networks, drpair.NetworkMapping{Main: name, Shadow: "to-" + name})
		}
		got, err := policyFrom(session.Policy(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestAnUnsetPolicyIsTheDefault(t *testing.T) {
	if got, err := policyFrom(nil); err != nil || !reflect.DeepEqual(got, drpair.DefaultPolicy()) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestAReasonThatIsNotKnownHereIsInternal(t *testing.T) {
	if got := failureMessage(&drpair.Failure{Reason: "OF_THE_FUTURE"}).GetReason(); got != umbrav1.ErrorReason_ERROR_REASON_INTERNAL {
		t.Errorf("got %v", got)
	}
	if got := failureMessage(&drpair.Failure{Reason: drpair.ReasonNoSpace}).GetReason(); got != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE {
		t.Errorf("got %v", got)
	}
}

func TestAPairIsProtectedWhileItsNewestPointIsYoungerThanThreeIntervals(t *testing.T) {
	p := drpair.Pair{State: drpair.Replicating, HasPoint: true, Policy: drpair.Policy{Interval: 10 * time.Second}}
	paused, stopped, empty := p, p, p
	paused.State, paused.Paused = drpair.ReplicationPaused, true
	stopped.State = drpair.FailedOver
	empty.HasPoint = false
	const yes, no, unknown = umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN
	for what, test := range map[string]struct {
		pair   drpair.Pair
		newest time.Time
		want   umbrav1.ConditionStatus
	}{
		"young":                         {p, now.Add(-30 * time.Second), yes},
		"of a clock that is ahead":      {p, now.Add(time.Hour), yes},
		"old":                           {p, now.Add(-31 * time.Second), no},
		"old because paused":            {paused, now.Add(-time.Hour), no},
		"not reported":                  {p, time.Time{}, unknown},
		"not there":                     {empty, time.Time{}, no},
		"of a replication that is over": {stopped, now, no},
	} {
		if got := protected(test.pair, seen{newest: test.newest}, now); got.GetStatus() != test.want {
			t.Errorf("a point %s: %v", what, got)
		}
	}
	old := protected(p, seen{newest: now.Add(-time.Minute)}, now)
	if since := old.GetLastTransitionTime().AsTime(); !since.Equal(now.Add(-30 * time.Second)) {
		t.Errorf("not protected since %v", since)
	}
}

// A shadow host that is ready does not help while the control plane waits for what the hosts hold: nothing but deletion is allowed then.
func TestARestoredPairIsNotReadyForAFailover(t *testing.T) {
	p := drpair.Pair{ID: "p", State: drpair.Replicating, HasPoint: true}
	reported := seen{shadowConnected: true, shadow: &umbrav1.ShadowReport{Conditions: []*umbrav1.Condition{
		{Type: conditionReady, Status: umbrav1.ConditionStatus_CONDITION_STATUS_TRUE},
	}}}
	if got := ready(p, reported); got.GetStatus() != umbrav1.ConditionStatus_CONDITION_STATUS_TRUE {
		t.Errorf("a pair is not ready although its shadow host is: %v", got)
	}
	p.Restored = true
	if got := ready(p, reported); got.GetStatus() != umbrav1.ConditionStatus_CONDITION_STATUS_FALSE || got.GetReason() != "RECORDS_RESTORED" || got.GetMessage() == "" {
		t.Errorf("a restored pair is ready, or does not say why not: %v", got)
	}
}

func TestThePairIsFencedOnlyWhenTheMainHostConfirmed(t *testing.T) {
	for state, want := range map[drpair.FenceState]umbrav1.ConditionStatus{
		drpair.FenceNone:        umbrav1.ConditionStatus_CONDITION_STATUS_FALSE,
		drpair.FencePending:     umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN,
		drpair.FenceUnconfirmed: umbrav1.ConditionStatus_CONDITION_STATUS_UNKNOWN,
		drpair.FenceConfirmed:   umbrav1.ConditionStatus_CONDITION_STATUS_TRUE,
	} {
		if got := fenced(drpair.Fence{State: state}); got.GetStatus() != want || got.GetMessage() == "" && state == drpair.FenceNone {
			t.Errorf("%q: %v", state, got)
		}
	}
}

func TestWhateverAFilterOrTokenHoldsItIsAnswered(t *testing.T) {
	fields := []string{"state", "main.host", "=", " AND ", "hosts/a", "REPLICATING", " ", "\x00"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.OneOf(rapid.SampledFrom(fields), rapid.String())).Draw(t, "text"), "")
		for _, err := range []error{second(parseFilter(text)), second(afterPage(nil, text)), third(parseResumeToken(text))} {
			if err != nil && !hasInfo(err) {
				t.Fatalf("%q is %v", text, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

func TestAPageTokenComesBackOnlyForItsOwnList(t *testing.T) {
	token := nextPage(listID("pairs", "filter"), "a")
	if after, err := afterPage(listID("pairs", "filter"), token); after != "a" || err != nil {
		t.Errorf("got %q, %v", after, err)
	}
	if _, err := afterPage(listID("pairsfilter"), token); err == nil {
		t.Error("the token of one list is taken for another")
	}
}

func TestARequestThatLosesAgainstItselfFindsWhatTheWinnerDid(t *testing.T) {
	winners := "operation"
	var carriedOut bool
	find := func() (*string, error) {
		if carriedOut {
			return &winners, nil
		}
		return nil, nil
	}
	refused := errors.New("the state does not allow that any more")
	got, err := once(find, func() (*string, error) {
		carriedOut = true // by somebody else, between the look and the act
		return nil, refused
	})
	if err != nil || got != &winners {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := once(func() (*string, error) { return nil, nil }, func() (*string, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("refused for another reason, it gets %v", err)
	}
}
