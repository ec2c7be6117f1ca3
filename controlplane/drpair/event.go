package drpair

import "time"

// Event is something that happened to a pair: a request that was accepted at the API, a report of one of its
// hosts, or that something did not happen in time.
type Event interface {
	apply(rec Record, now time.Time) (Change, error)
}

// Apply is the state machine. It returns what becomes of the record, or a *NotAllowedError when the event is a
// request that the state does not allow. The given record is not changed.
func Apply(rec Record, event Event, now time.Time) (Change, error) {
	rec.Operation = rec.Operation.clone()
	change, err := event.apply(rec, now)
	if err != nil {
		return Change{}, err
	}
	if change.Changed {
		change.Pair.Generation++
		change.Pair.UpdateTime = now
	}
	return change, nil
}

func changed(rec Record) Change   { return Change{Record: rec, Changed: true} }
func unchanged(rec Record) Change { return Change{Record: rec} }

// Request is what every request carries.
type Request struct {
	// OperationID is the id of the operation to make, RequestID the caller's id of the request.
	OperationID string
	RequestID   string
	// TraceParent is the W3C traceparent of the caller's request, if it has one.
	TraceParent string
}

// start makes rec's operation one of that kind and cancels the one that was running.
func start(rec Record, request Request, kind OperationKind, steps []Step, now time.Time) (Record, *Operation) {
	var superseded *Operation
	if running := rec.Running(); running != nil {
		running.finish(OperationCancelled, &Failure{
			Code: codeCancelled, Reason: ReasonSuperseded, Side: SideControlPlane, Time: now,
			Message: "A newer request took the place of this operation: " + string(kind) + ", operation " + request.OperationID + ".",
		}, now)
		superseded = running
	}
	rec.Operation = &Operation{
		ID: request.OperationID, Pair: rec.Pair.ID, Kind: kind, State: OperationRunning, CreateTime: now,
		RequestID: request.RequestID, Epoch: rec.Pair.Epoch, Steps: steps, TraceParent: request.TraceParent,
	}
	return rec, superseded
}

// settle puts the pair into its state and ends the running operation in one go.
func settle(rec Record, state State, outcome OperationState, failure *Failure, now time.Time) Record {
	rec.Pair.State, rec.Pair.Failure = state, failure
	if running := rec.Running(); running != nil {
		running.finish(outcome, failure, now)
		running.Allowed = Allowed(rec.Pair)
	}
	return rec
}
