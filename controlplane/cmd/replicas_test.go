package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// replicas are two control planes on one etcd that is reached over the network.
type replicas struct {
	etcd      *clientv3.Client
	addresses [2]string
	clients   [2]umbrav1.FailoverServiceClient
	authority *identity.Authority
}

func startReplicas(t *testing.T, change ...func(*embed.Config)) *replicas {
	t.Helper()
	endpoint := externalEtcd(t, change...)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	r := &replicas{etcd: client}
	if r.authority, err = identity.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	cert, key := authorityFiles(t, r.authority)
	for i := range r.addresses {
		r.addresses[i] = freeAddress(t)
		start(t, flags{
			recordsFlags: recordsFlags{StateDir: t.TempDir(), EtcdEndpoint: []string{endpoint}}, Listen: r.addresses[i], AuthorityCert: cert, AuthorityKey: key, Lease: patience,
		})
		r.clients[i] = umbrav1.NewFailoverServiceClient(r.as(t, identity.Client("administrator", "engineer"), i))
	}
	return r
}

// as is a connection to one of the control planes.
func (r *replicas) as(t *testing.T, id identity.ID, at int) *grpc.ClientConn {
	t.Helper()
	return (&site{authority: r.authority, address: r.addresses[at]}).as(t, id)
}

// protect stores a pair, as another control plane would.
func (r *replicas) protect(t *testing.T, id string) {
	t.Helper()
	main := drpair.Main{Host: "a", Server: id, UUID: "u-" + id}
	rec := drpair.New(id, "uid-"+id, main, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), time.Now())
	if _, err := store.New(r.etcd, nil).Create(t.Context(), rec, store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
}

// shadowHost is a host b that has its session with the first control plane, reports that many points, and is asked for
// them. It ends with the stream.
func (r *replicas) shadowHost(ctx context.Context, t *testing.T, points int64) {
	t.Helper()
	stream, err := umbrav1.NewHostSessionServiceClient(r.as(t, identity.Host("b"), 0)).Session(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	say := func(request *umbrav1.SessionRequest) {
		if err := stream.Send(request); err != nil {
			t.Log(err) // Recv tells why
		}
	}
	say(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: &umbrav1.SessionHello{Host: "b", ProtocolVersion: 1}}})
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		for _, assignment := range response.GetAssignments().GetAssignments() {
			report := &umbrav1.AssignmentReport{
				DrPair: assignment.GetDrPair(), DrPairUid: assignment.GetDrPairUid(), Generation: assignment.GetGeneration(), Epoch: assignment.GetEpoch(),
				Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{RecoveryPointCount: points}},
			}
			say(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Reports{
				Reports: &umbrav1.AssignmentReports{Reports: []*umbrav1.AssignmentReport{report}},
			}})
		}
		if query := response.GetQuery(); query != nil {
			say(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: &umbrav1.QueryAnswer{
				Id: query.GetId(), Answer: &umbrav1.QueryAnswer_RecoveryPoints{RecoveryPoints: &umbrav1.RecoveryPointsAnswer{
					RecoveryPoints: []*umbrav1.RecoveryPoint{{Name: "drPairs/" + query.GetDrPair() + "/recoveryPoints/rp-1"}},
				}},
			}}})
		}
	}
}

// watch watches all pairs at a control plane from the token on, until a message is as is asked, and returns the last token.
func (r *replicas) watch(ctx context.Context, t *testing.T, at int, token string, until func(*umbrav1.WatchDRPairsResponse) bool) (string, umbrav1.FailoverService_WatchDRPairsClient) {
	t.Helper()
	stream, err := r.clients[at].WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{ResumeToken: token}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if message.GetResumeToken() != "" {
			token = message.GetResumeToken()
		}
		if until(message) {
			return token, stream
		}
	}
}

func TestWhatOneControlPlaneIsToldAndAskedTheOtherShowsAndAsks(t *testing.T) {
	r := startReplicas(t)
	r.protect(t, "web")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.shadowHost(ctx, t, 7)
	}()
	r.watch(ctx, t, 1, "", func(message *umbrav1.WatchDRPairsResponse) bool {
		return message.GetDrPair().GetReplication().GetRecoveryPointCount() == 7
	})
	for { // who has the session may be known a moment after the figures
		points, err := r.clients[1].ListRecoveryPoints(ctx, &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/web"})
		if err == nil && len(points.GetRecoveryPoints()) == 1 {
			break
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			t.Fatalf("asked through the other: %v, %v", points, err)
		}
	}
	cancel()
	<-ended
}

func TestAWatchThatLosesItsControlPlaneGoesOnAtTheOther(t *testing.T) {
	r := startReplicas(t)
	r.protect(t, "before")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	synced := func(message *umbrav1.WatchDRPairsResponse) bool {
		return message.GetKind() == umbrav1.WatchKind_WATCH_KIND_SYNCED
	}
	seen := false // the control plane may hear of the pair after the snapshot
	token, stream := r.watch(ctx, t, 0, "", func(message *umbrav1.WatchDRPairsResponse) bool {
		if message.GetDrPair().GetName() == "drPairs/before" {
			seen = true
			return message.GetKind() == umbrav1.WatchKind_WATCH_KIND_CHANGED
		}
		return seen && synced(message)
	})
	r.loseLease(t, r.addresses[0])
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the watch ended with %v", err)
			}
			break
		}
	}
	r.protect(t, "meanwhile")
	var missed []string
	r.watch(ctx, t, 1, token, func(message *umbrav1.WatchDRPairsResponse) bool {
		if message.GetDrPair() != nil {
			missed = append(missed, message.GetDrPair().GetName())
		}
		return synced(message)
	})
	if len(missed) != 1 || missed[0] != "drPairs/meanwhile" {
		t.Errorf("the watcher missed %v", missed)
	}
	// The first takes up work again by itself.
	for {
		_, err := r.clients[0].ListDRPairs(ctx, &umbrav1.ListDRPairsRequest{})
		if err == nil {
			break
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
}

// loseLease ends the lease of the control plane at that address, as a stall would.
func (r *replicas) loseLease(t *testing.T, address string) {
	t.Helper()
	planes, err := r.etcd.Get(t.Context(), "/umbra/presence/control-planes/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range planes.Kvs {
		if bytes.Contains(kv.Value, []byte(address)) {
			if _, err := r.etcd.Revoke(t.Context(), clientv3.LeaseID(kv.Lease)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no control plane at %s", address)
}
