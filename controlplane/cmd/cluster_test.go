package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// asMember in the environment makes this binary a member of an etcd cluster, as the JSON in it says: a process that a test can
// kill.
const asMember = "UMBRA_TEST_AS_MEMBER"

// member is one member of an etcd cluster.
type member struct {
	Name, Dir, Client, Peer, Cluster string

	process *exec.Cmd
}

// serveMember is the process of a member, until it is killed.
func serveMember(text string) error {
	var m member
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("reading what member this is: %w", err)
	}
	client, peer := url.URL{Scheme: "http", Host: m.Client}, url.URL{Scheme: "http", Host: m.Peer}
	config := embed.NewConfig()
	config.Name, config.Dir, config.LogLevel, config.InitialCluster = m.Name, m.Dir, "error", m.Cluster
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	return <-server.Err()
}

// cluster are three members in processes of their own.
type cluster [3]*member

func startCluster(t *testing.T) *cluster {
	t.Helper()
	var c cluster
	var peers []string
	for i := range c {
		c[i] = &member{Name: fmt.Sprint("etcd-", i), Dir: t.TempDir(), Client: freeAddress(t), Peer: freeAddress(t)}
		peers = append(peers, c[i].Name+"=http://"+c[i].Peer)
	}
	for _, m := range c {
		m.Cluster = strings.Join(peers, ",")
		m.start(t)
		t.Cleanup(func() { m.kill(t) })
	}
	return &c
}

func (c *cluster) endpoints() (all []string) {
	for _, m := range c {
		all = append(all, "http://"+m.Client)
	}
	return all
}

func (m *member) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	m.process = exec.Command(os.Args[0])
	m.process.Env = append(os.Environ(), asMember+"="+string(text))
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is kill -9. It returns when the process is gone.
func (m *member) kill(t *testing.T) {
	t.Helper()
	if m.process == nil {
		return
	}
	if err := m.process.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = m.process.Wait() // it says that it was killed
	m.process = nil
}

// leader waits until a member leads that runs.
func (c *cluster) leader(t *testing.T, client *clientv3.Client) *member {
	t.Helper()
	ctx := soon(t)
	for ctx.Err() == nil {
		for _, m := range c {
			if m.process == nil {
				continue
			}
			status, err := client.Status(ctx, "http://"+m.Client)
			if err == nil && status.Leader == status.Header.GetMemberId() {
				return m
			}
		}
	}
	t.Fatal("no member of etcd leads")
	return nil
}

// The leader is killed while an operation runs, in each of two operations: the second time another member leads, and the first one is
// back.
func TestOperationsOutliveTheLeaderOfTheirEtcd(t *testing.T) {
	etcd := startCluster(t)
	k := startKillable(t, etcd.endpoints()...)
	k.protect(t, "web")
	k.wander(t, "a")
	shadow := k.wander(t, "b")
	k.watch(soon(t), t, 0, "", func(message *umbrav1.WatchDRPairsResponse) bool {
		return message.GetDrPair().GetReplication().GetRecoveryPointCount() > 0
	})

	operation := k.failover(t, 0)
	<-shadow.told
	first := etcd.leader(t, k.etcd)
	first.kill(t)
	close(shadow.may)
	k.succeeds(t, operation)

	first.start(t)
	etcd.leader(t, k.etcd).kill(t)
	change := &umbrav1.ChangeRecoveryPointRequest{Name: "drPairs/web", RecoveryPoint: "drPairs/web/recoveryPoints/rp-1", RequestId: "twice"}
	var response *umbrav1.ChangeRecoveryPointResponse
	for ctx := soon(t); ; {
		var err error
		if response, err = k.clients[1].ChangeRecoveryPoint(ctx, change); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(errors.Join(ctx.Err(), err))
		}
	}
	k.succeeds(t, response.GetOperation().GetName())
	all, err := k.clients[0].ListOperations(soon(t), &umbrav1.ListOperationsRequest{DrPair: "drPairs/web"})
	if err != nil || len(all.GetOperations()) != 2 {
		t.Errorf("two requests led to %v, %v", all, err)
	}
}
