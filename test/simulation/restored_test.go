package simulation_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/backup"
	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// story is a world whose control plane loses its state, with what the test expects of it.
type story struct {
	*world
	*testing.T
	ctx    context.Context
	shared *clientv3.Client
	random *rand.Rand
}

// tell runs a story in a world of its own, with one control plane and a pair that replicates.
func tell(t *testing.T, shared *clientv3.Client, name string, seed uint64, onReturn umbrav1.OnMainReturn, act func(s *story)) {
	tellOver(t, newNetwork(), shared, name, seed, onReturn, act)
}

func tellOver(t *testing.T, network *network, shared *clientv3.Client, name string, seed uint64, onReturn umbrav1.OnMainReturn, act func(s *story)) {
	t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		w, err := newWorld(2*seed, shared, network)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := w.close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(w.logged.String())
			}
		}()
		s := &story{world: w, T: t, ctx: ctx, shared: shared, random: rand.New(rand.NewPCG(0, 3))}
		for i := uint64(0); umbrav1.OnMainReturn(1+rand.New(rand.NewPCG(i, 3)).IntN(3)) != onReturn; i++ { // what protect draws first
			s.random = rand.New(rand.NewPCG(i+1, 3))
		}
		s.must(w.protect(ctx, s.random))
		if w.subject.onReturn != onReturn {
			s.Fatal("the pair has another policy than was asked for")
		}
		s.write()
		s.come(replicating)
		act(s)
	})
}

const (
	replicating = umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING
	failedOver  = umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER
	committed   = umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED
	paused      = umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED
)

func (s *story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *story) write() {
	for range 8 {
		s.main.machine.guestWrites(s.ctx, s.subject.server, randomWrite(s.random))
	}
}

// look is the pair as it is now.
func (s *story) look() *umbrav1.DRPair {
	s.Helper()
	pair, err := s.pair(s.ctx, observer)
	s.must(err)
	if pair == nil {
		s.Fatal("there is no pair")
	}
	return pair
}

// come waits for the pair to come to a state with what was written in its newest point, and holds it against the promises.
func (s *story) come(state umbrav1.DRPairState) *umbrav1.DRPair {
	s.Helper()
	for {
		pair := s.look()
		if held := (drpair.Pair{Restored: true}); pair.GetNextStep() == drpair.NextStep(held) {
			s.must(rest(s.ctx)) // it shows what the backup says, the hosts have not been heard
			continue
		}
		resting, err := s.resting(s.ctx, pair, s.subject.history.version())
		s.must(err)
		if resting && pair.GetState() == state {
			s.must(s.eventually(s.ctx, func() error { return s.servers(s.ctx, pair) }))
			s.must(s.nothingLate(pair))
			return pair
		}
		if rest(s.ctx) != nil {
			s.Fatalf("the pair stays %v", pair)
		}
	}
}

// do asks for something and waits until it has been done.
func (s *story) do(action umbrav1.DRPairAction, state umbrav1.DRPairState) *umbrav1.DRPair {
	s.Helper()
	points, err := s.points(s.ctx)
	s.must(err)
	if action == actFailover {
		points = points[:1] // another one may have grown too old by the time that it is to be booted
	}
	_, err = s.ask(s.ctx, observer, s.draw(s.random, action, points))
	s.must(err)
	return s.come(state)
}

// backup saves the state of the control plane.
func (s *story) backup() []byte {
	s.Helper()
	var file bytes.Buffer
	s.must(backup.State{Records: store.New(s.etcd, s.log), Dir: s.TempDir()}.Save(s.ctx, &file, "test", s.clock.Now()))
	return file.Bytes()
}

// restore has a new control plane begin with what the backup holds. With none it begins with nothing.
func (s *story) restore(saved []byte) {
	s.Helper()
	for _, p := range s.planes {
		p.kill()
	}
	s.etcd = within(s.Context(), s.shared, fmt.Sprintf("restored-%s/", uuid.NewString()))
	if saved != nil {
		pairs, err := backup.State{Records: store.New(s.etcd, s.log), Dir: s.TempDir()}.Load(s.ctx, bytes.NewReader(saved))
		s.must(err)
		s.Logf("%d pairs are restored", pairs)
	}
	for _, p := range s.planes {
		p.etcd = s.etcd
		s.must(p.start())
	}
}

// reboot ends everything on a host, and starts its daemon.
func (s *story) reboot(h *host) {
	s.Helper()
	s.must(s.powerLoss(s.ctx, h))
	s.must(h.start())
}

// connected waits until the control plane has the host's session.
func (s *story) connectedHost(id string) {
	s.Helper()
	hosts := umbrav1.NewHostServiceClient(s.conn)
	for {
		got, err := hosts.GetHost(s.ctx, &umbrav1.GetHostRequest{Name: "hosts/" + id})
		if err == nil && got.GetHost().GetConnected() {
			return
		}
		if rest(s.ctx) != nil {
			s.Fatalf("host %s does not connect: %v", id, err)
		}
	}
}

// What hosts know counts before what an old backup says, and no server is started before they have said it.
func TestAnOldBackupIsNotBelievedBeforeTheHosts(t *testing.T) {
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

	tell(t, etcd, "a failover since, and both hosts start again", 1, shutDown, func(s *story) {
		saved := s.backup()
		over := s.do(actFailover, failedOver)
		starts := s.main.machine.started(s.subject.server)
		s.restore(saved)
		s.reboot(s.main)
		s.must(s.shadow.kill())
		s.must(s.shadow.start())
		again := s.come(failedOver)
		if again.GetActiveRecoveryPoint() != over.GetActiveRecoveryPoint() || again.GetEpoch() <= over.GetEpoch() {
			s.Errorf("it was %v, it is %v", over, again)
		}
		if n := s.main.machine.started(s.subject.server); n != starts {
			s.Errorf("the main server was started")
		}
		s.do(actChange, failedOver)
		s.do(actCommit, committed)
	})
	tell(t, etcd, "a failover since, of which the main host knows nothing", 2, disconnect, func(s *story) {
		saved := s.backup()
		s.must(s.powerLoss(s.ctx, s.main))
		over := s.do(actFailover, failedOver)
		starts := s.main.machine.started(s.subject.server)
		s.must(s.shadow.kill())
		s.restore(saved)
		s.must(s.main.start())
		s.connectedHost("a")
		for range 500 { // 80 s of its time, which is more than any wait of its own
			if n := s.main.machine.started(s.subject.server); n != starts {
				s.Fatal("the main server was started while nobody knows what the shadow host does")
			}
			s.must(rest(s.ctx))
		}
		if pair := s.look(); len(pair.GetAllowedActions()) != 1 || pair.GetNextStep() == "" {
			s.Errorf("meanwhile it is %v", pair)
		}
		s.must(s.shadow.start())
		again := s.come(failedOver)
		if again.GetActiveRecoveryPoint() != over.GetActiveRecoveryPoint() || again.GetEpoch() <= over.GetEpoch() {
			s.Errorf("it was %v, it is %v", over, again)
		}
		if n := s.main.machine.started(s.subject.server); n != starts {
			s.Errorf("the main server was started")
		}
	})
	tell(t, etcd, "a commit since", 3, shutDown, func(s *story) {
		saved := s.backup()
		s.do(actFailover, failedOver)
		s.do(actCommit, committed)
		s.restore(saved)
		s.come(committed)
	})
	tell(t, etcd, "nothing since a commit", 4, shutDown, func(s *story) {
		s.do(actFailover, failedOver)
		s.do(actCommit, committed)
		saved := s.backup()
		s.restore(saved)
		s.come(committed)
	})
	tell(t, etcd, "a restart of the replication since", 5, shutDown, func(s *story) {
		saved := s.backup()
		before := s.do(actRestart, replicating)
		s.restore(saved)
		s.write()
		if after := s.come(replicating); after.GetEpoch() <= before.GetEpoch() {
			s.Errorf("the epoch was %d and is %d", before.GetEpoch(), after.GetEpoch())
		}
		s.do(actFailover, failedOver)
	})
	tell(t, etcd, "a deletion since", 6, shutDown, func(s *story) {
		saved := s.backup()
		points, err := s.points(s.ctx)
		s.must(err)
		_, err = s.ask(s.ctx, observer, s.draw(s.random, actDelete, points))
		s.must(err)
		for {
			pair, err := s.pair(s.ctx, observer)
			s.must(err)
			if pair == nil {
				break
			}
			s.must(rest(s.ctx))
		}
		s.restore(saved)
		for { // a host that has not heard of its end lets the deletion finish; without one a person is asked
			pair, err := s.pair(s.ctx, observer)
			s.must(err)
			if pair == nil {
				return
			}
			if pair.GetState() == paused {
				if pair.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_RECORDS_RESTORED {
					s.Errorf("it says %v", pair.GetFailure())
				}
				return
			}
			s.must(rest(s.ctx))
		}
	})
}
