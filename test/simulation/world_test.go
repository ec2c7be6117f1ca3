package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// patience is how long anything may take that must come, of our time.
const patience = 5 * time.Minute

// world is a control plane, a main and a shadow host, and the links between them. One pair at a time lives in it.
type world struct {
	seed    uint64
	dir     string
	etcd    *clientv3.Client
	network *network
	clock   fastClock // which nothing sets
	logged  *tail
	log     *slog.Logger

	main, shadow *host
	planes       []*plane // one, or two on the same etcd
	conn         *grpc.ClientConn
	failover     umbrav1.FailoverServiceClient
	protection   umbrav1.ProtectionServiceClient

	subjects int
	subject  *subject
	counts   counts
	told     struct {
		sync.Mutex
		began time.Time
		calls []porcupine.Operation
	}
}

// subject is the pair under test, and what is known of it without asking it.
type subject struct {
	id, server string
	history    *history
	onReturn   umbrav1.OnMainReturn
	requests   map[string]string // operation by request id, of all that were acknowledged
	floor      int               // the version that the newest point must not fall behind
	verified   map[string]bool   // points whose bytes have been compared
	frozen     map[uint64][]string
	committed  bool
}

func newWorld(seed uint64, etcd *clientv3.Client, network *network) (*world, error) {
	dir, err := memoryDir("umbra-sim-")
	if err != nil {
		return nil, err
	}
	began := time.Now()
	w := &world{
		seed: seed, dir: dir, network: network, clock: newClock(began), logged: &tail{},
		etcd: within(context.Background(), etcd, fmt.Sprintf("world-%d-%s/", seed, uuid.NewString())),
	}
	w.told.began = began
	w.log = slog.New(slog.NewTextHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if w.main, err = newHost("a", dir, w.network, began, seed, w.log); err != nil {
		return nil, err
	}
	if w.shadow, err = newHost("b", dir, w.network, began, seed+1, w.log); err != nil {
		return nil, err
	}
	for i := range 1 + int(seed%2) {
		machine := planeMachines[i]
		w.planes = append(w.planes, &plane{
			machine: machine, etcd: w.etcd, network: w.network, clock: newClock(began), log: w.log.With("part", machine),
		})
	}
	if w.conn, err = dialPlanes(w.network, "client"); err != nil {
		return nil, err
	}
	w.failover, w.protection = umbrav1.NewFailoverServiceClient(w.conn), umbrav1.NewProtectionServiceClient(w.conn)
	return w, w.revive()
}

// memoryDir is a folder in memory where there is one: nothing here loses its power, so waiting for a disk would prove nothing.
func memoryDir(prefix string) (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", prefix); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", prefix)
}

func (w *world) close() error {
	w.heal()
	err := errors.Join(w.main.kill(), w.shadow.kill())
	for _, p := range w.planes {
		p.kill()
	}
	w.main.machine.Close()
	w.shadow.machine.Close()
	return errors.Join(err, w.conn.Close(), os.RemoveAll(w.dir))
}

// heal ends every fault that lasts. Daemons are started again by whoever killed them.
func (w *world) heal() {
	w.network.heal()
	for _, h := range []*host{w.main, w.shadow} {
		h.machine.turn(calm, 0)
		h.machine.crashAtCopies(0)
		h.machine.SetAvailable(true)
		h.storeFault.Store(nil)
	}
}

// protect begins the life of a new server and its pair.
func (w *world) protect(ctx context.Context, r *rand.Rand) error {
	w.subjects++
	name := fmt.Sprintf("s%d", w.subjects)
	history, err := w.main.machine.addServer(ctx, name, uuid.NewString())
	if err != nil {
		return err
	}
	s := &subject{
		id: "pair-" + name, server: name, history: history, requests: map[string]string{}, verified: map[string]bool{},
		frozen:   map[uint64][]string{},
		onReturn: umbrav1.OnMainReturn(1 + r.IntN(3)),
	}
	for range r.IntN(20) {
		w.main.machine.guestWrites(ctx, name, randomWrite(r))
	}
	request := &umbrav1.CreateDRPairRequest{DrPairId: s.id, RequestId: "create-" + name, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/a", Server: name},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/b", Server: "shadow-" + name},
		Policy: &umbrav1.Policy{
			Interval:     durationpb.New(time.Duration(1+r.IntN(8)) * time.Second),
			Retention:    &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{{MaxAge: durationpb.New(time.Minute)}}},
			Verification: &umbrav1.VerificationPolicy{RunTime: durationpb.New(time.Second), Timeout: durationpb.New(30 * time.Second)},
			OnMainReturn: s.onReturn, FenceTimeout: durationpb.New(10 * time.Second),
		},
	}}
	for {
		_, err := w.protection.CreateDRPair(ctx, request)
		if err == nil {
			break
		}
		if !passing(err) && !isRefusal(err) { // the host's inventory does not name the server yet
			return fmt.Errorf("protecting %s: %w", name, err)
		}
		if err := rest(ctx); err != nil {
			return fmt.Errorf("protecting %s: %w", name, err)
		}
	}
	w.shadow.fenced.Store(false)
	w.subject = s
	return nil
}

// rest waits a moment.
func rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(4 * time.Millisecond):
		return nil
	}
}

// pairDir is the pair's folder in one of a host's.
func (s *subject) pairDir(in string) string { return filepath.Join(in, s.id) }

// tail keeps the end of a log.
type tail struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

const tailBytesMax = 8 << 20

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines.Len() > tailBytesMax {
		t.lines.Next(tailBytesMax / 2)
	}
	return t.lines.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines.String()
}
