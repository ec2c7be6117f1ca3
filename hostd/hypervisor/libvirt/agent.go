package libvirt

import (
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// agentPingSeconds is how long the agent has to answer a ping.
const agentPingSeconds = 5

// AgentPing asks the guest agent for an answer; hypervisor.ErrAgent when there is none within five seconds.
func (h *Hypervisor) AgentPing(ctx context.Context, server string) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	if err := h.running(ctx, dom); err != nil {
		return err
	}
	return asAgentError(h.call(ctx, fmt.Sprintf("ping the agent of server %q", server), func(l *rpc.Libvirt) error {
		_, err := l.QEMUDomainAgentCommand(dom, `{"execute":"guest-ping"}`, agentPingSeconds, 0)
		return err
	}))
}

// asAgentError adds what libvirt says of servers that have no agent's channel at all.
func asAgentError(err error) error {
	if code(err) == rpc.ErrArgumentUnsupported {
		return fmt.Errorf("%w: %w", hypervisor.ErrAgent, err)
	}
	return err
}
