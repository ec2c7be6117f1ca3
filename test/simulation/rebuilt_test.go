package simulation_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/umbra-dr/umbra/controlplane/embedded"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// held waits until the hosts have said that they hold the pair, without a record of it, and it is as asked.
func (s *story) held(is func(*umbrav1.HeldPair) bool) *umbrav1.HeldPair {
	s.Helper()
	for {
		answer, err := s.protection.ListHeldPairs(s.ctx, &umbrav1.ListHeldPairsRequest{})
		for _, held := range answer.GetHeldPairs() {
			if held.GetDrPair().GetName() == "drPairs/"+s.subject.id && is(held) {
				return held
			}
		}
		if rest(s.ctx) != nil {
			s.Fatalf("the hosts hold %v, %v", answer, err)
		}
	}
}

func adoptable(held *umbrav1.HeldPair) bool { return held.GetBlocker() == nil }

func (s *story) adopt() {
	s.Helper()
	request := &umbrav1.AdoptDRPairRequest{Name: "drPairs/" + s.subject.id, RequestId: "adopt"}
	for range 2 { // a repeated request finds the first one's pair
		if _, err := s.protection.AdoptDRPair(s.ctx, request); err != nil {
			s.Fatal(err)
		}
	}
}

// newestPoint is the name of the newest recovery point. Names sort in the order of time.
func (s *story) newestPoint() string {
	s.Helper()
	points, err := s.points(s.ctx)
	s.must(err)
	return points[0].GetName()
}

// A control plane that knows nothing makes its records from what the hosts hold, in whatever state they are.
func TestLostRecordsAreRebuiltFromTheHostsAlone(t *testing.T) {
	dir, err := memoryDir("umbra-etcd-")
	if err != nil {
		t.Fatal(err)
	}
	etcd, stop, err := embedded.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	const shutDown, disconnect = umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN, umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK

	tell(t, etcd, "a pair that replicates", 1, shutDown, func(s *story) {
		before := s.look()
		newest := s.newestPoint()
		s.restore(nil)
		held := s.held(func(held *umbrav1.HeldPair) bool { return adoptable(held) && len(held.GetHosts()) == 2 })
		if held.GetRecoveryPointCount() == 0 || held.GetDrPair().GetUid() != before.GetUid() {
			s.Errorf("they hold %v", held)
		}
		s.must(s.main.kill()) // its daemon starts with nothing assigned
		s.must(s.main.start())
		s.connectedHost("a")
		s.adopt()
		s.write()
		after := s.come(replicating)
		if after.GetUid() != before.GetUid() || after.GetEpoch() <= before.GetEpoch() || after.GetPolicy().GetInterval().AsDuration() != before.GetPolicy().GetInterval().AsDuration() {
			s.Errorf("it was %v, it is %v", before, after)
		}
		// Those of before may have grown too old by now, but a store that was made anew would number its points from 1.
		if now := s.newestPoint(); now <= newest {
			s.Errorf("the newest point was %s, it is %s", newest, now)
		}
		if strings.Contains(s.logged.String(), "what is left of an earlier pair") {
			s.Error("the hosts took it for another pair")
		}
		s.do(actFailover, failedOver)
		s.do(actCommit, committed)
	})
	tell(t, etcd, "a pair that is failed over, without its main host", 2, disconnect, func(s *story) {
		s.must(s.powerLoss(s.ctx, s.main))
		over := s.do(actFailover, failedOver)
		starts := s.main.machine.started(s.subject.server)
		s.restore(nil)
		held := s.held(adoptable)
		if held.GetDrPair().GetMain().GetServer() != s.subject.server || held.GetDrPair().GetMain().GetServerUuid() == "" {
			s.Errorf("they hold %v", held)
		}
		s.adopt()
		again := s.come(failedOver)
		if again.GetActiveRecoveryPoint() != over.GetActiveRecoveryPoint() || again.GetEpoch() <= over.GetEpoch() {
			s.Errorf("it was %v, it is %v", over, again)
		}
		s.must(s.main.start()) // the main host knows nothing of the failover
		for s.look().GetConditions()[2].GetReason() != "CONFIRMED" {
			s.must(rest(s.ctx))
		}
		if n := s.main.machine.started(s.subject.server); n != starts {
			s.Error("the main server was started")
		}
		s.do(actChange, failedOver)
		s.do(actCommit, committed)
	})
	tell(t, etcd, "a pair whose shadow host is away is not adopted", 3, shutDown, func(s *story) {
		s.must(s.shadow.kill())
		s.restore(nil)
		held := s.held(func(held *umbrav1.HeldPair) bool { return !adoptable(held) })
		if held.GetBlocker().GetReason() != umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE {
			s.Errorf("it says %v", held.GetBlocker())
		}
		if _, err := s.protection.AdoptDRPair(s.ctx, &umbrav1.AdoptDRPairRequest{Name: "drPairs/" + s.subject.id}); err == nil {
			s.Error("it was adopted")
		}
		s.must(s.shadow.start())
		s.held(adoptable)
		s.adopt()
		s.come(replicating)
	})
}
