package drpair

// MainMode is what the main host should be doing.
type MainMode string

// The modes of a main host.
const (
	MainReplicate MainMode = "REPLICATE"
	MainPause     MainMode = "PAUSE"
	MainFence     MainMode = "FENCE"
	MainRelease   MainMode = "RELEASE"
)

// DesiredMain derives what the main host should be doing from the pair alone.
func DesiredMain(p Pair) MainMode {
	switch {
	case p.State == Deleting:
		return MainRelease
	case !p.State.replicates():
		return MainFence
	case p.Paused:
		return MainPause
	default:
		return MainReplicate
	}
}

// ShadowMode is what the shadow host should be doing.
type ShadowMode string

// The modes of a shadow host.
const (
	ShadowReceive ShadowMode = "RECEIVE"
	ShadowStop    ShadowMode = "STOP"
	ShadowRun     ShadowMode = "RUN"
	ShadowCommit  ShadowMode = "COMMIT"
	ShadowDelete  ShadowMode = "DELETE"
)

// DesiredShadow derives what the shadow host should be doing from the pair alone, and which attempt should run. No
// server is started before replication has stopped completely and the main server is fenced or given up on.
func DesiredShadow(p Pair) (ShadowMode, *Attempt) {
	switch p.State {
	case FailoverProcessing:
		if p.Stopped && p.Fence.Settled() {
			return ShadowRun, p.Wanted
		}
		return ShadowStop, nil
	case FailoverError:
		return ShadowStop, nil
	case ChangingRecoveryPoint:
		return ShadowRun, p.Wanted
	case FailedOver:
		return ShadowRun, p.Active
	case Committing, Committed:
		return ShadowCommit, p.Active
	case Deleting:
		return ShadowDelete, nil
	default:
		return ShadowReceive, nil
	}
}
