package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// shutdownPoll is how often a server that was asked to shut down is looked at.
const shutdownPoll = 200 * time.Millisecond

// Start starts a server that is off. A running or paused one is left as it is.
func (h *Hypervisor) Start(ctx context.Context, server string) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	failed := h.call(ctx, fmt.Sprintf("start server %q", server), func(l *rpc.Libvirt) error {
		return l.DomainCreate(dom)
	})
	return h.unless(ctx, dom, active, failed)
}

// unless is what failed, or nil when the server is where the call would have brought it, for which libvirt has no code of its own.
func (h *Hypervisor) unless(ctx context.Context, dom rpc.Domain, there func(hypervisor.PowerState) bool, failed error) error {
	if code(failed) != rpc.ErrOperationInvalid {
		return failed
	}
	if state, err := h.power(ctx, dom); err == nil && there(state) {
		return nil
	}
	return failed
}

// Destroy takes a server's power. One that is off or not there is no error.
func (h *Hypervisor) Destroy(ctx context.Context, server string) error {
	dom, err := h.domain(ctx, server, "")
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.destroy(ctx, dom)
}

func (h *Hypervisor) destroy(ctx context.Context, dom rpc.Domain) error {
	failed := h.call(ctx, fmt.Sprintf("take the power of server %q", dom.Name), func(l *rpc.Libvirt) error {
		return l.DomainDestroy(dom)
	})
	if errors.Is(failed, hypervisor.ErrNotFound) {
		return nil
	}
	if code(failed) != rpc.ErrOperationInvalid {
		return failed
	}
	state, err := h.power(ctx, dom)
	if errors.Is(err, hypervisor.ErrNotFound) || err == nil && state == hypervisor.PowerOff {
		return nil
	}
	return failed
}

// Shutdown asks a server to shut down, by its agent if it has one and else by the power button, and takes its power
// after grace, also of a QEMU that hangs; at once when grace is 0. It returns when the server is off. A server that is off or
// not there is no error.
func (h *Hypervisor) Shutdown(ctx context.Context, server string, grace time.Duration) error {
	dom, err := h.domain(ctx, server, "")
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if grace > 0 {
		if off, err := h.askToShutDown(ctx, dom, grace); off || err != nil {
			return err
		}
	}
	return h.destroy(ctx, dom)
}

func (h *Hypervisor) askToShutDown(ctx context.Context, dom rpc.Domain, grace time.Duration) (off bool, err error) {
	begun := h.clock.Now()
	asking, stop := context.WithTimeout(ctx, grace)
	asked := h.call(asking, fmt.Sprintf("ask server %q to shut down", dom.Name), func(l *rpc.Libvirt) error {
		return l.DomainShutdown(dom)
	})
	stop()
	for {
		state, err := h.power(ctx, dom)
		if errors.Is(err, hypervisor.ErrNotFound) || err == nil && state == hypervisor.PowerOff {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if asked != nil {
			telemetry.From(ctx, h.log).WarnContext(ctx, "server cannot be asked to shut down", "server", dom.Name, "error", asked)
			return false, nil
		}
		if h.clock.Now().Sub(begun) >= grace {
			return false, nil
		}
		if err := h.clock.Wait(ctx, shutdownPoll); err != nil {
			return false, fmt.Errorf("wait for server %q to shut down: %w", dom.Name, err)
		}
	}
}

// Suspend stops the guest of a running server. QEMU then flushes all images, tables too, as after its command "stop"
// (do_vm_stop calls bdrv_flush_all; QEMU 7.2). libvirt sends that command only to a server that runs.
func (h *Hypervisor) Suspend(ctx context.Context, server string) error {
	return h.onActive(ctx, server, "suspend", hypervisor.PowerPaused, (*rpc.Libvirt).DomainSuspend)
}

// Resume lets the guest of a server go on.
func (h *Hypervisor) Resume(ctx context.Context, server string) error {
	return h.onActive(ctx, server, "resume", hypervisor.PowerRunning, (*rpc.Libvirt).DomainResume)
}

// onActive calls do on a server that is on. It is no error when the server turns out to be where do would bring it.
func (h *Hypervisor) onActive(
	ctx context.Context, server, verb string, where hypervisor.PowerState, do func(*rpc.Libvirt, rpc.Domain) error,
) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	failed := h.call(ctx, fmt.Sprintf("%s server %q", verb, server), func(l *rpc.Libvirt) error { return do(l, dom) })
	failed = h.unless(ctx, dom, func(state hypervisor.PowerState) bool { return state == where }, failed)
	return h.orNotRunning(ctx, dom, failed)
}

// SetAutostart says whether libvirt starts the server with itself.
func (h *Hypervisor) SetAutostart(ctx context.Context, server string, on bool) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	var flag int32
	if on {
		flag = 1
	}
	return h.call(ctx, fmt.Sprintf("set autostart of server %q", server), func(l *rpc.Libvirt) error {
		return l.DomainSetAutostart(dom, flag)
	})
}
