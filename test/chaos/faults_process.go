package chaos

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// processFaults end or stop one program.
var processFaults = []Fault{
	{
		Name: "kill-main-hostd", Does: "kill -9 of hostd, started again later", Hits: "main host", Weight: 3,
		Operator: "Nothing if it is short; REPLICATION_ERROR with MAIN_HOST_UNREACHABLE once the lease has lapsed. Points stay usable, failover possible.",
		Inject:   killed(func(w *world) *lab.Service { return w.Main.Hostd }),
	},
	{
		Name: "kill-shadow-hostd", Does: "kill -9 of hostd, started again later", Hits: "shadow host", Weight: 3,
		Operator: "REPLICATION_ERROR or nothing; ReadyForFailover is false once the lease has lapsed. An operation that runs goes on where it was.",
		Inject:   killed(func(w *world) *lab.Service { return w.Shadow.Hostd }),
	},
	{
		Name: "kill-control-plane", Does: "kill -9 of the control plane with its etcd, started again later", Hits: "control plane", Weight: 3,
		Operator: "The API is away; replication and servers go on. Afterwards every operation goes on from its record.",
		Inject:   killed(func(w *world) *lab.Service { return w.ControlPlane }),
	},
	{
		Name: "kill-main-libvirtd", Does: "kill -9 of libvirtd, started again later; guests run on", Hits: "main host", Weight: 2,
		Operator: "REPLICATION_ERROR with HYPERVISOR while it is away; then points again, by comparison if the bitmap is lost.",
		Inject:   killedLibvirtd(func(w *world) *lab.Host { return w.Main }),
	},
	{
		Name: "kill-shadow-libvirtd", Does: "kill -9 of libvirtd, started again later; guests run on", Hits: "shadow host", Weight: 2,
		Operator: "Nothing while replicating, except ReadyForFailover; an operation waits for libvirt for up to a minute.",
		Inject:   killedLibvirtd(func(w *world) *lab.Host { return w.Shadow }),
	},
	{
		Name: "hang-main-hostd", Does: "SIGSTOP of hostd, continued later", Hits: "main host", Weight: 1,
		Operator: "As if hostd were away.",
		Inject:   hung(func(w *world) *lab.Service { return w.Main.Hostd }),
	},
	{
		Name: "hang-shadow-hostd", Does: "SIGSTOP of hostd, continued later", Hits: "shadow host", Weight: 1,
		Operator: "As if hostd were away.",
		Inject:   hung(func(w *world) *lab.Service { return w.Shadow.Hostd }),
	},
	{
		Name: "hang-main-libvirtd", Does: "SIGSTOP of libvirtd: its calls hang; continued later", Hits: "main host", Weight: 1,
		Operator: "No new points meanwhile; REPLICATION_ERROR with HYPERVISOR when a call takes longer than its limit.",
		Inject:   hung(func(w *world) *lab.Service { return w.Main.Libvirtd }),
	},
	{
		Name: "hang-shadow-libvirtd", Does: "SIGSTOP of libvirtd: its calls hang; continued later", Hits: "shadow host", Weight: 1,
		Operator: "An operation's step takes longer.",
		Inject:   hung(func(w *world) *lab.Service { return w.Shadow.Libvirtd }),
	},
	{
		Name: "hang-control-plane", Does: "SIGSTOP of the control plane, continued later", Hits: "control plane", Weight: 1,
		Operator: "The API does not answer; replication and servers go on.",
		Inject:   hung(func(w *world) *lab.Service { return w.ControlPlane }),
	},
}

type injector = func(context.Context, *world) (func(context.Context) error, error)

func killedLibvirtd(of func(*world) *lab.Host) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		host := of(w)
		return func(ctx context.Context) error { return w.startLibvirtd(ctx, host) }, host.Libvirtd.Kill(ctx)
	}
}

func killed(victim func(*world) *lab.Service) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		service := victim(w)
		return service.Start, service.Kill(ctx)
	}
}

func hung(victim func(*world) *lab.Service) injector {
	return func(_ context.Context, w *world) (func(context.Context) error, error) {
		service := victim(w)
		again := func(context.Context) error {
			if err := service.Signal(unix.SIGCONT); !errors.Is(err, process.ErrGone) {
				return err
			}
			return nil // it has fallen by itself since
		}
		err := service.Signal(unix.SIGSTOP)
		if errors.Is(err, process.ErrGone) {
			err = errNothingToHit // it had fallen by itself
		}
		return again, err
	}
}

// nothing mends what mends itself.
func nothing(context.Context) error { return nil }

// mendAll mends in this order, and goes on past what fails.
func mendAll(mends ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		var failed []error
		for _, mend := range mends {
			failed = append(failed, mend(ctx))
		}
		return errors.Join(failed...)
	}
}
