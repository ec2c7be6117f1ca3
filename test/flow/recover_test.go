package flow_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

func TestAFailoverWithoutTheMappedNetworkFailsAndTheThreeWaysOnWork(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(func(policy *umbrav1.Policy) {
		policy.NetworkMappings = []*umbrav1.NetworkMapping{{MainNetwork: lab.GuestNetwork, ShadowNetwork: "dr-net"}}
	})
	points := w.waitPoints(3)

	answer, err := w.Failover.Failover(w.ctx(), &umbrav1.FailoverRequest{Name: pairName})
	op := w.end(answer.GetOperation(), err, failed)
	if failure := op.GetFailure(); failure.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING ||
		failure.GetSide() != umbrav1.Side_SIDE_SHADOW || len(failure.GetRecommendedActions()) == 0 || !strings.Contains(failure.GetMessage(), "dr-net") {
		t.Errorf("the failure is %v", failure)
	}
	pair := w.state(umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR)
	for _, action := range []umbrav1.DRPairAction{
		umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER, umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION,
	} {
		if !slices.Contains(pair.GetAllowedActions(), action) {
			t.Errorf("%v is not allowed after a failed failover", action)
		}
	}
	w.supportBundle()

	// From the beginning: the main server runs again, and points are made again, with the old ones still there.
	restart, err := w.Failover.RestartReplication(w.ctx(), &umbrav1.RestartReplicationRequest{Name: pairName})
	w.end(restart.GetOperation(), err, succeeded)
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
	if now := w.points(); len(now) < len(points) {
		t.Errorf("%d points after the restart, %d before", len(now), len(points))
	}
	if state, err := w.Main.Virsh(w.ctx(), "domstate", guest); err != nil || !strings.HasPrefix(state, "running") {
		t.Errorf("after the restart of replication the main server is %q, error %v", state, err)
	}

	// Again, with the network there.
	define := "<network><name>dr-net</name><forward mode='bridge'/><bridge name='br-dr'/></network>"
	file := filepath.Join(w.Shadow.Dir, "dr-net.xml")
	if err := os.WriteFile(file, []byte(define), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"ip", "link", "add", "br-dr", "type", "bridge"},
		{"ip", "link", "set", "br-dr", "up"},
		{"virsh", "net-define", file},
		{"virsh", "net-start", "dr-net"},
	} {
		if out, err := w.Shadow.Command(w.ctx(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	w.failover(points[0].GetName())
}

// supportBundle checks that there is one and that it holds no disk bytes.
func (w *world) supportBundle() {
	w.t.Helper()
	stream, err := w.Failover.GetSupportBundle(w.ctx(), &umbrav1.GetSupportBundleRequest{Name: pairName})
	if err != nil {
		w.t.Fatal(err)
	}
	names := untar(w.t, stream)
	for _, want := range []string{"pair.json", "operations.json", "hostd.log"} {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, want) }) {
			w.t.Errorf("the support bundle has no %s: %v", want, names)
		}
	}
}

func TestAFailoverToADamagedPointFailsAndAnotherPointWorks(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	w.waitPoints(2)
	store := filepath.Join(w.Shadow.Dir, "umbra", "store", pairID, "vda.store")
	before := dataExtents(t, store)
	w.waitPoints(int64(len(w.points())) + 3)
	if err := w.Main.Kill(w.ctx()); err != nil {
		t.Fatal(err)
	}
	points := w.points()
	if hurt := flip(t, store, before, dataExtents(t, store)); !hurt {
		t.Fatal("no space of the store was taken by the newer points")
	}

	answer, err := w.Failover.Failover(w.ctx(), &umbrav1.FailoverRequest{Name: pairName, RecoveryPoint: points[0].GetName()})
	op := w.end(answer.GetOperation(), err, failed)
	if reason := op.GetFailure().GetReason(); reason != umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED {
		t.Errorf("the reason is %v: %v", reason, op.GetFailure())
	}
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR)
	listed := w.points()
	if !listed[0].GetDamaged() {
		t.Error("the point is not shown as damaged")
	}
	oldest := listed[len(listed)-1]
	if oldest.GetDamaged() {
		t.Fatal("the damage is said to reach the oldest point")
	}
	w.failover(oldest.GetName())
}

type extent struct{ from, to int64 }

// dataExtents are the parts of a sparse file that take space.
func dataExtents(t *testing.T, name string) []extent {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var extents []extent
	for at := int64(0); ; {
		from, err := file.Seek(at, unix.SEEK_DATA)
		if err != nil {
			return extents
		}
		to, err := file.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		extents = append(extents, extent{from, to})
		at = to
	}
}

// flip changes the bytes that are in the later extents and not in the earlier ones.
func flip(t *testing.T, name string, earlier, later []extent) (hurt bool) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	const block = 4096
	buffer := make([]byte, block)
	for _, e := range later {
		for at := e.from; at+block <= e.to; at += block {
			if slices.ContainsFunc(earlier, func(old extent) bool { return at >= old.from && at < old.to }) {
				continue
			}
			if _, err := file.ReadAt(buffer, at); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			for i := range buffer {
				buffer[i] ^= 0xff
			}
			if _, err := file.WriteAt(buffer, at); err != nil {
				t.Fatal(err)
			}
			hurt = true
		}
	}
	return hurt
}
