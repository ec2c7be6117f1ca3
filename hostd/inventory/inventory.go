// Package inventory tells the control plane what a host has: capacity, servers, networks, and whether the host can
// protect and be failed over to.
package inventory

import (
	"context"
	"errors"
	"fmt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/diskspace"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// Config is what an inventory is made from.
type Config struct {
	Host        string
	DataAddress string
	StoreDir    string
	Hypervisor  hypervisor.Inventory
}

// Take takes the inventory. When the hypervisor does not answer, the host is returned without what only it knows,
// together with the error.
func Take(ctx context.Context, cfg Config) (*umbrav1.Host, error) {
	host := &umbrav1.Host{
		Name: "hosts/" + cfg.Host, DataAddress: cfg.DataAddress, HostdVersion: telemetry.ReadBuild().Version, Capacity: &umbrav1.HostCapacity{},
	}
	storeErr := storeSpace(host.GetCapacity(), cfg.StoreDir)
	hypervisorErr := fromHypervisor(ctx, host, cfg.Hypervisor)
	host.Conditions = []*umbrav1.Condition{
		condition("CanProtect", hypervisorErr, "HypervisorReady", "HypervisorUnavailable", "The hypervisor answers."),
		condition("CanBeFailedOverTo", errors.Join(hypervisorErr, storeErr), "Ready", "NotReady", "The hypervisor answers and the store can be used."),
	}
	return host, errors.Join(hypervisorErr, storeErr)
}

func condition(kind string, err error, good, bad, message string) *umbrav1.Condition {
	if err != nil {
		return &umbrav1.Condition{Type: kind, Status: umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, Reason: bad, Message: err.Error()}
	}
	return &umbrav1.Condition{Type: kind, Status: umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, Reason: good, Message: message}
}

func storeSpace(capacity *umbrav1.HostCapacity, dir string) error {
	total, free, err := diskspace.Of(dir)
	capacity.StoreBytes, capacity.StoreFreeBytes = total, free
	return err
}

func fromHypervisor(ctx context.Context, host *umbrav1.Host, hv hypervisor.Inventory) error {
	about, err := hv.Host(ctx)
	if err != nil {
		return fmt.Errorf("asking the hypervisor about the host: %w", err)
	}
	host.LibvirtVersion, host.HypervisorVersion, host.Networks = about.LibvirtVersion, about.HypervisorVersion, about.Networks
	capacity := host.GetCapacity()
	capacity.Cpus = int32(about.CPUs) //nolint:gosec // no host has that many
	capacity.MemoryBytes, capacity.MemoryFreeBytes = about.MemoryBytes, about.MemoryFreeBytes
	servers, err := hv.Servers(ctx)
	if err != nil {
		return fmt.Errorf("asking the hypervisor for its servers: %w", err)
	}
	for _, server := range servers {
		host.Servers = append(host.Servers, describe(server))
	}
	return nil
}

func describe(server hypervisor.Server) *umbrav1.Server {
	described := &umbrav1.Server{
		Name: server.Name, Uuid: server.UUID, PowerState: Power(server.Power), MemoryBytes: server.MemoryBytes,
		Cpus: int32(server.CPUs), Networks: server.Networks, //nolint:gosec // no server has that many
	}
	var protectable int
	for _, disk := range server.Disks {
		described.Disks = append(described.Disks, &umbrav1.Disk{
			Target: disk.Target, SizeBytes: disk.SizeBytes, Format: disk.Format, Source: disk.Source, TracksChanges: disk.TracksChanges,
		})
		if !disk.ReadOnly && !disk.Shareable {
			protectable++
		}
	}
	var err error
	if protectable == 0 {
		err = errors.New("the server has no disk that can be replicated")
	}
	described.Conditions = []*umbrav1.Condition{condition("CanBeProtected", err, "HasDisks", "NoDisk", "The server has disks that can be replicated.")}
	return described
}

// Power is the API's form of a power state.
func Power(state hypervisor.PowerState) umbrav1.PowerState {
	return map[hypervisor.PowerState]umbrav1.PowerState{
		hypervisor.PowerRunning: umbrav1.PowerState_POWER_STATE_RUNNING,
		hypervisor.PowerPaused:  umbrav1.PowerState_POWER_STATE_PAUSED,
		hypervisor.PowerOff:     umbrav1.PowerState_POWER_STATE_OFF,
		hypervisor.PowerAbsent:  umbrav1.PowerState_POWER_STATE_ABSENT,
	}[state]
}
