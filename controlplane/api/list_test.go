package api_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// manyServers makes n servers known on the main host, and protects each.
func (p *plane) manyServers(n int) (names []string) {
	p.t.Helper()
	p.connectHosts()
	host, _ := p.observed.Host("main-host")
	inventory := proto.CloneOf(host.Inventory)
	for i := range n {
		server := proto.CloneOf(inventory.GetServers()[0])
		server.Name, server.Uuid = fmt.Sprintf("s%d", i), fmt.Sprintf("uuid-s%d", i)
		inventory.Servers = append(inventory.Servers, server)
	}
	p.observed.SetInventory("main-host", host.Session, inventory, host.ReportTime)
	for i := range n {
		names = append(names, p.create(fmt.Sprintf("pair-%02d", i), fmt.Sprintf("s%d", i)).GetName())
	}
	return names
}

func TestPairsAreListedInOrderPageByPage(t *testing.T) {
	p := startPlane(t)
	want := p.manyServers(7)
	var got []string
	request := &umbrav1.ListDRPairsRequest{PageSize: 3, Filter: "main.host = hosts/main-host AND state = INITIAL_SYNC"}
	for pages := 1; ; pages++ {
		page, err := p.failover.ListDRPairs(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range page.GetDrPairs() {
			got = append(got, pair.GetName())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			if pages != 3 {
				t.Errorf("there were %d pages", pages)
			}
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	first, err := p.failover.ListDRPairs(t.Context(), &umbrav1.ListDRPairsRequest{PageSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.failover.ListDRPairs(t.Context(), &umbrav1.ListDRPairsRequest{Filter: "main.server = s3", PageToken: first.GetNextPageToken()})
	wantField(t, err, "page_token")
	_, err = p.failover.ListOperations(t.Context(), &umbrav1.ListOperationsRequest{PageToken: first.GetNextPageToken()})
	wantField(t, err, "page_token")
}

func TestAFilterLetsThroughWhatAllItsTermsSay(t *testing.T) {
	p := startPlane(t)
	p.manyServers(3)
	for filter, want := range map[string]int{
		"":                                      3,
		"main.server = s1":                      1,
		"main.server=s1 AND state=INITIAL_SYNC": 1,
		"main.server = s1 AND main.server = s2": 0,
		"state = DR_PAIR_STATE_INITIAL_SYNC":    3,
		"state = COMMITTED":                     0,
		"shadow.host = hosts/shadow-host":       3,
		"shadow.host = hosts/main-host":         0,
	} {
		page, err := p.failover.ListDRPairs(t.Context(), &umbrav1.ListDRPairsRequest{Filter: filter, PageSize: 5000})
		if err != nil || len(page.GetDrPairs()) != want {
			t.Errorf("%q lets %d through, %v; want %d", filter, len(page.GetDrPairs()), err, want)
		}
	}
}

func TestRecoveryPointsAreListedNewestFirstPageByPage(t *testing.T) {
	p := startPlane(t)
	p.protect()
	p.answers.set(func(f *fakeHosts) { f.points["a"] = testPoints(7) })
	var got []string
	for token := ""; ; {
		page, err := p.failover.ListRecoveryPoints(t.Context(), &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/a", PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, point := range page.GetRecoveryPoints() {
			got = append(got, point.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		// Points come and go between two pages; those that stay are listed once, and only once.
		p.answers.set(func(f *fakeHosts) {
			f.points["a"] = slices.DeleteFunc(testPoints(7), func(q *umbrav1.RecoveryPoint) bool { return q.GetName() == point(5) })
		})
	}
	if want := []string{point(7), point(6), point(5), point(4), point(3), point(2), point(1)}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestHostsSayWhatTheyCanDo(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	away, _ := p.observed.Host("main-host")
	p.observed.Disconnect("main-host", away.Session, true, away.ChangeTime)
	full := &umbrav1.Host{DataAddress: "192.0.2.9:7444", LibvirtVersion: "9.0.0"}
	p.observed.Connect("full", 1, "", away.ChangeTime)
	p.observed.SetInventory("full", 1, full, away.ChangeTime)
	var got []string
	for token := ""; ; {
		page, err := p.hosts.ListHosts(t.Context(), &umbrav1.ListHostsRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range page.GetHosts() {
			for _, condition := range host.GetConditions() {
				got = append(got, host.GetName()+" "+condition.GetType()+" "+condition.GetReason())
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	want := []string{
		"hosts/full CanProtect READY", "hosts/full CanBeFailedOverTo NO_SPACE",
		"hosts/main-host CanProtect NOT_CONNECTED", "hosts/main-host CanBeFailedOverTo NOT_CONNECTED",
		"hosts/shadow-host CanProtect READY", "hosts/shadow-host CanBeFailedOverTo READY",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	host, err := p.hosts.GetHost(t.Context(), &umbrav1.GetHostRequest{Name: "hosts/main-host"})
	if err != nil || host.GetHost().GetConnected() || len(host.GetHost().GetServers()) != 4 {
		t.Errorf("the host is %v, %v", host, err)
	}
}
