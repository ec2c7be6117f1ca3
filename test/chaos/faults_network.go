package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// networkFaults break links. A silent loss is made by a neighbour entry with a hardware address that nobody has: the
// bridge takes the packets and no machine does, in one direction, and no error tells the sender.
var networkFaults = []Fault{
	{
		Name: "cut-main", Does: "the machine's cable is pulled and plugged in again", Hits: "main host", Weight: 2,
		Operator: "As if the main host were away, except that its server runs on.",
		Inject:   unplugged(func(w *world) *lab.Machine { return w.Main.Machine }),
	},
	{
		Name: "cut-shadow", Does: "the machine's cable is pulled and plugged in again", Hits: "shadow host", Weight: 2,
		Operator: "REPLICATION_ERROR with SHADOW_HOST_UNREACHABLE once the lease has lapsed; an operation waits.",
		Inject:   unplugged(func(w *world) *lab.Machine { return w.Shadow.Machine }),
	},
	{
		Name: "cut-control-plane", Does: "the machine's cable is pulled and plugged in again", Hits: "control plane", Weight: 2,
		Operator: "Both hosts are shown as not connected; replication goes on meanwhile.",
		Inject:   unplugged(func(w *world) *lab.Machine { return w.Control }),
	},
	{
		Name: "lose-main-to-shadow", Does: "packets from main to shadow vanish, those back arrive", Hits: "data link", Weight: 2,
		Operator: "No new points; the stream ends by its keepalive and is opened again.",
		Inject: silent(func(w *world) [][2]*lab.Machine {
			return [][2]*lab.Machine{{w.Main.Machine, w.Shadow.Machine}}
		}),
	},
	{
		Name: "lose-shadow-to-main", Does: "packets from shadow to main vanish: points are stored, their acknowledgement is lost", Hits: "data link", Weight: 2,
		Operator: "As before; what was stored is not lost.",
		Inject: silent(func(w *world) [][2]*lab.Machine {
			return [][2]*lab.Machine{{w.Shadow.Machine, w.Main.Machine}}
		}),
	},
	{
		Name: "lose-data-link", Does: "packets between main and shadow vanish, both reach the control plane", Hits: "data link", Weight: 1,
		Operator: "As before.",
		Inject: silent(func(w *world) [][2]*lab.Machine {
			return [][2]*lab.Machine{{w.Shadow.Machine, w.Main.Machine}, {w.Main.Machine, w.Shadow.Machine}}
		}),
	},
	{
		Name: "lose-shadow-session", Does: "packets from the shadow host to the control plane vanish", Hits: "session link", Weight: 1,
		Operator: "The shadow host counts as not connected after its lease; points are made on.",
		Inject: silent(func(w *world) [][2]*lab.Machine {
			return [][2]*lab.Machine{{w.Shadow.Machine, w.Control}}
		}),
	},
	{
		Name: "lose-main-session", Does: "packets from the control plane to the main host vanish", Hits: "session link", Weight: 1,
		Operator: "The main host counts as not connected; a failover does not wait for it, and the shadow refuses its epoch.",
		Inject: silent(func(w *world) [][2]*lab.Machine {
			return [][2]*lab.Machine{{w.Control, w.Main.Machine}}
		}),
	},
	{
		Name: "trickle", Does: "the main host sends at 64 kB/s", Hits: "main host", Weight: 1,
		Operator: "The age of the newest point grows; Protected becomes false.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			err := onMachine(ctx, w.Main.Machine, "tc", "qdisc", "replace", "dev", nic, "root", "tbf", "rate", "512kbit", "burst", "16kb", "latency", "400ms")
			if err != nil {
				w.note("  this kernel cannot do it: %v", err)
				return nil, errNothingToHit
			}
			return func(ctx context.Context) error {
				return onMachine(ctx, w.Main.Machine, "tc", "qdisc", "del", "dev", nic, "root")
			}, nil
		},
	},
}

// nic is every machine's network interface.
const nic = "eth0"

// nobody is a hardware address that no machine of the lab has.
const nobody = "02:00:00:00:fa:11"

func unplugged(victim func(*world) *lab.Machine) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		m := victim(w)
		return func(ctx context.Context) error { return m.SetLink(ctx, true) }, m.SetLink(ctx, false)
	}
}

// silent loses all packets from the first of each two machines to the second.
func silent(pairs func(*world) [][2]*lab.Machine) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		var failed []error
		for _, p := range pairs(w) {
			failed = append(failed, onMachine(ctx, p[0], "ip", "neigh", "replace", p[1].Address, "lladdr", nobody, "dev", nic, "nud", "permanent"))
		}
		mend := func(ctx context.Context) error {
			var failed []error
			for _, p := range pairs(w) {
				failed = append(failed, onMachine(ctx, p[0], "ip", "neigh", "del", p[1].Address, "dev", nic))
			}
			return errors.Join(failed...)
		}
		return mend, errors.Join(failed...)
	}
}

// onMachine runs a command in the machine's network, whether the machine has power or not.
func onMachine(ctx context.Context, m *lab.Machine, name string, args ...string) error {
	all := append([]string{"netns", "exec", m.Namespace, name}, args...)
	if out, err := exec.CommandContext(ctx, "ip", all...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", name, m.Name, err, out)
	}
	return nil
}
