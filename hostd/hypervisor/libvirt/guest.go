package libvirt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// agentForever is libvirt's default: an agent's answer is waited for without end.
const agentForever = -2

// frozen has moment happen with the server's file systems frozen, if there is a budget for it.
func (h *Hypervisor) frozen(ctx context.Context, dom rpc.Domain, budget time.Duration,
	moment func(context.Context) error,
) (frozen bool, why, failed error) {
	if budget <= 0 {
		return false, nil, moment(ctx)
	}
	f := freezer{
		fileSystems: &guest{h: h, dom: dom, budget: budget},
		clock:       h.clock, errands: h.errands, log: telemetry.From(ctx, h.log).With("server", dom.Name),
	}
	return f.during(ctx, budget, moment)
}

// guest is a server's file systems, through its agent.
type guest struct {
	h      *Hypervisor
	dom    rpc.Domain
	budget time.Duration
}

func (g *guest) freeze(ctx context.Context) (int, error) {
	seconds := max(1, int32(math.Ceil(g.budget.Seconds())))
	what := fmt.Sprintf("freeze the file systems of server %q", g.dom.Name)
	count, err := ask(ctx, g.h, what, func(l *rpc.Libvirt) (int32, error) {
		// Otherwise libvirt keeps waiting for a hung agent after this call was given up, and lets no thaw through.
		if _, err := l.DomainAgentSetResponseTimeout(g.dom, seconds, 0); err != nil && code(err) != rpc.ErrNoSupport {
			return 0, err
		}
		return l.DomainFsfreeze(g.dom, nil, 0)
	})
	return int(count), asFreezeError(err)
}

func (g *guest) thaw(ctx context.Context) (int, error) {
	what := fmt.Sprintf("thaw the file systems of server %q", g.dom.Name)
	count, err := ask(ctx, g.h, what, func(l *rpc.Libvirt) (int32, error) {
		count, err := l.DomainFsthaw(g.dom, nil, 0)
		if err == nil {
			_, _ = l.DomainAgentSetResponseTimeout(g.dom, agentForever, 0)
		}
		return count, err
	})
	return int(count), asFreezeError(err)
}

func asFreezeError(err error) error {
	switch {
	case err == nil:
		return nil
	case code(err) == rpc.ErrArgumentUnsupported, code(err) == rpc.ErrAgentUnresponsive && saysNoAgent(err):
		return fmt.Errorf("%w: %w", errNoAgent, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", hypervisor.ErrAgent, err)
	}
	return err
}
