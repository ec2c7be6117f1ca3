package session

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/journal/journaltest"
)

func TestTheAssignmentsOfEarlierVersionsAreRead(t *testing.T) {
	set := map[string]*umbrav1.Assignment{
		"web": {DrPair: "web", DrPairUid: "uid-web", Generation: 5, Epoch: 2, Role: &umbrav1.Assignment_Main{Main: &umbrav1.MainAssignment{
			Mode: umbrav1.MainMode_MAIN_MODE_REPLICATE, Server: "web", ShadowHost: "rack2", ShadowDataAddress: "10.0.0.2:7444", ResyncGeneration: 3,
		}}},
		"failed-over": {DrPair: "failed-over", DrPairUid: "uid-failed-over", Generation: 30, Epoch: 7, Role: &umbrav1.Assignment_Shadow{Shadow: &umbrav1.ShadowAssignment{
			Mode: umbrav1.ShadowMode_SHADOW_MODE_RUN, Attempt: &umbrav1.Attempt{Number: 2, RecoveryPoint: "rp-000000000001", Force: true},
		}}},
	}
	former := map[string]*umbrav1.Assignment{
		"gone": {DrPair: "gone", Generation: 1, Epoch: 1, Role: &umbrav1.Assignment_Main{Main: &umbrav1.MainAssignment{Mode: umbrav1.MainMode_MAIN_MODE_PAUSE}}},
	}
	journaltest.EachEarlier(t, func(t *testing.T, j *journal.Journal) {
		a := newAssigned(j, slog.New(slog.DiscardHandler))
		if err := a.load(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(set, a.set, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(former, a.former, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}
