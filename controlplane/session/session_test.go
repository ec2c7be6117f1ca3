package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestWhoIsNotTheHostItClaimsToBeIsRefused(t *testing.T) {
	p := start(t)
	p.connect(t, "a")
	for _, c := range []struct {
		certificate string
		hello       *umbrav1.SessionHello
		want        codes.Code
	}{
		{"b", &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1}, codes.PermissionDenied},
		{"a", &umbrav1.SessionHello{Host: "a"}, codes.FailedPrecondition},
		{"a", &umbrav1.SessionHello{ProtocolVersion: 1}, codes.InvalidArgument},
	} {
		if err := p.dial(t, c.certificate, c.hello).ended(t); status.Code(err) != c.want {
			t.Errorf("certificate %q, hello %v: %v", c.certificate, c.hello, err)
		}
	}
	if !p.observed.Connected("a") {
		t.Error("an impostor ended the session of the host")
	}
}

func TestNoHostIsToldAnythingBeforeTheRecordsAreComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecords()
		r.ready = make(chan struct{})
		p := start(t, func(cfg *session.Config) { cfg.Records = r })
		if err := p.dial(t, "a", &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1}).ended(t); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		r.put(pairOf("p", "a", "b"))
		close(r.ready)
		synctest.Wait()
		if set := p.connect(t, "a").set(t); !set.GetComplete() || len(set.GetAssignments()) != 1 {
			t.Errorf("the first set is %v", set)
		}
		p.stop()
	})
}

func TestASilentHostLosesItsSessionAndASpeakingOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		synctest.Wait()
		silent, speaking := p.connect(t, "silent"), p.connect(t, "speaking")
		began := time.Now()
		for range 4 {
			time.Sleep(lease / 3)
			speaking.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: &umbrav1.Heartbeat{}}})
			synctest.Wait()
		}
		if err := silent.ended(t); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "said nothing") {
			t.Errorf("the silent host's session ended with %v", err)
		}
		host, _ := p.observed.Host("silent")
		if took := host.ChangeTime.Sub(began); host.Connected || took != lease {
			t.Errorf("the silent host is connected %v since %v", host.Connected, took)
		}
		if !p.observed.Connected("speaking") {
			t.Error("the speaking host has lost its session")
		}
		p.stop()
	})
}

func TestAStreamWithoutHelloEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		synctest.Wait()
		if err := p.dial(t, "a", nil).ended(t); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("it ended with %v", err)
		}
		p.stop()
	})
}

func TestStoppingEndsEverySession(t *testing.T) {
	p := start(t)
	h := p.connect(t, "a")
	ended := make(chan error, 1)
	go func() { ended <- h.ended(t) }()
	p.stop()
	if err := <-ended; err == nil {
		t.Error("the session goes on")
	}
}

func TestANewerSessionEndsTheOlderOneThoughThatHangs(t *testing.T) {
	p := start(t)
	for i := range 400 { // far more than the pipe and the window hold
		p.records.put(pairOf(fmt.Sprint("pair-", i), "a", "b"))
	}
	older := p.connect(t, "a") // and reads nothing more
	newer := p.connect(t, "a")
	if set := newer.set(t); !set.GetComplete() || len(set.GetAssignments()) != 400 {
		t.Fatalf("the newer session was told %d assignments", len(set.GetAssignments()))
	}
	if err := older.ended(t); status.Code(err) != codes.Aborted {
		t.Errorf("the older session ended with %v", err)
	}
	pairs := p.observed.Pairs().Subscribe()
	defer pairs.Close()
	newer.report(t, reportOf("pair-1", true))
	<-pairs.C()
	if host, _ := p.observed.Host("a"); !host.Connected || host.Session != 2 {
		t.Errorf("after the older session ended the host is %+v", host)
	}
}

func TestReplacingASessionNeverShowsTheHostAsGone(t *testing.T) {
	p := start(t)
	p.connect(t, "a")
	gone := make(chan bool)
	stop := make(chan struct{})
	go func() {
		seen := false
		for {
			select {
			case <-stop:
				gone <- seen
				return
			default:
				seen = seen || !p.observed.Connected("a")
			}
		}
	}()
	for range 20 {
		p.connect(t, "a")
	}
	close(stop)
	if <-gone {
		t.Error("the host was shown as not connected while it dialled again")
	}
}

func TestReportsOfPairsThatAreNotTheHostsAreIgnored(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("mine", "a", "b"))
	p.records.put(pairOf("other", "b", "c"))
	p.records.put(pairOf("reversed", "b", "a"))
	h := p.connect(t, "a")
	pairs := p.observed.Pairs().Subscribe()
	defer pairs.Close()
	h.report(t, reportOf("other", true), reportOf("other", false), reportOf("none", true), reportOf("mine", false), reportOf("reversed", true), reportOf("mine", true))
	<-pairs.C()
	if got := pairs.Take(); len(got) != 1 || got[0] != "mine" {
		t.Errorf("reports were taken of %v", got)
	}
	for _, id := range []string{"other", "reversed", "none"} {
		if _, ok := p.observed.Main(id); ok {
			t.Errorf("a main report of pair %s was taken", id)
		}
	}
	for _, id := range []string{"other", "mine"} {
		if _, ok := p.observed.Shadow(id); ok {
			t.Errorf("a shadow report of pair %s was taken", id)
		}
	}
}

func TestAMessageThatDoesNotBelongEndsTheSession(t *testing.T) {
	p := start(t)
	h := p.connect(t, "a")
	h.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: &umbrav1.SessionHello{Host: "b"}}})
	if err := h.ended(t); status.Code(err) != codes.InvalidArgument {
		t.Errorf("it ended with %v", err)
	}
}

// Of a host whose store hangs, or whose address will not keep still, the store sees little.
func TestInventoriesAreStoredAtASlowBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored []string
		fail := false
		p := start(t, func(cfg *session.Config) {
			cfg.KeepHost = func(ctx context.Context, _ string, inventory *umbrav1.Host) error {
				stored = append(stored, inventory.GetDataAddress())
				if fail {
					<-ctx.Done()
					return errors.New("the store hangs")
				}
				return nil
			}
		})
		synctest.Wait()
		h := p.connect(t, "a")
		for second := range 100 {
			h.inventory(t, &umbrav1.Host{DataAddress: fmt.Sprint("address:", second)})
			synctest.Wait()
			time.Sleep(time.Second)
		}
		if len(stored) != 10 || stored[0] != "address:0" {
			t.Errorf("within 100 s of moving it was stored %d times: %v", len(stored), stored)
		}
		stored = nil
		for range 180 {
			h.inventory(t, &umbrav1.Host{DataAddress: "address:99"})
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
		if len(stored) != 2 {
			t.Errorf("within half an hour it was stored %d times", len(stored))
		}
		fail, stored = true, nil
		time.Sleep(lease / 2)
		h.inventory(t, &umbrav1.Host{DataAddress: "address:last"})
		time.Sleep(lease / 2)
		synctest.Wait()
		if !p.observed.Connected("a") || len(stored) == 0 {
			t.Errorf("a store that hangs costs the host its session, or was not asked: %v", stored)
		}
		p.stop()
	})
}

func TestHundredsOfChangesCoalesceForAHostThatReadsSlowly(t *testing.T) {
	const pairs, rounds = 50, 300
	p := start(t)
	for i := range pairs {
		p.records.put(pairOf(fmt.Sprint("pair-", i), "a", "b"))
	}
	h := p.connect(t, "a")
	set := h.set(t)
	for round := range rounds {
		for i := range pairs {
			p.records.change(fmt.Sprint("pair-", i), func(pair *drpair.Pair) { pair.Epoch = uint64(round + 2) })
		}
	}
	p.records.remove("pair-0")
	current, messages, sequence := map[string]uint64{}, 0, uint64(1)
	for done := false; !done; set = h.set(t) {
		if set.GetComplete() != (messages == 0) || (messages > 0 && set.GetAppliesTo() != sequence) {
			t.Fatalf("message %d: complete %v, applies to %d, held is %d", messages, set.GetComplete(), set.GetAppliesTo(), sequence)
		}
		messages, sequence = messages+1, set.GetResultsIn()
		for _, assignment := range set.GetAssignments() {
			current[assignment.GetDrPair()] = assignment.GetEpoch()
		}
		for _, gone := range set.GetRemovedDrPairs() {
			delete(current, gone)
		}
		done = len(current) == pairs-1
		for _, epoch := range current {
			done = done && epoch == rounds+1
		}
		if done {
			break
		}
	}
	if messages > 100 {
		t.Errorf("%d changes were sent as %d messages", pairs*rounds, messages)
	}
}

func TestAMovedShadowHostLeadsToANewMainAssignment(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	p.records.put(pairOf("q", "a", "c"))
	main, shadow := p.connect(t, "a"), p.connect(t, "b")
	if set := main.set(t); len(set.GetAssignments()) != 2 || set.GetAssignments()[0].GetMain().GetShadowDataAddress() != "" {
		t.Fatalf("at first the main host is told %v", set)
	}
	for _, address := range []string{"b:1", "b:2"} {
		shadow.inventory(t, &umbrav1.Host{DataAddress: address})
		set := main.set(t)
		if len(set.GetAssignments()) != 1 || set.GetAssignments()[0].GetMain().GetShadowDataAddress() != address {
			t.Errorf("with the shadow host at %s the main host is told %v", address, set)
		}
	}
}

func TestAControlPlaneWithoutItsLeaseTakesNoSession(t *testing.T) {
	p := start(t)
	p.connect(t, "z") // it is open
	p.registry.mu.Lock()
	p.registry.refuse = registry.ErrLost
	p.registry.mu.Unlock()
	h := p.dial(t, "a", &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1})
	if err := h.ended(t); status.Code(err) != codes.Unavailable {
		t.Errorf("the session ended with %v", err)
	}
	if p.observed.Connected("a") {
		t.Error("the host counts as connected")
	}
}

// Another control plane has created a pair and told the host; here it is not known yet when the host comes.
func TestAHostIsToldNothingOlderThanWhatItWasToldElsewhere(t *testing.T) {
	p := start(t)
	p.records.reach = func(context.Context, int64) error {
		p.records.put(pairOf("new", "a", "b"))
		return nil
	}
	h := p.connect(t, "a")
	if set := h.set(t); len(set.GetAssignments()) != 1 || set.GetAssignments()[0].GetDrPair() != "new" {
		t.Errorf("the host is told %v", set)
	}
}

func TestAHostDoesNotWaitForAControlPlaneThatIsFarBehind(t *testing.T) {
	p := start(t)
	p.connect(t, "z") // it is open
	p.records.reach = func(ctx context.Context, revision int64) error {
		if _, bounded := ctx.Deadline(); !bounded || revision != 2 {
			t.Errorf("it waits for revision %d, with a limit: %v", revision, bounded)
		}
		return context.DeadlineExceeded
	}
	h := p.dial(t, "a", &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1})
	if err := h.ended(t); status.Code(err) != codes.Unavailable {
		t.Errorf("the session ended with %v", err)
	}
	if p.observed.Connected("a") {
		t.Error("the host counts as connected")
	}
}

func TestAReportOfAnEarlierPairOfTheSameIdIsIgnored(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("pair-1", "a", "b"))
	h := p.connect(t, "a")
	pairs := p.observed.Pairs().Subscribe()
	defer pairs.Close()
	earlier, present := reportOf("pair-1", true), reportOf("pair-1", true)
	earlier.DrPairUid, earlier.Epoch = "an earlier one", 9
	present.DrPairUid, present.Epoch = "uid-pair-1", 1
	h.report(t, present, earlier)
	h.report(t, earlier)
	p.records.put(pairOf("pair-2", "a", "b"))
	h.report(t, reportOf("pair-2", true)) // after all of them
	for {
		<-pairs.C()
		if slices.Contains(pairs.Take(), "pair-2") {
			break
		}
	}
	if main, _ := p.observed.Main("pair-1"); main.Epoch != 1 || main.UID != "uid-pair-1" {
		t.Errorf("the report is %+v", main)
	}
}

func TestWhenCertificatesOfAHostAreRevokedItsPeersAreTold(t *testing.T) {
	var least sync.Map
	p := start(t, func(cfg *session.Config) {
		cfg.Least = func(host string) uint64 {
			value, _ := least.LoadOrStore(host, uint64(1))
			return value.(uint64)
		}
	})
	p.records.put(pairOf("p", "a", "b"))
	p.records.put(pairOf("q", "c", "d"))
	main, shadow := p.connect(t, "a"), p.connect(t, "b")
	if got := main.set(t).GetAssignments()[0].GetMain().GetShadowGenerationMin(); got != 1 {
		t.Errorf("at first the main host is told %d", got)
	}
	if got := shadow.set(t).GetAssignments()[0].GetShadow().GetMainGenerationMin(); got != 1 {
		t.Errorf("at first the shadow host is told %d", got)
	}
	least.Store("a", uint64(2))
	p.server.PeerChanged("a")
	if got := shadow.set(t).GetAssignments()[0].GetShadow().GetMainGenerationMin(); got != 2 {
		t.Errorf("after the main host was revoked the shadow host is told %d", got)
	}
	least.Store("b", uint64(3))
	p.server.PeerChanged("b")
	if got := main.set(t).GetAssignments()[0].GetMain().GetShadowGenerationMin(); got != 3 {
		t.Errorf("after the shadow host was revoked the main host is told %d", got)
	}
}
