package drpair

import "time"

// A restored pair's numbers are raised by more than anybody can have given out since the backup: hosts that are away now may
// know of changes that neither the record nor the other host does, and must not take what is decided now for something older.
const (
	generationRoom = 1 << 32
	numberRoom     = 1000 // of epochs, attempts and restarts
	// numberMax bounds what hosts are believed.
	numberMax = 1 << 62
)

// Held is what a host holds of a pair: what it was assigned last, and goes on with.
type Held struct {
	// UID is of the pair that the host holds under this id. Empty: it holds nothing.
	UID                                 string
	Generation, Epoch, ResyncGeneration uint64
	// Main or Shadow is what the host should have been doing.
	Main   MainMode
	Shadow ShadowMode
	// Attempt belongs to RUN and COMMIT.
	Attempt                                        *Attempt
	DeletePoints, DeletePointsOnResync, KeepFenced bool
	// StoppedEpoch and HasPoint are what a shadow host observes.
	StoppedEpoch uint64
	HasPoint     bool
}

// HostsHold is what the hosts of a restored pair hold. The shadow host must have said so; of the main host Main is nil if it is
// not connected. The record becomes the newest of what it was and what they hold, with numbers above all of them. What the
// main host says alone is not enough to stop a shadow server or to delete points.
type HostsHold struct {
	OperationID string
	Main        *Held
	Shadow      Held
}

// restoredMessage is shown where a person has to know.
const restoredMessage = "The control plane's records were restored, and the hosts knew more than they did."

func (e HostsHold) apply(rec Record, now time.Time) (Change, error) {
	if !rec.Pair.Restored || !e.believable(rec.Pair) {
		return unchanged(rec), nil
	}
	main := Held{}
	if e.Main != nil {
		main = *e.Main
	}
	next := change{rec: rec, request: Request{OperationID: e.OperationID}, now: now}
	p := &next.rec.Pair
	switch {
	case e.Shadow.UID == "" && main.UID == "":
		next.heldByNobody()
	case e.Shadow.newer(*p) && (e.Shadow.Epoch >= main.Epoch || e.Shadow.serves()):
		next.followShadow(e.Shadow, main)
	case main.newer(*p) && !e.Shadow.serves() && !p.State.serves():
		next.followMain(main)
	}
	p.Restored = false
	p.HasPoint = e.Shadow.HasPoint || p.HasPoint && e.Shadow.UID == ""
	p.Generation = max(p.Generation, main.Generation, e.Shadow.Generation) + generationRoom
	p.Epoch = max(p.Epoch, main.Epoch, e.Shadow.Epoch, e.Shadow.StoppedEpoch) + numberRoom
	p.ResyncGeneration = max(p.ResyncGeneration, main.ResyncGeneration, e.Shadow.ResyncGeneration)
	p.LastAttempt = max(p.LastAttempt, e.Shadow.attempt()) + numberRoom
	return Change{Record: next.rec, Superseded: next.superseded, Changed: true}, nil
}

// believable tells whether the hosts speak of this pair, in numbers that a pair can have. If they hold another pair under its id
// nothing is decided: this record is the older one, and following it would clear what they hold.
func (e HostsHold) believable(p Pair) bool {
	for _, held := range []*Held{e.Main, &e.Shadow} {
		if held == nil {
			continue
		}
		if held.UID != "" && held.UID != p.UID || max(held.Generation, held.Epoch, held.ResyncGeneration, held.StoppedEpoch, held.attempt()) > numberMax {
			return false
		}
	}
	return true
}

// newer tells whether the host was told more than the record says.
func (h Held) newer(p Pair) bool {
	return h.UID != "" && (h.Epoch > p.Epoch || h.Epoch == p.Epoch && h.Generation > p.Generation)
}

// serves tells whether a shadow server runs, or may, that nobody but the shadow host can speak of.
func (h Held) serves() bool { return h.Shadow == ShadowRun || h.Shadow == ShadowCommit }

func (s State) serves() bool {
	switch s {
	case FailedOver, ChangingRecoveryPoint, Committing, Committed:
		return true
	default:
		return false
	}
}

func (h Held) attempt() uint64 {
	if h.Attempt == nil {
		return 0
	}
	return h.Attempt.Number
}

// change is what becomes of a record while it follows the hosts.
type change struct {
	rec        Record
	request    Request
	now        time.Time
	superseded *Operation
}

// heldByNobody: the pair was deleted since the backup, or its hosts had not been told of it. A person has to say which.
func (c *change) heldByNobody() {
	c.end()
	p := &c.rec.Pair
	p.State, p.Paused, p.HasPoint, p.Wanted, p.Active, p.Stopped, p.Fence = ReplicationPaused, true, false, nil, nil, false, Fence{}
	p.Failure = restoredFailure("Neither host holds anything of this pair: it was deleted after the backup was made, or made just before it.",
		[]string{"If it was deleted, delete it again.", "If it should be protected, resume replication."}, c.now)
}

func (c *change) followShadow(shadow, main Held) {
	switch shadow.Shadow {
	case ShadowReceive:
		c.replicate(shadow, main.Main == MainPause && main.Epoch == shadow.Epoch)
	case ShadowRun:
		c.run(shadow.Attempt)
	case ShadowCommit:
		c.commit(shadow)
	case ShadowDelete:
		c.delete(main)
	default: // STOP: a failover was on its way, or had failed
		c.failed()
	}
}

func (c *change) followMain(main Held) {
	replicated := c.rec.Pair.State.replicates()
	switch {
	case main.Main == MainReplicate, main.Main == MainPause:
		c.replicate(main, main.Main == MainPause)
	case main.Main == MainFence && replicated:
		c.failed()
	}
}

func (c *change) replicate(held Held, paused bool) {
	p := &c.rec.Pair
	restarted := held.ResyncGeneration > p.ResyncGeneration
	if running := c.rec.Running(); running != nil && (restarted || running.Kind != KindRestartReplication) {
		c.end()
	}
	if restarted {
		p.DeletePointsOnResync = held.DeletePointsOnResync
	}
	if !p.State.replicates() || restarted {
		p.State = Resyncing
	}
	if paused {
		p.State = ReplicationPaused
	} else if p.State == ReplicationPaused {
		p.State = Resyncing
	}
	p.Failure, p.Paused, p.Stopped, p.Wanted, p.Active, p.Fence = nil, paused, false, nil, nil, Fence{}
}

// failed leaves it to a person to fail over again or to restart replication.
func (c *change) failed() {
	c.end()
	p := &c.rec.Pair
	p.State, p.Paused, p.Wanted, p.Active = FailoverError, false, nil, nil
	p.Failure = restoredFailure(restoredMessage+" A failover had been begun, and no shadow server is known to run.",
		[]string{"Failover again.", "If the main server should go on, restart replication."}, c.now)
	c.fenceUnconfirmed()
}

// run waits for the shadow host to say what became of the attempt. It has been booted, so replication had stopped and the
// fence had been settled, and it is not booted in the epoch that follows before the host has refused everything older.
func (c *change) run(attempt *Attempt) {
	if attempt == nil {
		c.failed()
		return
	}
	p := &c.rec.Pair
	p.State, p.Failure, p.Paused, p.Active = FailoverProcessing, nil, false, nil
	p.Stopped, p.Wanted = true, attempt
	c.fenceUnconfirmed()
	if running := c.rec.Running(); running != nil && running.Attempt == attempt.Number && running.Kind == KindFailover {
		return
	}
	c.start(KindFailover, FailoverSteps...)
	op := c.rec.Operation
	op.Point, op.Attempt = attempt.Point, attempt.Number
	op.end(StepStopReplication, StepDone, restoredMessage, c.now)
	op.end(StepFenceMain, fenceStep(p.Fence.State), p.Fence.Message, c.now)
}

func (c *change) commit(held Held) {
	p := &c.rec.Pair
	p.State, p.Failure, p.Paused, p.Stopped, p.Wanted, p.Active = Committing, nil, false, true, nil, held.Attempt
	p.DeletePoints = held.DeletePoints
	c.fenceUnconfirmed()
	if running := c.rec.Running(); running != nil && running.Kind == KindCommitFailover {
		return
	}
	steps := []StepKind{StepFlattenDisks}
	if held.DeletePoints {
		steps = append(steps, StepDeletePoints)
	}
	c.start(KindCommitFailover, steps...)
	if held.Attempt != nil {
		c.rec.Operation.Point = held.Attempt.Point
	}
	c.rec.Operation.DeletePoints = held.DeletePoints
}

// delete finishes a deletion. Whether the shadow server had become the primary server only the main host can know; unless it says
// that it had not, the main server stays as it is.
func (c *change) delete(main Held) {
	p := &c.rec.Pair
	if p.State == Deleting {
		return
	}
	p.WasCommitted = main.Main != MainRelease || main.KeepFenced
	p.State, p.Failure = Deleting, nil
	c.start(KindDelete, StepStopReplication, StepDeletePoints)
	c.rec.Operation.beginDeletion(c.now)
}

// start makes an operation for what a host has under way. Its request is not known any more.
func (c *change) start(kind OperationKind, steps ...StepKind) {
	c.rec, c.superseded = start(c.rec, c.request, kind, pendingSteps(steps...), c.now)
}

// end ends the operation that ran when the backup was made, without another in its place.
func (c *change) end() {
	if running := c.rec.Running(); running != nil {
		running.finish(OperationCancelled, restoredFailure(restoredMessage, nil, c.now), c.now)
	}
}

func (c *change) fenceUnconfirmed() {
	if fence := &c.rec.Pair.Fence; !fence.Settled() {
		*fence = Fence{State: FenceUnconfirmed, Message: restoredMessage, Since: c.now}
	}
}

func restoredFailure(message string, actions []string, now time.Time) *Failure {
	return &Failure{
		Code: codeAborted, Reason: ReasonRestored, Side: SideControlPlane, Time: now, Message: message, Actions: actions,
		Causes: []string{"The control plane's records were restored from a backup, or rebuilt from what the hosts hold."},
	}
}
