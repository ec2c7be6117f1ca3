package main

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// fill writes until etcd has reached its quota and takes no more from anybody.
func (r *replicas) fill(t *testing.T, quota int) {
	t.Helper()
	filler := strings.Repeat("x", 1<<20)
	for written := 0; written < 4*quota; written += len(filler) {
		_, err := r.etcd.Put(t.Context(), "filler", filler)
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("etcd takes more than its quota")
}

// makeRoom does what the refusal says is to be done.
func (r *replicas) makeRoom(t *testing.T) {
	t.Helper()
	now, err := r.etcd.Get(t.Context(), "filler", clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.etcd.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.etcd.Defragment(t.Context(), r.etcd.Endpoints()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.etcd.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
}

func TestAFullEtcdRefusesChangesSaysWhatToDoAndLosesNothing(t *testing.T) {
	const quota = 16 << 20
	s := besiege(t, func(config *embed.Config) { config.QuotaBackendBytes = quota })
	name := "drPairs/" + beating
	failover := &umbrav1.FailoverRequest{Name: name, RecoveryPoint: name + "/recoveryPoints/rp-1", RequestId: "once"}
	s.fill(t, quota)
	for at, client := range s.clients {
		_, err := client.Failover(soon(t), failover)
		if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "NO_SPACE" || !strings.Contains(err.Error(), "alarm disarm") {
			t.Errorf("control plane %d refuses with %v", at, err)
		}
		if _, err := client.GetDRPair(soon(t), &umbrav1.GetDRPairRequest{Name: name}); err != nil {
			t.Errorf("control plane %d does not show the pair: %v", at, err)
		}
	}
	if _, err := s.clients[0].ListRecoveryPoints(soon(t), &umbrav1.ListRecoveryPointsRequest{Parent: name}); err != nil {
		t.Errorf("a session that there was does not go on: %v", err)
	}
	m := s.mallory(t)
	defer m.end()
	m.say(t, encoded(t, helloOf("mallory", 1)))
	if err := m.refused(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "space") {
		t.Errorf("a host that comes is told %v", err)
	}
	s.makeRoom(t)
	var operations []string
	for at, client := range s.clients {
		response, err := client.Failover(soon(t), failover)
		if err != nil {
			t.Fatalf("with room, control plane %d: %v", at, err)
		}
		operations = append(operations, response.GetOperation().GetName())
	}
	s.succeeds(t, operations[1])
	all, err := s.clients[0].ListOperations(soon(t), &umbrav1.ListOperationsRequest{DrPair: name})
	if err != nil || len(all.GetOperations()) != 1 || operations[0] != operations[1] {
		t.Errorf("one request led to %v: %v, %v", operations, all, err)
	}
}

// succeeds waits for the operation's end at the second control plane.
func (r *replicas) succeeds(t *testing.T, operation string) {
	t.Helper()
	if ended := r.ended(t, operation); ended.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		t.Fatalf("the operation ended as %v", ended)
	}
}

// ended waits at the second control plane until the operation does not run any more.
func (r *replicas) ended(t *testing.T, operation string) *umbrav1.Operation {
	t.Helper()
	watch, err := r.clients[1].WatchOperation(soon(t), &umbrav1.WatchOperationRequest{Name: operation})
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ended := message.GetOperation(); ended.GetState() != umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return ended
		}
	}
}
