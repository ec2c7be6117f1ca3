package replicate

import (
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// replicable are the disks that are replicated: not those that the server cannot write, nor those that others write as well.
func replicable(s hypervisor.Server) []hypervisor.Disk {
	return slices.DeleteFunc(slices.Clone(s.Disks), func(d hypervisor.Disk) bool { return d.ReadOnly || d.Shareable })
}

// sameDisks tells whether a stream for the disks a serves the disks b.
func sameDisks(a, b []hypervisor.Disk) bool {
	return slices.EqualFunc(a, b, func(a, b hypervisor.Disk) bool {
		return a.Target == b.Target && a.SizeBytes == b.SizeBytes && a.TracksChanges == b.TracksChanges
	})
}

func targets(disks []hypervisor.Disk) []string {
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = d.Target
	}
	return names
}

func replicatedDisks(disks []hypervisor.Disk) []*umbrav1.ReplicatedDisk {
	out := make([]*umbrav1.ReplicatedDisk, len(disks))
	for i, d := range disks {
		out[i] = &umbrav1.ReplicatedDisk{Target: d.Target, SizeBytes: d.SizeBytes}
	}
	return out
}

// coverage is what the shadow holds: below clusters[disk], as of the checkpoint or later. No checkpoint: nothing.
type coverage struct {
	checkpoint string
	clusters   []uint64
}

func coverageOf(c *umbrav1.Coverage) coverage {
	return coverage{checkpoint: c.GetCheckpoint(), clusters: slices.Clone(c.GetClusters())}
}

// of is how many clusters of the disk are covered. A disk without change tracking is never covered by an earlier job.
func (c coverage) of(disk int, d hypervisor.Disk) uint64 {
	if c.checkpoint == "" || disk >= len(c.clusters) || !d.TracksChanges {
		return 0
	}
	return min(c.clusters[disk], clustersOf(d.SizeBytes))
}

// whole tells whether all disks that track changes are covered to their ends.
func (c coverage) whole(disks []hypervisor.Disk) bool {
	for i, d := range disks {
		if d.TracksChanges && c.of(i, d) < clustersOf(d.SizeBytes) {
			return false
		}
	}
	return true
}
