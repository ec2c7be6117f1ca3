// Package recoverystore keeps the recovery points of one DR pair on the shadow host.
//
// A store is one directory: an index (bbolt) and, for each disk, one sparse data file. It holds
// the content of every disk at many moments, 64 KiB clusters at a time, and shares between points
// whatever did not change. It promises:
//
//   - Taking a point costs what changed. Deleting one costs its own changes, wherever it stands.
//   - A point is bootable without being copied: OpenView writes an ordinary qcow2 header and its
//     tables into the data file, and QEMU reads the point through a raw slice of that file.
//   - Data that a point refers to is never overwritten. A commit is: data written, fdatasync, one
//     index transaction; only after that is freed space punched, and only after that reused. So a
//     crash at any instant leaves the last committed state, and at worst some unreferenced space
//     that the next Open returns to the file system.
//   - Every cluster and every index record has a checksum. What does not match is reported as
//     damage, names the points that see it, and is never handed out as good.
//
// One process may have a store open. Inside it one goroutine fills the draft (Begin); every other
// method may be called concurrently with that and with each other.
//
// The bytes on disk are described in docs/recovery-store-format.md.
package recoverystore

// ClusterSize is the unit of storage, in bytes.
const ClusterSize = 64 << 10

// FormatVersion is the version of the on-disk format that this package reads and writes.
const FormatVersion = 1

// ChunkClusters is the number of clusters that one index record covers.
const ChunkClusters = 1024

// PendingClustersAdvised is where Draft.Pending tells its caller to call SaveProgress: 4 GiB of
// data, some 4 MiB of memory.
const PendingClustersAdvised = 64 << 10
