package chaos

import (
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// history is what was asked for and what was answered in the life of the present pair. It is what promises are held
// against.
type history struct {
	lives    int // pairs made so far
	epoch    uint64
	policy   *umbrav1.Policy
	requests []request
	// copies are independent copies of the main disks, by the name of the point that was made while they stood still.
	copies map[string][]string
	// before is what was true when the cycle began.
	before promised
}

// request is one that was acknowledged.
type request struct {
	id        string
	operation string
	kind      umbrav1.OperationKind
}

// promised are the points that had been acknowledged at a moment.
type promised struct {
	at     time.Time
	points []*umbrav1.RecoveryPoint // newest first
	// deleting says that the cycle asked for the deletion of points.
	deleting bool
}

// raises tells whether an operation raises the epoch.
func raises(kind umbrav1.OperationKind) bool {
	switch kind {
	case umbrav1.OperationKind_OPERATION_KIND_FAILOVER, umbrav1.OperationKind_OPERATION_KIND_RESTART_REPLICATION,
		umbrav1.OperationKind_OPERATION_KIND_DELETE:
		return true
	default:
		return false
	}
}
