package libvirt

import (
	"context"
	"fmt"
	"slices"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// blockStatsMax is how many figures are asked for; QEMU has eight.
const blockStatsMax = 16

var (
	requestStats = []string{"rd_operations", "wr_operations", "flush_operations"}
	timeStats    = []string{"rd_total_times", "wr_total_times", "flush_total_times"} // in nanoseconds
)

// IOCounters sums up the statistics of all disks: without a path, libvirt gives those of the domain
// (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainBlockStatsFlags). A server that is off is hypervisor.ErrNotRunning.
func (h *Hypervisor) IOCounters(ctx context.Context, server string) (hypervisor.IOCounters, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return hypervisor.IOCounters{}, err
	}
	what := fmt.Sprintf("get the block statistics of server %q", server)
	stats, err := ask(ctx, h, what, func(l *rpc.Libvirt) ([]rpc.TypedParam, error) {
		stats, _, err := l.DomainBlockStatsFlags(dom, "", blockStatsMax, 0)
		return stats, err
	})
	if err != nil {
		return hypervisor.IOCounters{}, h.orNotRunning(ctx, dom, err)
	}
	var io hypervisor.IOCounters
	for _, stat := range stats {
		value, _ := stat.Value.I.(int64)
		switch {
		case slices.Contains(requestStats, stat.Field):
			io.Requests += value
		case slices.Contains(timeStats, stat.Field):
			io.Took += time.Duration(value)
		}
	}
	return io, nil
}
