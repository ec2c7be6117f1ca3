package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
)

func TestAPairIsReadAsItWasStored(t *testing.T) {
	s, _ := startStore(t)
	created := mustCreate(t, s, "a")
	committed, err := s.Commit(t.Context(), created, failover(t, created, operationID(1)), store.RequestKey{})
	if err != nil {
		t.Fatal(err)
	}
	read, err := s.Pair(t.Context(), "a")
	if err != nil || !reflect.DeepEqual(read, committed) {
		t.Fatalf("read %+v, %v\nwant %+v", read, err, committed)
	}
	if _, err := s.Pair(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("an unknown pair is %v", err)
	}
}

func TestOfTwoChangesOfTheSameReadOneConflicts(t *testing.T) {
	s, _ := startStore(t)
	entry := mustCreate(t, s, "a")
	if _, err := s.Commit(t.Context(), entry, failover(t, entry, operationID(1)), store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Commit(t.Context(), entry, failover(t, entry, operationID(2)), store.RequestKey{})
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("the second change got %v", err)
	}
	if _, err := s.Operation(t.Context(), operationID(2)); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("the lost change left an operation behind: %v", err)
	}
}

func TestConcurrentRequestsWithOneIDTakeEffectOnce(t *testing.T) {
	s, _ := startStore(t)
	entry := mustCreate(t, s, "a")
	const callers = 16
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			_, errs[i] = s.Commit(t.Context(), entry, failover(t, entry, operationID(i)), request("r", 1))
		})
	}
	all.Wait()
	succeeded := 0
	for _, err := range errs {
		if err == nil {
			succeeded++
		} else if !errors.Is(err, store.ErrConflict) {
			t.Errorf("a repeated request got %v", err)
		}
	}
	operations, _, err := s.Operations(t.Context(), "", 100, "")
	if succeeded != 1 || len(operations) != 1 || err != nil {
		t.Fatalf("%d requests succeeded, operations %v, %v", succeeded, operations, err)
	}
	led, found, err := s.Request(t.Context(), request("r", 1))
	if err != nil || !found || led != (store.RequestRecord{Pair: "a", Operation: operations[0].ID}) {
		t.Fatalf("the request led to %v, %v, %v", led, found, err)
	}
}

func TestARequestIDBelongsToOneRequestOfOneCaller(t *testing.T) {
	s, _ := startStore(t)
	if _, err := s.Create(t.Context(), newRecord("a"), request("r", 1)); err != nil {
		t.Fatal(err)
	}
	var reused *store.RequestReusedError
	if _, _, err := s.Request(t.Context(), request("r", 2)); !errors.As(err, &reused) {
		t.Errorf("looking up another request with the id got %v", err)
	}
	if _, err := s.Create(t.Context(), newRecord("b"), request("r", 2)); !errors.As(err, &reused) {
		t.Errorf("another request with the id got %v", err)
	}
	if _, err := s.Create(t.Context(), newRecord("a"), request("r", 1)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the same request again got %v", err)
	}
	other := request("r", 1)
	other.Caller = "somebody else"
	if _, found, err := s.Request(t.Context(), other); found || err != nil {
		t.Errorf("another caller's request is found: %v, %v", found, err)
	}
}

func TestARequestThatChangedNothingIsRememberedWithoutAWrite(t *testing.T) {
	s, _ := startStore(t)
	entry := mustCreate(t, s, "a")
	after, err := s.Commit(t.Context(), entry, drpair.Change{Record: entry.Record}, request("r", 1))
	if err != nil || after.Revision != entry.Revision {
		t.Fatalf("got %v, %v", after, err)
	}
	if read, _ := s.Pair(t.Context(), "a"); read.Revision != entry.Revision {
		t.Fatal("the pair was written")
	}
	if _, found, _ := s.Request(t.Context(), request("r", 1)); !found {
		t.Fatal("the request is not remembered")
	}
}

func TestAServerIsProtectedByOnePairUntilThatIsRemoved(t *testing.T) {
	s, _ := startStore(t)
	const callers = 8
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			_, errs[i] = s.Create(t.Context(), recordOf(pairID(i), "one-server"), store.RequestKey{})
		})
	}
	all.Wait()
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		var protected *store.AlreadyProtectedError
		if i != winner && (!errors.As(err, &protected) || protected.Pair != pairID(winner)) {
			t.Errorf("caller %d got %v, the winner is %d", i, err, winner)
		}
	}
	var exists *store.ExistsError
	if _, err := s.Create(t.Context(), newRecord(pairID(winner)), store.RequestKey{}); !errors.As(err, &exists) {
		t.Errorf("a taken id got %v", err)
	}
	entry, err := s.Pair(t.Context(), pairID(winner))
	if err != nil {
		t.Fatal(err)
	}
	change, err := drpair.Apply(entry.Record, drpair.Delete{Request: drpair.Request{OperationID: operationID(1)}, Force: true}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), entry, change, store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pair(t.Context(), pairID(winner)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the removed pair is %v", err)
	}
	if operation, err := s.Operation(t.Context(), operationID(1)); err != nil || operation.State != drpair.OperationSucceeded {
		t.Errorf("the operation of the removed pair is %v, %v", operation, err)
	}
	if _, err := s.Create(t.Context(), recordOf("again", "one-server"), store.RequestKey{}); err != nil {
		t.Errorf("the server cannot be protected again: %v", err)
	}
}

func TestOperationsAreListedNewestFirstPageByPage(t *testing.T) {
	s, _ := startStore(t)
	var want []string
	for i := range 250 {
		id, pair := operationID(i), pairID(i%2)
		record := newRecord(fmt.Sprintf("p%d", i))
		record.Operation = &drpair.Operation{ID: id, Pair: pair, State: drpair.OperationRunning}
		entry := mustCreate(t, s, record.Pair.ID)
		if _, err := s.Commit(t.Context(), entry, drpair.Change{Record: record, Changed: true}, store.RequestKey{}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			want = append(want, id)
		}
	}
	slices.Reverse(want)
	var got []string
	for token := ""; ; {
		page, next, err := s.Operations(t.Context(), pairID(1), 60, token)
		if err != nil {
			t.Fatal(err)
		}
		for _, operation := range page {
			got = append(got, operation.ID)
		}
		if token = next; token == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v\nwant %v", got, want)
	}
	if all, next, err := s.Operations(t.Context(), "", 1000, ""); len(all) != 250 || next != "" || err != nil {
		t.Fatalf("all: %d, %q, %v", len(all), next, err)
	}
	if _, _, err := s.Operations(t.Context(), "", 10, "../"); !errors.Is(err, store.ErrBadToken) {
		t.Fatalf("a bad token got %v", err)
	}
}

func TestHostsAreKept(t *testing.T) {
	s, _ := startStore(t)
	record := store.HostRecord{ID: "a", LastInventory: []byte{0, 1, 255}, Time: epoch}
	for _, put := range []store.HostRecord{{ID: "a"}, {ID: "b"}, record} {
		if err := s.PutHost(t.Context(), put); err != nil {
			t.Fatal(err)
		}
	}
	hosts, err := s.Hosts(t.Context())
	if err != nil || !reflect.DeepEqual(hosts, []store.HostRecord{record, {ID: "b"}}) {
		t.Fatalf("got %+v, %v", hosts, err)
	}
}

func TestOperationIDsSortByTime(t *testing.T) {
	var ids []string
	for i := range 100 {
		ids = append(ids, store.NewOperationID(epoch.Add(time.Duration(i*i)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) {
		t.Fatalf("not sorted: %v", ids)
	}
}

func TestAnOperationIsKeptWhileItIsThePairsNewestAndThenForAWhile(t *testing.T) {
	s, client := startStore(t)
	entry := mustCreate(t, s, "a")
	commit := func(change drpair.Change, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if entry, err = s.Commit(t.Context(), entry, change, store.RequestKey{}); err != nil {
			t.Fatal(err)
		}
	}
	// leases are those of all operations, newest first; 0 means for good.
	leases := func() (found []bool) {
		t.Helper()
		response, err := client.Get(t.Context(), "/umbra/operations/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range response.Kvs {
			found = append(found, kv.Lease != 0)
		}
		return found
	}
	apply := func(event drpair.Event) (drpair.Change, error) { return drpair.Apply(entry.Record, event, epoch) }
	restart := func(i int) drpair.Event {
		return drpair.RestartReplication{Request: drpair.Request{OperationID: operationID(i)}}
	}
	commit(apply(restart(1)))
	commit(apply(drpair.MainReported{Epoch: 2, ResyncGeneration: 2, Phase: drpair.MainReplicating}))
	if operation, err := s.Operation(t.Context(), operationID(1)); err != nil || operation.State != drpair.OperationSucceeded {
		t.Fatalf("the operation is %v, %v", operation, err)
	}
	for range 10 { // what the pair goes through afterwards is not the operation's business
		commit(apply(drpair.Pause{}))
		commit(apply(drpair.Resume{}))
	}
	if got := leases(); !slices.Equal(got, []bool{false}) {
		t.Errorf("the newest operation is to be forgotten: %v", got)
	}
	commit(apply(restart(2)))
	commit(apply(restart(3)))
	if got := leases(); !slices.Equal(got, []bool{false, true, true}) {
		t.Errorf("to be forgotten are %v", got)
	}
	if operation, err := s.Operation(t.Context(), operationID(2)); err != nil || operation.State != drpair.OperationCancelled {
		t.Errorf("the superseded operation is %v, %v", operation, err)
	}
	removePair(t, s, entry)
	if got := leases(); !slices.Equal(got, []bool{true, true, true, true}) {
		t.Errorf("after the removal, to be forgotten are %v", got)
	}
	if all, err := client.Leases(t.Context()); err != nil || len(all.Leases) != 4 {
		t.Errorf("the leases are %v, %v", all, err)
	}
}
