// Package hypervisor says what hostd needs of a hypervisor host, split by who needs it: Inventory for what the
// control plane is told, Source for the main role, Target for the shadow role. The libvirt package implements it
// for real hosts and the simulated package for tests of thousands of them; one suite runs on both.
//
// Every call is bounded by its context, may be repeated, and may be made from many goroutines at once. A server is
// named by its libvirt name; where a call takes a UUID as well, a server of that name with another UUID is ErrNotFound.
package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers decide on. Implementations wrap them.
var (
	// ErrNotFound: there is no such server, checkpoint, network or job.
	ErrNotFound = errors.New("not found at the hypervisor")
	// ErrCheckpointLost: the checkpoint to start from is gone or its bitmap is broken, so what changed since is
	// not known; compare instead.
	ErrCheckpointLost = errors.New("the checkpoint cannot say what changed")
	// ErrBackupBusy: a backup job that is not Umbra's is running on the server.
	ErrBackupBusy = errors.New("another backup job is running")
	// ErrJobLost: the hypervisor was killed as it began a backup job, and takes the server for being backed up although no
	// such job exists. Nobody can end that, and none can begin.
	ErrJobLost = errors.New("the hypervisor takes the server for being backed up, and knows of no backup job")
	// ErrNotRunning: the call needs a running server.
	ErrNotRunning = errors.New("the server is not running")
	// ErrAgent: the guest agent is not there or did not answer in time.
	ErrAgent = errors.New("the guest agent does not answer")
	// ErrIncompatible: a server of this definition cannot be started on this host.
	ErrIncompatible = errors.New("the server does not fit this host")
	// ErrUnavailable: the hypervisor itself cannot be reached. It may come back by itself.
	ErrUnavailable = errors.New("the hypervisor cannot be reached")
)

// PowerState of a server.
type PowerState int

// The power states. Absent is for a server that is not defined.
const (
	PowerUnknown PowerState = iota
	PowerRunning
	PowerPaused
	PowerOff
	PowerAbsent
)

func (s PowerState) String() string {
	names := [...]string{"unknown", "running", "paused", "off", "absent"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("PowerState(%d)", int(s))
	}
	return names[s]
}

// Server is a virtual server as the hypervisor defines it.
type Server struct {
	Name        string
	UUID        string
	Power       PowerState
	Autostart   bool
	MemoryBytes int64
	CPUs        int
	Disks       []Disk   // in the order of the definition; no CD-ROMs, no floppies
	Networks    []string // libvirt networks of its interfaces as it is defined, without doubles
}

// Disk is a disk of a server.
type Disk struct {
	Target        string // "vda"
	Source        string // a path, or what else libvirt says
	Format        string // "qcow2", "raw"
	SizeBytes     int64  // virtual size
	TracksChanges bool   // whether checkpoints (persistent bitmaps) work on it
	ReadOnly      bool
	Shareable     bool
}

// Host is the hypervisor host as a whole.
type Host struct {
	LibvirtVersion    string
	HypervisorVersion string
	CPUs              int
	MemoryBytes       int64
	MemoryFreeBytes   int64
	Networks          []string // active libvirt networks
	KVM               bool     // whether servers of type kvm can be started
	ServerUID         int      // the user and group that servers run as, who must be able to use
	ServerGID         int      // sockets and files made for them; -1 when not known
}

// Inventory tells what a host has.
type Inventory interface {
	Host(ctx context.Context) (Host, error)
	Servers(ctx context.Context) ([]Server, error)
	// Server gets one server by name, or ErrNotFound.
	Server(ctx context.Context, name string) (Server, error)
	// ServerXML is the definition to start the server from elsewhere: inactive, migratable where libvirt can.
	ServerXML(ctx context.Context, name string) (string, error)
	// IOCounters are the server's own; what others read through an export of a job, or copy, does not count. ErrNotRunning when it is off.
	IOCounters(ctx context.Context, server string) (IOCounters, error)
	// Diagnostics is the hypervisor's view of a server for a support bundle, by file name. Without secrets.
	Diagnostics(ctx context.Context, name string) (map[string][]byte, error)
}

// BackupRequest asks for a pull-mode backup job.
type BackupRequest struct {
	Server string
	UUID   string
	// Checkpoint to make with the job. Names of Umbra's begin with "umbra-".
	Checkpoint string
	// Since is the checkpoint to tell changes from. Empty means that no changes are asked for.
	Since string
	// Disks are the target names. Disks that track no changes get no checkpoint and no bitmap.
	Disks []string
	// RunDir is an existing folder of the pair's own for scratch files, and for the NBD socket where the hypervisor has no better
	// place. The call gives it to the user that servers run as. Its path is short enough for a socket (108 bytes).
	RunDir string
	// FreezeBudget is how long file systems may stay frozen around the moment of the backup. 0 means no freeze.
	FreezeBudget time.Duration
}

// Backup is a running job.
type Backup struct {
	Socket string                  // unix socket of the NBD server
	Disks  map[string]BackupExport // by target name
	// Frozen tells whether file systems were frozen at the moment that the job's view holds; FreezeError why not.
	Frozen      bool
	FreezeError error
}

// BackupExport is one disk of a job.
type BackupExport struct {
	Name      string // NBD export name
	SizeBytes int64
	// Bitmap is the NBD meta context that tells what changed since BackupRequest.Since, or "" when it cannot be told.
	Bitmap string
	// Scratch is the path of the scratch file that grows while the guest writes.
	Scratch string
}

// IOCounters are what a running server has done on all its disks since it was started. They grow.
type IOCounters struct {
	Requests int64         // reads, writes and flushes that are done
	Took     time.Duration // the sum of what they took, each from the guest's request to its end
}

// Source is what the main role needs.
type Source interface {
	Inventory
	// BeginBackup begins a job. The view is of one moment for all disks, between the call and its return. A job of Umbra's that is left from an earlier
	// life is ended first; a foreign one is ErrBackupBusy. ErrJobLost, ErrCheckpointLost, ErrNotRunning, ErrNotFound as above.
	BeginBackup(ctx context.Context, req BackupRequest) (Backup, error)
	// EndBackup ends Umbra's job on the server and removes its socket and scratch files in runDir. No job is no error, and neither is ErrJobLost.
	EndBackup(ctx context.Context, server, runDir string) error
	// Checkpoints lists Umbra's checkpoints of the server, oldest first.
	Checkpoints(ctx context.Context, server string) ([]string, error)
	// DeleteCheckpoint deletes one of Umbra's. One that is not there is no error. One whose bitmap is broken is removed all the same.
	// Of a server that is off the bitmaps are removed from its images; a start at that very moment may fail. Where that cannot be done it is
	// ErrNotRunning, and the checkpoint stays.
	DeleteCheckpoint(ctx context.Context, server, checkpoint string) error

	// Shutdown stops a server: asks it, and after grace takes its power, whether or not it could be asked. It is not asked when grace is 0. A
	// server that is off or not there is no error.
	Shutdown(ctx context.Context, server string, grace time.Duration) error
	// Start starts a server that is off. A running one is no error.
	Start(ctx context.Context, server string) error
	// SetLinks sets the links of all network interfaces up or down, now and in the definition.
	SetLinks(ctx context.Context, server string, up bool) error
	// SetAutostart says whether the hypervisor starts the server with itself.
	SetAutostart(ctx context.Context, server string, on bool) error
}

// DiskCopy is a running copy of a disk.
type DiskCopy struct {
	Path       string // of the image that it is copied into; maybe by somebody else
	DoneBytes  int64
	TotalBytes int64
	// Complete: the copy holds all that the disk holds, and gets all that is written to it.
	Complete bool
	// Switching: the server is about to go on with the copy, or with the disk if that fails.
	Switching bool
}

// Target is what the shadow role needs.
type Target interface {
	Inventory
	// Define defines a server from libvirt XML, or changes the definition of that name and UUID.
	Define(ctx context.Context, xml string) error
	// CheckDefinition says why a server of this XML could not be started here: machine type, CPU model, type of
	// virtualisation, as ErrIncompatible; other errors mean that it could not be found out. Networks and memory are the caller's to check.
	CheckDefinition(ctx context.Context, xml string) error
	// Start starts a server that is off. A running one is no error.
	Start(ctx context.Context, server string) error
	// Destroy takes a server's power. One that is off or not there is no error.
	Destroy(ctx context.Context, server string) error
	// Undefine removes the definition, with NVRAM and checkpoint metadata. One that is not there is no error.
	Undefine(ctx context.Context, server string) error
	// CreateImage makes an empty qcow2 image of that virtual size. It can be the active layer over a backing chain which the server's
	// XML names, or what a disk is copied into. An existing file is an error. owner as in Host.
	CreateImage(ctx context.Context, path string, sizeBytes int64) error
	// CopyStart begins to copy a disk of a running server, with all that lies below its image, into the empty image at path. What the
	// guest writes meanwhile goes to both; the server does not need the copy. A copy that runs is no error. It ends with the server's run.
	CopyStart(ctx context.Context, server, disk, path string) error
	// CopyStatus tells how far it is, or ErrNotFound when none is running. It waits for a switch that another call has begun; where the
	// server's disk is after ErrNotFound is to be asked anew.
	CopyStatus(ctx context.Context, server, disk string) (DiskCopy, error)
	// CopyLimit has a copy that runs take no more than so many bytes a second, or as many as it can (0). ErrNotFound when none is running.
	CopyLimit(ctx context.Context, server, disk string, bytesPerSecond int64) error
	// CopyCancel ends the copying; the server goes on with the disk. No copy is no error.
	CopyCancel(ctx context.Context, server, disk string) error
	// CopySwitch has the server go on with the copy instead of the disk, in its definition too, and ends the copying. What the copy holds
	// is flushed before. An error, and nothing changed, for one that is not complete; ErrNotFound when none is running.
	CopySwitch(ctx context.Context, server, disk string) error
	// Suspend stops the guest of a running server, and has everything written out that was written to its disks and to copies of them. One that
	// is paused already is left as it is, and nothing is written out. ErrNotRunning when it is off.
	Suspend(ctx context.Context, server string) error
	// Resume lets the guest go on. One that runs is no error. ErrNotRunning when it is off.
	Resume(ctx context.Context, server string) error
	// AgentPing asks the guest agent for an answer; ErrAgent when there is none.
	AgentPing(ctx context.Context, server string) error
}
