package shadowserver

import (
	"google.golang.org/grpc/codes"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// advice is what people are told about a reason.
type advice struct {
	code      codes.Code
	causes    []string
	actions   []string
	retryable bool
}

const (
	adviseAnotherPoint = "Failover again with another recovery point"
	adviseRestart      = "Restart Replication, and fail over when it has a new recovery point"
	adviseSupport      = "Contact support with the pair's support bundle"
)

// adviceOn is the advice for a reason.
func adviceOn(reason umbrav1.ErrorReason) advice {
	switch reason {
	case umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED:
		return advice{
			codes.Aborted,
			[]string{"The operating system in this recovery point does not start", "The server needs more time than the policy's verification allows", "The policy asks for an agent or a port that the server does not offer"},
			[]string{adviseAnotherPoint, "Change the pair's verification policy and Failover again", adviseSupport},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_DEADLINE:
		return advice{
			codes.DeadlineExceeded,
			[]string{"The shadow host is overloaded", "libvirt or the host's storage hangs"},
			[]string{"Failover again", adviseAnotherPoint, adviseSupport},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR:
		return advice{
			codes.Unavailable,
			[]string{"libvirt refused what was asked of it; the message is libvirt's", "libvirt is not running on the shadow host"},
			[]string{"Remove the cause that libvirt names and Failover again", adviseAnotherPoint, adviseSupport},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED:
		return advice{codes.FailedPrecondition, nil, []string{adviseSupport}, false}
	case umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING,
		umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, umbrav1.ErrorReason_ERROR_REASON_NO_SPACE,
		umbrav1.ErrorReason_ERROR_REASON_SERVER_NAME_TAKEN:
		return adviceOnHost(reason)
	case umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND,
		umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED, umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED:
		return adviceOnPoint(reason)
	default:
		return adviceOnInternal()
	}
}

// adviceOnPoint is about what the recovery point lacks.
func adviceOnPoint(reason umbrav1.ErrorReason) advice {
	switch reason {
	case umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT:
		return advice{
			codes.FailedPrecondition,
			[]string{"The first synchronisation has not finished", "All recovery points were deleted"},
			[]string{adviseRestart},
			false,
		}
	case umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND:
		return advice{
			codes.NotFound,
			[]string{"Retention removed the recovery point since the list was read"},
			[]string{"List the recovery points and fail over again to one that is there"},
			false,
		}
	case umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED:
		return advice{
			codes.DataLoss,
			[]string{"The shadow host's storage returned bytes other than those written"},
			[]string{adviseAnotherPoint, "Failover again with force, to boot the damaged point all the same", adviseRestart},
			false,
		}
	case umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED:
		return advice{
			codes.FailedPrecondition,
			[]string{"A disk was added to the main server after replication began"},
			[]string{adviseAnotherPoint, adviseRestart},
			false,
		}
	default:
		return adviceOnInternal()
	}
}

// adviceOnHost is about what the shadow host lacks.
func adviceOnHost(reason umbrav1.ErrorReason) advice {
	switch reason {
	case umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING:
		return advice{
			codes.FailedPrecondition,
			[]string{"The shadow host has no network of that name, or it is not active", "The pair's policy does not map the main server's network"},
			[]string{"Map the network in the pair's policy, or start it on the shadow host, and Failover again"},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_SERVER_NAME_TAKEN:
		return advice{
			codes.FailedPrecondition,
			[]string{"A server of that name or UUID was defined on the shadow host"},
			[]string{"Rename or remove that server on the shadow host (virsh domrename, virsh undefine) and Failover again"},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING:
		return advice{
			codes.ResourceExhausted,
			[]string{"Other servers on the shadow host take the memory"},
			[]string{"Free memory on the shadow host and Failover again"},
			true,
		}
	case umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED:
		return advice{
			codes.FailedPrecondition,
			[]string{"The shadow host's processor, QEMU or firmware is older than the main host's", "The server uses a device or file that exists on the main host only"},
			[]string{"Failover again with a recovery point of an earlier configuration", "Change the main server's CPU model, machine type or devices, and Restart Replication"},
			false,
		}
	case umbrav1.ErrorReason_ERROR_REASON_NO_SPACE:
		return advice{
			codes.ResourceExhausted,
			[]string{"The shadow host's file system is full"},
			[]string{"Free space on the shadow host and Failover again"},
			true,
		}
	default:
		return adviceOnInternal()
	}
}

func adviceOnInternal() advice {
	return advice{codes.Internal, nil, []string{"Failover again", adviseAnotherPoint, adviseRestart, adviseSupport}, true}
}
