package main

import "context"

// row is one line of the table of comparisons; it may yield several figures.
type row struct {
	number int
	title  string
	about  string // what is compared, and what the peer does and does not promise
	target target // for the table, while it is not measured
	quick  bool   // part of the reduced set
	run    func(ctx context.Context, b *bench) error
}

const copyPeers = "The peers are the commands that a user has today for a full copy: `qemu-img convert -n -W -m 8` with `-t none` and without, and `nbdcopy` into `qemu-nbd`. " +
	"Each reads the same export of the same disk over TCP and ends with a sync of its file; the better one counts. They promise a copy, and that it is on stable storage " +
	"once the sync has returned. They promise no checksums, no resumption and no earlier points; Umbra verifies a checksum of every cluster, and its time also holds the " +
	"begin and the end of the backup job, which the peers find begun."

const bootPeer = "The peer is a flat qcow2 copy of the very point, started by hand with `virsh start`: as fast as a start can be, for who has one full copy for each point " +
	"and knows at once which one. Umbra's figure begins with the API's request and holds the end of replication, the view of the point, the overlay, the definition and the start. " +
	"The row of 1,000 points begins with one from the server itself; the others were made in its store with the store's own code, 1 MiB each, all over what the guest needs to boot. " +
	"Each measurement is of a point that was not booted before."

// allRows are the comparisons, by their numbers. Those without run are listed as not measured.
func allRows() []row {
	return []row{
		{number: 1, title: "full sync of a full disk, plain", about: copyPeers, target: target{1, 1.2, atLeast}, quick: true, run: syncDense},
		{
			number: 2, title: "full sync of a disk 25 % full, plain", target: target{1, 1.5, atLeast}, run: syncSparse,
			about: "A quarter noise in pieces of 8 MiB, a quarter zeros that were written, the rest holes. Peers and promises are those of row 1.",
		},
		{
			number: 3, title: "full sync of a full disk, encrypted", target: target{1.7, 2.5, atLeast}, run: syncEncrypted,
			about: "The daemons as they are installed, mutual TLS between the hosts; against `nbdcopy` from QEMU's own NBD server, mutual TLS too, into `qemu-nbd`, and a sync. Both " +
				"ends of both lie on the same two cores. Promises are those of row 1.",
		},
		{
			number: 4, title: "a cycle with 1 MiB changed of 10 GiB, against virtnbdbackup -l inc", target: target{10, 20, atLeast}, run: cycleTime,
			about: "The same change of two servers that are alike to the byte, since virtnbdbackup refuses one with another tool's checkpoints. `virtnbdbackup -l inc` is the command that a user has for this; " +
				"it writes to the main host's own disk and ends with a sync of its files. It promises an increment that a restore has to replay; Umbra's is on the other host, and bootable.",
		},
		{
			number: 5, title: "compare-resync of 10 GiB after a lost bitmap, 1 % changed", target: target{2, 2, atLeast}, run: resyncTime,
			about: "One cluster of a hundred is changed, each apart from the others, and QEMU is killed: its bitmaps cannot be trusted then, and every cluster is compared by its checksum. The peers are those of " +
				"row 1, which after such a loss copy all of the disk; each is tried once on this disk, and the fastest is measured. Umbra encrypts here and the peer does not. To aim for is the speed at which this disk can be read, which is measured beside them, with `dd`, direct.",
		},
		{
			number: 6, title: "age of the newest point while the guest writes 10 MB/s", target: target{2, 1.2, atMost}, run: newestAge,
			about: "No peer: its own promise. A guest on emulated processors writes and flushes records of 400 kB at 25 a second. The age is looked at a hundred times a second: the time since the " +
				"moment of the main server that the newest point holds. It is measured once, in five parts of a minute.",
		},
		{
			number: 7, title: "the guest's write latency and rate under replication", target: target{1.15, 1, atMost}, run: writeLatency,
			about: "A guest on emulated processors writes 4 KiB after 4 KiB, direct and synchronous, all over a disk of 256 MiB, and times each write itself; beside it, the same without a pair, before. " +
				"A second disk full of noise makes the initial sync last. Guest, QEMU, both hosts and the control plane share two cores, so a sync also takes processor time from the guest, which on two machines it would not.",
		},
		{
			number: 8, title: "random reads from the newest, the middle and the oldest of 1,000 points", target: target{0.9, 1, atLeast}, quick: true, run: pointReads,
			about: "The same random reads, by fio through QEMU's block layer (`qemu-nbd`, cache=none), from a view of a point and from a flat qcow2 image that was converted from that view. " +
				"The flat image is what a user would have who kept one full copy for each point.",
		},
		{number: 9, title: "request of Failover to the guest's first line", target: bootTarget, run: failoverTime, about: bootPeer},
		{
			number: 10, title: "Change Recovery Point to the guest's first line", target: bootTarget, run: changeTime,
			about: bootPeer + " Here a server of another point runs, and is stopped within the figure; the flat copy finds nothing to stop.",
		},
		{
			number: 11, title: "view of a fully written 1 TiB disk with 1,000 points", target: target{1, 0.3, atMost}, quick: true, run: bigView,
			about: "No peer: a promise. The index has its full size, the data file is sparse, and every cluster lies apart from its neighbour, which is the worst case. " +
				"One process makes the store; the figures come from others, each of which opens it, which checks all of its index, and makes one view.",
		},
		{
			number: 12, title: "cost of a point as points grow", target: target{flat, 1, atMost}, quick: true, run: manyPointsCost,
			about: "No peer: ours with many points is held against ours with 100. Taken points are on stable storage; each deletion is of the oldest point, as retention does it. Both stores begin with the same disk, " +
				"fully written in random order: a view of a disk in few pieces takes less time, however many points there are.",
		},
		{
			number: 13, title: "store size against the sum of changed clusters", target: target{1.05, 1, atMost}, quick: true, run: storeSize,
			about: "No peer: blocks of the data files and the index, against the clusters that changed. Nothing is compressed.",
		},
		{
			number: 14, title: "commit of 4 GiB, against qemu-img convert", target: target{1, 1.2, atLeast}, run: commitTime,
			about: "The peer is `qemu-img convert -W -m 8` of the very view of the point, with `-t none` and without, and a sync of its file; the faster one counts. It has the machine to itself: " +
				"no server runs meanwhile, and nothing of it would survive a crash half-way. Umbra's figure is a commit by the API, of a server that runs and does next to nothing (a server at work would be spared): QEMU copies point and overlay to an image " +
				"that stands alone, hostd makes it durable, and has the server and its definition go on with it.",
		},
		{
			number: 15, title: "memory and processor of hostd, 50 servers on a host", target: target{10, 5, atMost}, run: fleetCost,
			about: "No peer: a promise. Fifty servers run on the main host under libvirt, each in a QEMU of its own, with no operating system, so that two cores suffice; their writes go through QEMU's block layer, and the name says the rate that they reached. " +
				"Pairs have the default policy, a point every 15 s; hostd logs as it does by default and shows its metrics. Memory is the process's proportional set size, with the pages of mapped files; processor is user and system time of hostd alone. " +
				"Each of the five figures is of one interval, so that it holds one cycle of each server. The limit of 1 % of a core was set for idle servers; those that write are held against it too.",
		},
	}
}
