package drpair

import "time"

// OperationKind is what was asked for. The values are stored.
type OperationKind string

// The kinds.
const (
	KindFailover            OperationKind = "FAILOVER"
	KindChangeRecoveryPoint OperationKind = "CHANGE_RECOVERY_POINT"
	KindCommitFailover      OperationKind = "COMMIT_FAILOVER"
	KindRestartReplication  OperationKind = "RESTART_REPLICATION"
	KindDelete              OperationKind = "DELETE"
)

// OperationKinds lists every kind.
var OperationKinds = []OperationKind{KindFailover, KindChangeRecoveryPoint, KindCommitFailover, KindRestartReplication, KindDelete}

// OperationState is how far an operation is. The values are stored.
type OperationState string

// The operation states.
const (
	OperationRunning   OperationState = "RUNNING"
	OperationSucceeded OperationState = "SUCCEEDED"
	OperationFailed    OperationState = "FAILED"
	OperationCancelled OperationState = "CANCELLED"
)

// StepKind names a step. The values are stored.
type StepKind string

// The steps.
const (
	StepStopReplication StepKind = "STOP_REPLICATION"
	StepFenceMain       StepKind = "FENCE_MAIN"
	StepPrepareDisks    StepKind = "PREPARE_DISKS"
	StepDefineServer    StepKind = "DEFINE_SERVER"
	StepStartServer     StepKind = "START_SERVER"
	StepVerifyServer    StepKind = "VERIFY_SERVER"
	StepStopServer      StepKind = "STOP_SERVER"
	StepFlattenDisks    StepKind = "FLATTEN_DISKS"
	StepDeletePoints    StepKind = "DELETE_RECOVERY_POINTS"
	StepResynchronize   StepKind = "RESYNCHRONIZE"
)

// StepState is how far a step is. The values are stored.
type StepState string

// The step states.
const (
	StepPending StepState = "PENDING"
	StepRunning StepState = "RUNNING"
	StepDone    StepState = "DONE"
	StepSkipped StepState = "SKIPPED"
	StepFailed  StepState = "FAILED"
)

// Step is one step of an operation.
type Step struct {
	Kind      StepKind
	State     StepState
	StartTime time.Time `json:",omitzero"`
	EndTime   time.Time `json:",omitzero"`
	Message   string    `json:",omitempty"`
}

func (s Step) ended() bool {
	return s.State == StepDone || s.State == StepSkipped || s.State == StepFailed
}

// Operation is one request on a pair, from the request to its end.
type Operation struct {
	ID         string
	Pair       string
	Kind       OperationKind
	State      OperationState
	CreateTime time.Time
	EndTime    time.Time `json:",omitzero"`
	Point      string    `json:",omitempty"`
	RequestID  string    `json:",omitempty"`
	Epoch      uint64
	Attempt    uint64 `json:",omitempty"`
	Steps      []Step
	Failure    *Failure `json:",omitempty"`
	// DeletePoints: the request asked for the deletion of recovery points.
	DeletePoints bool `json:",omitempty"`
	// TraceParent is the W3C traceparent of the request.
	TraceParent string `json:",omitempty"`
	// Allowed are the pair's allowed actions when the operation ended.
	Allowed []Action `json:",omitempty"`
}

// FailoverSteps are the steps of a failover, in order.
var FailoverSteps = []StepKind{
	StepStopReplication, StepFenceMain, StepPrepareDisks, StepDefineServer, StepStartServer, StepVerifyServer,
}

var changeSteps = []StepKind{StepPrepareDisks, StepStopServer, StepDefineServer, StepStartServer, StepVerifyServer}

func pendingSteps(kinds ...StepKind) []Step {
	steps := make([]Step, len(kinds))
	for i, kind := range kinds {
		steps[i] = Step{Kind: kind, State: StepPending}
	}
	return steps
}

// clone copies the operation so that the original can be kept.
func (o *Operation) clone() *Operation {
	if o == nil {
		return nil
	}
	copied := *o
	copied.Steps = append([]Step(nil), o.Steps...)
	return &copied
}

func (o *Operation) step(kind StepKind) *Step {
	for i := range o.Steps {
		if o.Steps[i].Kind == kind {
			return &o.Steps[i]
		}
	}
	return nil
}

// Current is the first step that has not ended, or nil.
func (o *Operation) Current() *Step {
	for i := range o.Steps {
		if !o.Steps[i].ended() {
			return &o.Steps[i]
		}
	}
	return nil
}

func (o *Operation) begin(kind StepKind, now time.Time) {
	if step := o.step(kind); step != nil && step.State == StepPending {
		step.State, step.StartTime = StepRunning, now
	}
}

// beginDeletion begins both hosts' parts in a deletion: neither waits for the other.
func (o *Operation) beginDeletion(now time.Time) {
	const unlessGone = " If it is gone for good, ask for the deletion again, with force."
	o.begin(StepStopReplication, now)
	o.begin(StepDeletePoints, now)
	o.say(StepStopReplication, "Waits for the main host to let go of the server."+unlessGone)
	o.say(StepDeletePoints, "Waits for the shadow host to delete what it has."+unlessGone)
}

// say changes the message of a step that has not ended.
func (o *Operation) say(kind StepKind, message string) {
	if step := o.step(kind); step != nil && !step.ended() {
		step.Message = message
	}
}

func (o *Operation) end(kind StepKind, state StepState, message string, now time.Time) {
	step := o.step(kind)
	if step == nil || step.ended() {
		return
	}
	if step.StartTime.IsZero() {
		step.StartTime = now
	}
	step.State, step.EndTime, step.Message = state, now, message
}

// finish ends the operation. A step that is running fails with it; later ones stay pending.
func (o *Operation) finish(state OperationState, failure *Failure, now time.Time) {
	o.State, o.EndTime, o.Failure = state, now, failure
	for i := range o.Steps {
		step := &o.Steps[i]
		switch {
		case state == OperationSucceeded && !step.ended():
			o.end(step.Kind, StepDone, step.Message, now)
		case state == OperationFailed && step.State == StepRunning:
			message := step.Message
			if failure != nil {
				message = failure.Message
			}
			o.end(step.Kind, StepFailed, message, now)
		}
	}
}
