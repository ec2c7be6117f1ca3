// Package simulated is a hypervisor host in memory, for tests of many of them and of faults that are hard to have on a
// real one. It keeps the same contract as real libvirt, by the same suite. A backup job is served by a real NBD server on
// a real unix socket, so whatever reads one reads the other.
//
// What it leaves out: guests run nothing, so no agent answers and nobody listens to the power button; the content of a
// backing file is not known to it, only which images need one; a pull ends at once; every definition fits; networks have no
// links to look at.
package simulated

import (
	"context"
	"fmt"
	"sync"

	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// Hypervisor is a host in memory. It is safe for concurrent use. Close it after use.
type Hypervisor struct {
	host hypervisor.Host

	mu      sync.Mutex
	down    bool
	images  map[string]*image // by path
	servers map[string]*server
	order   []string // names of the servers, as they were defined
}

var (
	_ hypervisor.Source = (*Hypervisor)(nil)
	_ hypervisor.Target = (*Hypervisor)(nil)
)

type server struct {
	definition  *libvirtxml.Domain
	power       hypervisor.PowerState
	autostart   bool
	disks       []*disk
	checkpoints []*checkpoint // oldest first
	job         *job
}

type disk struct {
	hypervisor.Disk
	path  string
	image *image
	// copyPath is the image that the disk is being copied into, or "".
	copyPath string
	given    *libvirtxml.DomainDisk
}

// New returns a host of this description, without servers.
func New(host hypervisor.Host) *Hypervisor {
	return &Hypervisor{host: host, images: map[string]*image{}, servers: map[string]*server{}}
}

// Close ends all jobs and waits for their servers.
func (h *Hypervisor) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.servers {
		s.endJob()
	}
}

// SetAvailable says whether calls reach the hypervisor; otherwise they are hypervisor.ErrUnavailable. Servers and jobs go on.
func (h *Hypervisor) SetAvailable(available bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = !available
}

// enter locks the host for a call. leave must be called when err is nil.
func (h *Hypervisor) enter(ctx context.Context) (leave func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	if h.down {
		h.mu.Unlock()
		return nil, hypervisor.ErrUnavailable
	}
	return h.mu.Unlock, nil
}

// on calls fn for a server with the host locked. A server that is not there is hypervisor.ErrNotFound.
func (h *Hypervisor) on(ctx context.Context, name string, fn func(*server) error) error {
	leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s, ok := h.servers[name]
	if !ok {
		return fmt.Errorf("server %q: %w", name, hypervisor.ErrNotFound)
	}
	return fn(s)
}

func (s *server) active() bool {
	return s.power == hypervisor.PowerRunning || s.power == hypervisor.PowerPaused
}

// end is the end of a server's run, whatever it came by.
func (s *server) end() {
	s.endJob()
	s.power = hypervisor.PowerOff
	for _, d := range s.disks {
		d.copyPath = ""
	}
}

func (s *server) disk(target string) (*disk, error) {
	for _, d := range s.disks {
		if d.Target == target {
			return d, nil
		}
	}
	return nil, fmt.Errorf("disk %q: %w", target, hypervisor.ErrNotFound)
}

// definedDisk is the disk in the definition, which a running server need not have taken up.
func (s *server) definedDisk(target string) *libvirtxml.DomainDisk {
	for i := range s.definition.Devices.Disks {
		if d := &s.definition.Devices.Disks[i]; d.Target != nil && d.Target.Dev == target {
			return d
		}
	}
	return nil
}
