package api

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// A main host that is ahead must not make a replication that stands still look young, nor one that is behind a good one old.
func TestThePointsAgeIsTrueWhateverTheMainHostsClockSays(t *testing.T) {
	p := drpair.Pair{
		ID: "a", State: drpair.Replicating, HasPoint: true, Policy: drpair.Policy{Interval: 10 * time.Second}, Main: drpair.Main{Host: "m"}, Shadow: drpair.Shadow{Host: "s"},
	}
	for _, offset := range []time.Duration{0, 11 * time.Hour, -9 * time.Minute} {
		hosts := observed.New()
		hosts.Connect("m", 1, "", now)
		hosts.SetInventory("m", 1, &umbrav1.Host{ClockOffset: durationpb.New(offset)}, now)
		hosts.Connect("s", 1, "", now)
		hosts.SetInventory("s", 1, &umbrav1.Host{ClockOffset: durationpb.New(3 * time.Hour)}, now) // it dates no points
		for old, protected := range map[time.Duration]bool{2 * time.Second: true, time.Hour: false} {
			hosts.SetReport("s", 1, &umbrav1.AssignmentReport{DrPair: "a", Role: &umbrav1.AssignmentReport_Shadow{
				Shadow: &umbrav1.ShadowReport{NewestRecoveryPointTime: timestamppb.New(now.Add(offset - old))},
			}}, now)
			facts := FactsOf(p, hosts, now)
			if facts.RPO != old || facts.Protected != protected {
				t.Errorf("a point that is %v old, of a clock %v ahead: RPO %v, protected %v", old, offset, facts.RPO, facts.Protected)
			}
			if rpo := replication(p, seenOf(p, hosts), now).GetRpo().AsDuration(); rpo != old {
				t.Errorf("a point that is %v old, of a clock %v ahead: RPO %v", old, offset, rpo)
			}
		}
	}
}

func TestAHostsClockThatIsWrongIsAFactAboutIt(t *testing.T) {
	for offset, want := range map[time.Duration]string{
		0: "IN_TIME", 4 * time.Second: "IN_TIME", -4 * time.Second: "IN_TIME", 6 * time.Second: "CLOCK_DIFFERS", -9 * time.Minute: "CLOCK_DIFFERS",
	} {
		host := observed.Host{ID: "a", Inventory: &umbrav1.Host{
			ClockOffset: durationpb.New(offset), Conditions: []*umbrav1.Condition{{Type: conditionClock, Reason: "WHAT_IT_SAYS_ITSELF"}},
		}}
		facts := hostConditions(host)
		if got := facts[len(facts)-1]; len(facts) != 3 || got.GetType() != conditionClock || got.GetReason() != want {
			t.Errorf("%v ahead: %v", offset, facts)
		}
	}
}
