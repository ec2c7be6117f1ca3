package libvirt

import (
	"errors"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// sentinels are the answers of libvirt that mean one thing whatever was asked. The others are judged by who asked.
var sentinels = map[rpc.ErrorNumber]error{
	rpc.ErrNoDomain:               hypervisor.ErrNotFound,
	rpc.ErrNoDomainCheckpoint:     hypervisor.ErrNotFound,
	rpc.ErrNoDomainBackup:         hypervisor.ErrNotFound,
	rpc.ErrNoNetwork:              hypervisor.ErrNotFound,
	rpc.ErrCheckpointInconsistent: hypervisor.ErrCheckpointLost,
	rpc.ErrAgentUnresponsive:      hypervisor.ErrAgent,
	rpc.ErrAgentUnsynced:          hypervisor.ErrAgent,
	rpc.ErrAgentCommandTimeout:    hypervisor.ErrAgent,
	rpc.ErrAgentCommandFailed:     hypervisor.ErrAgent,
	rpc.ErrCPUIncompatible:        hypervisor.ErrIncompatible,
	// What a driver's daemon that has gone away looks like through the daemon in front of it.
	rpc.ErrNoConnect: hypervisor.ErrUnavailable,
	rpc.ErrRPC:       hypervisor.ErrUnavailable,
}

func classify(err error) error {
	if sentinel, ok := sentinels[code(err)]; ok {
		return fmt.Errorf("%w: %w", sentinel, err)
	}
	return err
}

// code is libvirt's error number, or 0 when the error is not libvirt's.
func code(err error) rpc.ErrorNumber {
	var answer rpc.Error
	if !errors.As(err, &answer) {
		return 0
	}
	return rpc.ErrorNumber(answer.Code)
}
