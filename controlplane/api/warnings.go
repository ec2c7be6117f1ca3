package api

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	onMain   = umbrav1.Side_SIDE_MAIN
	onShadow = umbrav1.Side_SIDE_SHADOW
)

// warnings are what the preflight of a new pair finds that does not forbid the protection.
func warnings(p drpair.Pair, server *umbrav1.Server, main, shadow observed.Host, now time.Time) []*umbrav1.Failure {
	found := slices.Concat(mainWarnings(server, main), shadowWarnings(p, server, shadow))
	for _, warning := range found {
		warning.Code, warning.OccurTime = int32(codes.FailedPrecondition), timestamp(now)
	}
	return found
}

func mainWarnings(server *umbrav1.Server, host observed.Host) []*umbrav1.Failure {
	var found []*umbrav1.Failure
	if !host.Connected {
		found = append(found, warning(onMain, umbrav1.ErrorReason_ERROR_REASON_MAIN_HOST_UNREACHABLE,
			hostName(host.ID)+" is not connected: replication begins when it is.", "Bring the host, its hostd or the network back."))
	}
	if server.GetPowerState() != umbrav1.PowerState_POWER_STATE_RUNNING {
		found = append(found, warning(onMain, umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING,
			server.GetName()+" is not running: replication begins when it is.", "Start the server."))
	}
	for _, disk := range server.GetDisks() {
		if !disk.GetTracksChanges() {
			found = append(found, warning(onMain, umbrav1.ErrorReason_ERROR_REASON_CHANGES_NOT_TRACKED,
				fmt.Sprintf("Changes of disk %s (%s) are not tracked: every cycle reads all %d bytes of it and compares.", disk.GetTarget(), disk.GetFormat(), disk.GetSizeBytes()),
				"Convert the disk to qcow2, or choose an interval that leaves time to read it."))
		}
	}
	return found
}

func shadowWarnings(p drpair.Pair, server *umbrav1.Server, host observed.Host) []*umbrav1.Failure {
	var found []*umbrav1.Failure
	if !host.Connected {
		found = append(found, warning(onShadow, umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE,
			hostName(host.ID)+" is not connected: replication begins when it is.", "Bring the host, its hostd or the network back."))
	}
	for _, network := range missingNetworks(p.Policy, server, host) {
		found = append(found, warning(onShadow, umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING,
			fmt.Sprintf("%s has no network %q, so a failover would fail.", hostName(host.ID), network),
			"Make the network there.", "Map the network to another one in policy.network_mappings."))
	}
	capacity := host.Inventory.GetCapacity()
	if free := capacity.GetMemoryFreeBytes(); free < server.GetMemoryBytes() {
		found = append(found, warning(onShadow, umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING,
			fmt.Sprintf("%s has %d bytes of memory free and the server needs %d, so a failover would fail now.", hostName(host.ID), free, server.GetMemoryBytes()),
			"Free memory there, or choose another shadow host."))
	}
	var disks int64
	for _, disk := range server.GetDisks() {
		disks += disk.GetSizeBytes()
	}
	if free := capacity.GetStoreFreeBytes(); free < disks {
		found = append(found, warning(onShadow, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE,
			fmt.Sprintf("The store of %s has %d bytes free and the disks are %d bytes large, if they are full.", hostName(host.ID), free, disks),
			"Make room there, or choose another shadow host."))
	}
	if serverNamed(host, p.Shadow.Server) != nil {
		found = append(found, warning(onShadow, umbrav1.ErrorReason_ERROR_REASON_SERVER_NAME_TAKEN,
			fmt.Sprintf("%s has a server named %q already, so a failover would fail.", hostName(host.ID), p.Shadow.Server),
			"Choose another name in dr_pair.shadow.server."))
	}
	return found
}

// missingNetworks are the networks that the shadow server would be attached to and that its host does not have.
func missingNetworks(policy drpair.Policy, server *umbrav1.Server, host observed.Host) []string {
	var missing []string
	for _, network := range server.GetNetworks() {
		for _, mapping := range policy.Networks {
			if mapping.Main == network {
				network = mapping.Shadow
				break
			}
		}
		if !slices.Contains(host.Inventory.GetNetworks(), network) && !slices.Contains(missing, network) {
			missing = append(missing, network)
		}
	}
	return missing
}

func warning(side umbrav1.Side, reason umbrav1.ErrorReason, message string, actions ...string) *umbrav1.Failure {
	return &umbrav1.Failure{Reason: reason, Side: side, Message: message, RecommendedActions: actions}
}
