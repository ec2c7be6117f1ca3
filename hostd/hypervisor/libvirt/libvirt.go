// Package libvirt is the hypervisor of real hosts: libvirt over its local socket, for servers run by QEMU.
//
// It promises what package hypervisor promises. Besides: a libvirtd that restarts is reconnected to by itself, and calls
// in between are hypervisor.ErrUnavailable. A libvirtd that hangs makes a call return at its context's end or after
// Config.CallTimeout, whichever is first, and leaves nothing behind in this process: every call has a connection of its
// own, which is closed when the call is given up. What libvirtd then does with the request is unknown to the caller.
//
// It is the only package of the product that speaks to libvirt. hostd, running as root on the same machine, calls it.
package libvirt

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// defaultSocket is where libvirtd, or virtproxyd where the daemons are split, listens.
	defaultSocket = "/run/libvirt/libvirt-sock"
	// defaultCallTimeout is above the 30 s that libvirt itself waits for another job of a server to end.
	defaultCallTimeout = 45 * time.Second
	defaultLogDir      = "/var/log/libvirt/qemu"
)

// Config says which libvirt it is. The zero value is the machine's own.
type Config struct {
	Socket      string        // "/run/libvirt/libvirt-sock" when empty
	CallTimeout time.Duration // bounds every single call to libvirt; 45 s when 0
	LogDir      string        // of QEMU's logs, for diagnostics; "/var/log/libvirt/qemu" when empty
	Clock       clock.Clock   // the system's when nil
	Logger      *slog.Logger  // none when nil
}

// Hypervisor is the libvirt of one host. It is safe for concurrent use. Close it after use.
type Hypervisor struct {
	socket      string
	callTimeout time.Duration
	logDir      string
	clock       clock.Clock
	log         *slog.Logger

	connections *pool
	errands     *errands
	owner       atomic.Pointer[fileOwner] // once it is known
}

var (
	_ hypervisor.Source = (*Hypervisor)(nil)
	_ hypervisor.Target = (*Hypervisor)(nil)
)

// New returns the hypervisor. It does not connect: libvirt need not be there yet.
func New(cfg Config) *Hypervisor {
	h := &Hypervisor{
		socket: cfg.Socket, callTimeout: cfg.CallTimeout, logDir: cfg.LogDir, clock: cfg.Clock, log: cfg.Logger,
	}
	if h.socket == "" {
		h.socket = defaultSocket
	}
	if h.callTimeout <= 0 {
		h.callTimeout = defaultCallTimeout
	}
	if h.logDir == "" {
		h.logDir = defaultLogDir
	}
	if h.clock == nil {
		h.clock = clock.System
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.connections = newPool(h.socket)
	h.errands = newErrands()
	return h
}

// Close ends what runs in the background, waits for it, and closes the idle connections. Calls under way end as they
// would have; calls made afterwards are hypervisor.ErrUnavailable.
func (h *Hypervisor) Close() {
	h.errands.close()
	h.connections.close()
}
