// Package drpair decides what becomes of a DR pair. It is pure: a record and an event go in, the next record comes
// out; no I/O, no clock, no goroutine, no protobuf. Whoever holds the record stores the result with a
// compare-and-swap, and derives from it what the hosts should be doing (Main, Shadow).
//
// The table of what each state allows is in table.go, requests in request.go, reports of hosts in report.go.
// Everything may arrive twice, late, or out of order: an event that says nothing new changes nothing.
package drpair

import (
	"fmt"
	"time"
)

// State of a pair. The values are stored; never change one.
type State string

// The states.
const (
	InitialSync           State = "INITIAL_SYNC"
	Replicating           State = "REPLICATING"
	Resyncing             State = "RESYNCING"
	ReplicationPaused     State = "REPLICATION_PAUSED"
	ReplicationError      State = "REPLICATION_ERROR"
	FailoverProcessing    State = "FAILOVER_PROCESSING"
	FailoverError         State = "FAILOVER_ERROR"
	FailedOver            State = "FAILED_OVER"
	ChangingRecoveryPoint State = "CHANGING_RECOVERY_POINT"
	Committing            State = "COMMITTING"
	Committed             State = "COMMITTED"
	Deleting              State = "DELETING"
)

// States lists every state.
var States = []State{
	InitialSync, Replicating, Resyncing, ReplicationPaused, ReplicationError, FailoverProcessing,
	FailoverError, FailedOver, ChangingRecoveryPoint, Committing, Committed, Deleting,
}

// Pair is the stored truth about a DR pair. It holds nothing that changes fast.
type Pair struct {
	ID         string
	UID        string
	CreateTime time.Time
	UpdateTime time.Time
	// Generation rises by one with every stored change. It is the etag, and hosts quote it.
	Generation uint64
	// Epoch rises with every change of direction. A replication stream of a lower epoch is refused.
	Epoch uint64
	State State
	// Failure is why the state is one of error, or why replication is paused though nobody asked.
	Failure *Failure `json:",omitempty"`

	Main   Main
	Shadow Shadow
	Policy Policy

	// TraceParent is the W3C traceparent of the request that made the pair.
	TraceParent string `json:",omitempty"`

	// Paused: someone asked for the pause.
	Paused bool `json:",omitempty"`
	// ResyncGeneration rises with every Restart Replication: nothing known before holds.
	ResyncGeneration uint64
	// DeletePointsOnResync: the last Restart Replication asked for the deletion of the points.
	DeletePointsOnResync bool `json:",omitempty"`
	// HasPoint: the shadow host has at least one complete recovery point.
	HasPoint bool `json:",omitempty"`

	// Fence is what is known of the main server since the epoch was raised by a failover.
	Fence Fence
	// Stopped: the shadow host has stored that it refuses Epoch and all before.
	Stopped bool `json:",omitempty"`
	// LastAttempt is the highest attempt number ever given out.
	LastAttempt uint64
	// Wanted is the attempt that is being booted, Active the one that runs and passed its verification.
	Wanted *Attempt `json:",omitempty"`
	Active *Attempt `json:",omitempty"`
	// DeletePoints: the commit asked for the deletion of all points.
	DeletePoints bool `json:",omitempty"`

	// MainReleased and ShadowDeleted: that host has nothing of the pair any more.
	MainReleased  bool `json:",omitempty"`
	ShadowDeleted bool `json:",omitempty"`
	// WasCommitted: the pair was committed before it was deleted, so the main server stays fenced.
	WasCommitted bool `json:",omitempty"`

	// Restored: the record is from a backup or was rebuilt, and the hosts have not said yet what they hold. They go on with
	// that, and are told nothing else, until a HostsHold.
	Restored bool `json:",omitempty"`
}

// Main is the protected server. Host is the host's id.
type Main struct {
	Host, Server, UUID string
}

// Shadow is where the shadow is kept. Host is the host's id, Server the name after a failover.
type Shadow struct {
	Host, Server string
}

// Attempt is one boot of the shadow server from one recovery point.
type Attempt struct {
	Number uint64
	Point  string
	Force  bool `json:",omitempty"`
}

// FenceState is how sure it is that the main server is out of the way.
type FenceState string

// The fence states. FenceNone: no failover since the replication began.
const (
	FenceNone        FenceState = ""
	FencePending     FenceState = "PENDING"
	FenceUnderway    FenceState = "UNDERWAY" // the main host has heard of it
	FenceConfirmed   FenceState = "CONFIRMED"
	FenceUnconfirmed FenceState = "UNCONFIRMED"
)

// Fence is what is known of the main server after a failover.
type Fence struct {
	State   FenceState `json:",omitempty"`
	Message string     `json:",omitempty"`
	Since   time.Time  `json:",omitzero"`
}

// Settled tells whether a failover need not wait for the main host any longer.
func (f Fence) Settled() bool { return f.State == FenceConfirmed || f.State == FenceUnconfirmed }

// Record is a pair with its newest operation: what one event is applied to and what is stored in one transaction.
type Record struct {
	Pair      Pair
	Operation *Operation // the one that runs, or the last one; nil before the first
}

// Running is the operation that is under way, or nil.
func (r Record) Running() *Operation {
	if r.Operation != nil && r.Operation.State == OperationRunning {
		return r.Operation
	}
	return nil
}

// Change is the result of an event.
type Change struct {
	Record
	// Superseded is an earlier operation that the event ended, to be stored as well.
	Superseded *Operation
	// Changed is false when the event said nothing new; then nothing needs to be stored.
	Changed bool
	// Remove: the pair is gone from its hosts and its record is to be removed.
	Remove bool
}

// New is the record of a pair that begins to be protected.
func New(id, uid string, main Main, shadow Shadow, policy Policy, now time.Time) Record {
	if shadow.Server == "" {
		shadow.Server = main.Server
	}
	return Record{Pair: Pair{
		ID: id, UID: uid, CreateTime: now, UpdateTime: now, Generation: 1, Epoch: 1, ResyncGeneration: 1,
		State: InitialSync, Main: main, Shadow: shadow, Policy: policy,
	}}
}

// NotAllowedError says that the pair's state does not allow an action.
type NotAllowedError struct {
	Action  Action
	State   State
	Allowed []Action
	// Operation is the id of the operation that is in the way, if one is running.
	Operation string
	// NoPoint: the state would allow it if there was a complete recovery point.
	NoPoint bool
}

func (e *NotAllowedError) Error() string {
	switch {
	case e.NoPoint:
		return fmt.Sprintf("%s is not possible before the first recovery point is complete", e.Action)
	case e.Operation != "":
		return fmt.Sprintf("%s is not allowed in state %s while operation %s is running", e.Action, e.State, e.Operation)
	default:
		return fmt.Sprintf("%s is not allowed in state %s; allowed are %v", e.Action, e.State, e.Allowed)
	}
}
