package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// killable are two control planes in processes of their own, on one etcd or one cluster of them.
type killable struct {
	*replicas
	arguments [2]string
	processes [2]*exec.Cmd
}

func startKillable(t *testing.T, endpoints ...string) *killable {
	t.Helper()
	k := &killable{replicas: &replicas{}}
	var err error
	if k.etcd, err = clientv3.New(clientv3.Config{Endpoints: endpoints}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.etcd.Close() })
	if k.authority, err = identity.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	cert, key := authorityFiles(t, k.authority)
	for i := range k.processes {
		k.addresses[i] = freeAddress(t)
		arguments := []string{
			"--state-dir", t.TempDir(), "--listen", k.addresses[i], "--authority-cert", cert, "--authority-key", key,
			"--lease", patience.String(),
		}
		for _, endpoint := range endpoints {
			arguments = append(arguments, "--etcd-endpoint", endpoint)
		}
		k.arguments[i] = strings.Join(arguments, "\n")
		k.clients[i] = umbrav1.NewFailoverServiceClient(k.as(t, identity.Client("administrator", "engineer"), i))
		k.start(t, i)
	}
	t.Cleanup(func() { k.kill(t, 0); k.kill(t, 1) })
	return k
}

// start returns when the control plane serves.
func (k *killable) start(t *testing.T, i int) {
	t.Helper()
	k.processes[i] = exec.Command(os.Args[0])
	k.processes[i].Env = append(os.Environ(), asCommand+"="+k.arguments[i])
	if err := k.processes[i].Start(); err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	for { // the connection may not have noticed yet that the process before this one was killed
		_, err := k.clients[i].ListDRPairs(ctx, &umbrav1.ListDRPairsRequest{}, grpc.WaitForReady(true))
		if err == nil {
			return
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// kill is kill -9. It returns when the process is gone.
func (k *killable) kill(t *testing.T, i int) {
	t.Helper()
	if k.processes[i] == nil {
		return
	}
	if err := k.processes[i].Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = k.processes[i].Wait() // it says that it was killed
	k.processes[i] = nil
}

// wanderer is a host that dials one control plane after the other and does what it is assigned, a RUN when it may.
type wanderer struct {
	told chan uint64   // attempts that it is to run
	may  chan struct{} // closed when it may
}

func (k *killable) wander(t *testing.T, id string) *wanderer {
	w := &wanderer{told: make(chan uint64, 100), may: make(chan struct{})}
	conns := [2]*grpc.ClientConn{k.as(t, identity.Host(id), 0), k.as(t, identity.Host(id), 1)}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.session(ctx, id, conns[i%2])
			soonReady(ctx, conns[(i+1)%2])
		}
	})
	t.Cleanup(func() { cancel(); work.Wait() })
	return w
}

// soonReady gives a connection a moment to be made.
func soonReady(ctx context.Context, conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready && conn.WaitForStateChange(ctx, state); {
		state = conn.GetState()
	}
}

// session is one session, until it ends.
func (w *wanderer) session(ctx context.Context, id string, conn *grpc.ClientConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := umbrav1.NewHostSessionServiceClient(conn).Session(ctx)
	if err != nil {
		return
	}
	_ = stream.Send(helloOf(id, 1)) // Recv tells why it failed
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		for _, assignment := range response.GetAssignments().GetAssignments() {
			if assignment.GetShadow().GetMode() == umbrav1.ShadowMode_SHADOW_MODE_RUN {
				w.told <- assignment.GetShadow().GetAttempt().GetNumber()
				select {
				case <-w.may:
				case <-stream.Context().Done():
					return
				}
			}
			_ = stream.Send(reports(play(assignment, true)))
		}
		if query := response.GetQuery(); query != nil {
			_ = stream.Send(points(query))
		}
	}
}

// failover asks one control plane until it is acknowledged.
func (k *killable) failover(t *testing.T, at int) string {
	t.Helper()
	ctx := soon(t)
	for {
		response, err := k.clients[at].Failover(ctx, &umbrav1.FailoverRequest{
			Name: "drPairs/web", RecoveryPoint: "drPairs/web/recoveryPoints/rp-1", RequestId: "once",
		})
		switch status.Code(err) {
		case codes.OK:
			return response.GetOperation().GetName()
		case codes.FailedPrecondition, codes.Unavailable: // no point yet, or its host is on its way
			if ctx.Err() == nil {
				continue
			}
		default:
		}
		t.Fatal(err)
	}
}

// The control plane that acknowledged the failover is killed at once, the other one while the server boots.
func TestAFailoverOutlivesEveryControlPlaneThatIsKilled(t *testing.T) {
	k := startKillable(t, externalEtcd(t))
	k.protect(t, "web")
	k.wander(t, "a")
	shadow := k.wander(t, "b")
	token, _ := k.watch(soon(t), t, 0, "", func(message *umbrav1.WatchDRPairsResponse) bool {
		return message.GetDrPair().GetReplication().GetRecoveryPointCount() > 0 && message.GetResumeToken() != ""
	})
	operation := k.failover(t, 0)
	k.kill(t, 0)
	if again := k.failover(t, 1); again != operation {
		t.Errorf("the request led to %s and to %s", operation, again)
	}
	missed := false // the watch goes on at the other
	k.watch(soon(t), t, 1, token, func(message *umbrav1.WatchDRPairsResponse) bool {
		missed = missed || message.GetDrPair().GetState() == umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_PROCESSING
		return missed
	})
	attempts := map[uint64]bool{<-shadow.told: true}
	k.start(t, 0)
	k.kill(t, 1)
	close(shadow.may)
	k.start(t, 1)
	k.succeeds(t, operation)
	for len(shadow.told) > 0 {
		attempts[<-shadow.told] = true
	}
	all, err := k.clients[0].ListOperations(soon(t), &umbrav1.ListOperationsRequest{DrPair: "drPairs/web"})
	if err != nil || len(all.GetOperations()) != 1 || len(attempts) != 1 {
		t.Errorf("one request led to %v, %v, and to attempts %v", all, err, attempts)
	}
}
