package replica

import (
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

const clusterBytes = transport.ClusterBytes

// damageListMax bounds how much damage is looked at for one welcome.
const damageListMax = 4096

// nameBytesMax bounds the ids of pairs, the names of disks and those of checkpoints: they are kept with every point.
const nameBytesMax = 256

// disk is one disk of a stream, found by its place in hello.
type disk struct {
	name string
	size int64
}

func (d disk) clusters() uint64 { return uint64((d.size + clusterBytes - 1) / clusterBytes) }

// partial says that the cluster is the last and the disk ends inside it.
func (d disk) partial(cluster uint64) bool {
	return d.size%clusterBytes != 0 && cluster+1 == d.clusters()
}

// disksOf are the disks of a hello that may be answered: nothing in it is longer than any pair has, so that it can be
// repeated in refusals and reports.
func disksOf(hello *umbrav1.ReplicationHello) ([]disk, error) {
	if len(hello.GetDrPair()) > nameBytesMax || len(hello.GetDrPairUid()) > nameBytesMax {
		return nil, protocolError("hello names a pair with %d bytes, of a uid with %d", len(hello.GetDrPair()), len(hello.GetDrPairUid()))
	}
	if n := len(hello.GetDisks()); n == 0 || n > recoverystore.DisksMax {
		return nil, protocolError("hello names %d disks, which must be 1 to %d", n, recoverystore.DisksMax)
	}
	seen := map[string]bool{}
	var disks []disk
	for _, d := range hello.GetDisks() {
		if len(d.GetTarget()) > nameBytesMax {
			return nil, protocolError("hello names a disk with %d bytes", len(d.GetTarget()))
		}
		if err := (recoverystore.DiskSpec{Name: d.GetTarget(), SizeBytes: d.GetSizeBytes()}).Check(); err != nil {
			return nil, protocolError("hello: %v", err)
		}
		if seen[d.GetTarget()] {
			return nil, protocolError("hello names disk %s twice", d.GetTarget())
		}
		seen[d.GetTarget()] = true
		disks = append(disks, disk{d.GetTarget(), d.GetSizeBytes()})
	}
	return disks, nil
}

func specsOf(disks []disk) []recoverystore.DiskSpec {
	var out []recoverystore.DiskSpec
	for _, d := range disks {
		out = append(out, recoverystore.DiskSpec{Name: d.name, SizeBytes: d.size})
	}
	return out
}

// coverage is what the store's unfinished state covers, in the stream's order of disks. It ends before damage: so the main
// side compares what is there, finds the damaged clusters equal to nothing and sends them again.
func (st *stream) coverage() *umbrav1.Coverage {
	have := st.store.Draft().Coverage
	out := &umbrav1.Coverage{Checkpoint: have.Checkpoint, Clusters: make([]uint64, len(st.disks))}
	st.damage = st.store.LatestDamage(damageListMax)
	if have.Checkpoint == "" || len(st.damage) >= damageListMax {
		return out
	}
	through := have.Through
	for _, bad := range st.damage {
		through[bad.Disk] = min(through[bad.Disk], bad.First)
	}
	for i, d := range st.disks {
		out.Clusters[i] = through[d.name]
	}
	return out
}

// repairs says whether all damage of the latest state was known when the stream began, so that its coverage ended before it.
// It takes note of what has been repaired by now: when that is damaged again, it is new damage. It needs the gate.
func (st *stream) repairs(damage []recoverystore.DamagedRange) bool {
	if len(st.damage) >= damageListMax && len(damage) > 0 {
		return true // everything is compared
	}
	for _, bad := range damage {
		if !slices.ContainsFunc(st.damage, func(known recoverystore.DamagedRange) bool { return known.Holds(bad) }) {
			return false
		}
	}
	st.damage = damage
	return true
}

// stored translates the main side's coverage.
func (st *stream) stored(c *umbrav1.Coverage) (recoverystore.Coverage, error) {
	if len(c.GetClusters()) != len(st.disks) {
		return recoverystore.Coverage{}, protocolError("coverage of %d disks, the stream has %d", len(c.GetClusters()), len(st.disks))
	}
	if len(c.GetCheckpoint()) > nameBytesMax {
		return recoverystore.Coverage{}, protocolError("coverage of a checkpoint whose name has %d bytes", len(c.GetCheckpoint()))
	}
	out := recoverystore.Coverage{Checkpoint: c.GetCheckpoint(), Through: map[string]uint64{}}
	for i, n := range c.GetClusters() {
		if n > st.disks[i].clusters() {
			return out, protocolError("coverage of %d clusters of disk %s", n, st.disks[i].name)
		}
		out.Through[st.disks[i].name] = n
	}
	return out, nil
}

// find returns the disk that a frame names, if its clusters lie inside it.
func (st *stream) find(number uint32, first, count uint64) (disk, error) {
	if uint64(number) >= uint64(len(st.disks)) {
		return disk{}, protocolError("disk %d of %d", number, len(st.disks))
	}
	d := st.disks[number]
	if n := d.clusters(); count == 0 || count > n || first > n-count {
		return disk{}, protocolError("%d clusters from %d of disk %s, which has %d", count, first, d.name, n)
	}
	return d, nil
}
