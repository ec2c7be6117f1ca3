package observed_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/feed"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func mainReport(pair string, generation uint64) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, Generation: generation, Epoch: 3,
		Role: &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING}},
	}
}

func shadowReport(pair string) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, Epoch: 4, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{StoppedEpoch: 4}},
	}
}

// told waits for the feed to have something to tell.
func told(t *testing.T, sub *feed.Subscription[string]) []string {
	t.Helper()
	select {
	case <-sub.C():
	default:
		return nil
	}
	keys := sub.Take()
	slices.Sort(keys)
	return keys
}

func TestTheLastReportOfEachRoleIsKept(t *testing.T) {
	hosts := observed.New()
	const a, b = 5, 7
	hosts.Connect("a", a, "cp", epoch)
	hosts.Connect("b", b, "cp", epoch)
	hosts.SetReport("a", a, mainReport("p", 1), epoch)
	hosts.SetReport("a", a, mainReport("p", 2), epoch.Add(time.Second))
	hosts.SetReport("b", b, shadowReport("p"), epoch)
	main, ok := hosts.Main("p")
	if !ok || main.Generation != 2 || main.Epoch != 3 || main.Host != "a" || main.Session != a || !main.Time.Equal(epoch.Add(time.Second)) {
		t.Errorf("the main report is %+v, %v", main, ok)
	}
	if shadow, ok := hosts.Shadow("p"); !ok || shadow.Epoch != 4 || shadow.Report.GetStoppedEpoch() != 4 || shadow.Host != "b" {
		t.Errorf("the shadow report is %+v, %v", shadow, ok)
	}
	if host, _ := hosts.Host("a"); !host.ReportTime.Equal(epoch.Add(time.Second)) {
		t.Errorf("host a reported at %v", host.ReportTime)
	}
	hosts.Forget("p")
	if _, ok := hosts.Main("p"); ok {
		t.Error("a forgotten pair has a main report")
	}
	if _, ok := hosts.Shadow("p"); ok {
		t.Error("a forgotten pair has a shadow report")
	}
}

func TestAReportOfAnEarlierSessionIsPassedOverAndPublishesNothing(t *testing.T) {
	hosts := observed.New()
	const older, newer = 5, 7
	hosts.Connect("a", older, "cp", epoch)
	hosts.Connect("a", newer, "other", epoch)
	pairs := hosts.Pairs().Subscribe()
	defer pairs.Close()
	hosts.SetReport("a", older, mainReport("p", 1), epoch)
	if _, ok := hosts.Main("p"); ok || told(t, pairs) != nil {
		t.Error("a report of a session that has been replaced was taken")
	}
	hosts.SetReport("a", newer, mainReport("p", 1), epoch)
	if _, ok := hosts.Main("p"); !ok || !slices.Equal(told(t, pairs), []string{"p"}) {
		t.Error("a report of the newest session was not taken, or not told")
	}
}

func TestConnectionsAndMovedAddressesAreTold(t *testing.T) {
	hosts := observed.New()
	connections := hosts.Connections().Subscribe()
	defer connections.Close()
	hosts.Connect("b", 1, "cp", epoch)
	hosts.Know("a", nil, epoch, epoch)
	hosts.Know("a", nil, epoch, epoch.Add(time.Hour))
	if got := told(t, connections); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told of %v", got)
	}
	hosts.SetInventory("b", 1, &umbrav1.Host{DataAddress: "one:1"}, epoch)
	if got := told(t, connections); !slices.Equal(got, []string{"b"}) {
		t.Errorf("told of %v after b's address was known", got)
	}
	hosts.SetInventory("b", 1, &umbrav1.Host{DataAddress: "one:1", HostdVersion: "2"}, epoch)
	if got := told(t, connections); got != nil {
		t.Errorf("told of %v though no address has moved", got)
	}
	hosts.Disconnect("b", 1, true, epoch.Add(time.Minute))
	host, _ := hosts.Host("b")
	if host.Connected || hosts.Connected("b") || !host.ChangeTime.Equal(epoch.Add(time.Minute)) || host.Inventory.GetHostdVersion() != "2" {
		t.Errorf("after its session b is %+v", host)
	}
	list := hosts.List()
	if len(list) != 2 || list[0].ID != "a" || list[1].ID != "b" {
		t.Errorf("the list is %v", list)
	}
}

// What is heard of sessions may come late and twice: from etcd, and from the session itself.
func TestTheNewestSessionHasTheLastWord(t *testing.T) {
	hosts := observed.New()
	hosts.Connect("a", 9, "two", epoch.Add(time.Minute))
	connections := hosts.Connections().Subscribe()
	defer connections.Close()
	hosts.Connect("a", 9, "two", epoch.Add(time.Hour))
	hosts.Connect("a", 4, "one", epoch)
	hosts.Disconnect("a", 4, true, epoch.Add(time.Hour))
	if got := told(t, connections); got != nil {
		t.Errorf("told of %v though nothing is news", got)
	}
	if a, _ := hosts.Host("a"); !a.Connected || a.Session != 9 || a.Holder != "two" || !a.ChangeTime.Equal(epoch.Add(time.Minute)) {
		t.Errorf("a is %+v", a)
	}
	hosts.Disconnect("a", 9, false, epoch.Add(time.Hour))
	if a, _ := hosts.Host("a"); a.Connected || a.Left || len(told(t, connections)) != 1 {
		t.Errorf("without its control plane a is %+v", a)
	}
	hosts.Connect("a", 9, "two", epoch)
	if hosts.Connected("a") {
		t.Error("a session that had ended began again")
	}
	hosts.Connect("a", 12, "one", epoch)
	hosts.Disconnect("a", 12, true, epoch)
	if a, _ := hosts.Host("a"); !a.Left {
		t.Errorf("a, which left, is %+v", a)
	}
}

func TestAReportOfASessionThatIsNotKnownYetIsTakenAndConnectsNobody(t *testing.T) {
	hosts := observed.New()
	hosts.SetReport("a", 3, mainReport("p", 1), epoch)
	if main, ok := hosts.Main("p"); !ok || main.Session != 3 || hosts.Connected("a") {
		t.Errorf("the report is %+v, %v", main, ok)
	}
	hosts.Connect("a", 3, "cp", epoch)
	if !hosts.Connected("a") {
		t.Error("the session did not begin")
	}
	if pairs := hosts.Reported(); !slices.Equal(pairs, []string{"p"}) {
		t.Errorf("reported are %v", pairs)
	}
}

// Writers and readers at once: at the end everything that was last said is there, and every pair was told of.
func TestNothingIsLostBetweenConcurrentHosts(t *testing.T) {
	const hostsMax, pairsMax, generations = 8, 20, 50
	hosts := observed.New()
	feed := hosts.Pairs().Subscribe()
	defer feed.Close()
	var all sync.WaitGroup
	for h := range hostsMax {
		all.Go(func() {
			id := fmt.Sprint("host-", h)
			const session = 1
			hosts.Connect(id, session, "cp", epoch)
			for generation := range uint64(generations) {
				for p := range pairsMax {
					hosts.SetReport(id, session, mainReport(fmt.Sprint(id, "-", p), generation+1), epoch)
				}
				hosts.SetInventory(id, session, &umbrav1.Host{DataAddress: fmt.Sprint(generation)}, epoch)
				hosts.List()
			}
		})
	}
	seen := map[string]uint64{}
	all.Go(func() {
		for len(seen) < hostsMax*pairsMax {
			<-feed.C()
			for _, pair := range feed.Take() {
				main, _ := hosts.Main(pair)
				if main.Generation < seen[pair] {
					t.Errorf("pair %s went back from generation %d to %d", pair, seen[pair], main.Generation)
				}
				seen[pair] = main.Generation
			}
		}
	})
	all.Wait()
	for pair := range seen {
		if main, ok := hosts.Main(pair); !ok || main.Generation != generations {
			t.Errorf("pair %s ends at %+v, %v", pair, main, ok)
		}
	}
}
