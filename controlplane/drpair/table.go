package drpair

import "slices"

// Action is something that a caller may do to a pair.
type Action string

// The actions.
const (
	ActionFailover            Action = "FAILOVER"
	ActionRestartReplication  Action = "RESTART_REPLICATION"
	ActionChangeRecoveryPoint Action = "CHANGE_RECOVERY_POINT"
	ActionCommitFailover      Action = "COMMIT_FAILOVER"
	ActionPause               Action = "PAUSE_REPLICATION"
	ActionResume              Action = "RESUME_REPLICATION"
	ActionUpdate              Action = "UPDATE"
	ActionDelete              Action = "DELETE"
)

// Actions lists every action.
var Actions = []Action{
	ActionFailover, ActionRestartReplication, ActionChangeRecoveryPoint, ActionCommitFailover,
	ActionPause, ActionResume, ActionUpdate, ActionDelete,
}

// table is what each state allows. Three entries depend on more than the state: see Allowed.
var table = map[State][]Action{
	InitialSync:           {ActionFailover, ActionRestartReplication, ActionPause, ActionUpdate, ActionDelete},
	Replicating:           {ActionFailover, ActionRestartReplication, ActionPause, ActionUpdate, ActionDelete},
	Resyncing:             {ActionFailover, ActionRestartReplication, ActionPause, ActionUpdate, ActionDelete},
	ReplicationPaused:     {ActionFailover, ActionRestartReplication, ActionPause, ActionResume, ActionUpdate, ActionDelete},
	ReplicationError:      {ActionFailover, ActionRestartReplication, ActionPause, ActionUpdate, ActionDelete},
	FailoverProcessing:    {},
	FailoverError:         {ActionFailover, ActionRestartReplication, ActionUpdate, ActionDelete},
	FailedOver:            {ActionChangeRecoveryPoint, ActionCommitFailover, ActionUpdate},
	ChangingRecoveryPoint: {},
	Committing:            {},
	Committed:             {ActionDelete},
	Deleting:              {ActionDelete},
}

// Allowed lists the actions that the pair allows now, in the order of Actions. Beyond the table: Failover needs a
// complete point; a pause that was asked for can be resumed and not asked for again; a pause for another reason can
// be asked for and not resumed, since it ends by itself. A restored pair can only be deleted: its record, not what the hosts hold.
func Allowed(p Pair) []Action {
	if p.Restored {
		return []Action{ActionDelete}
	}
	allowed := make([]Action, 0, len(Actions))
	for _, action := range table[p.State] {
		switch {
		case action == ActionFailover && !p.HasPoint:
		case action == ActionPause && p.Paused:
		case action == ActionResume && !p.Paused:
		default:
			allowed = append(allowed, action)
		}
	}
	return allowed
}

// check returns a *NotAllowedError unless the record allows the action.
func check(r Record, action Action) error {
	allowed := Allowed(r.Pair)
	if slices.Contains(allowed, action) {
		return nil
	}
	refusal := &NotAllowedError{Action: action, State: r.Pair.State, Allowed: allowed}
	if running := r.Running(); running != nil && len(allowed) == 0 {
		refusal.Operation = running.ID
	}
	refusal.NoPoint = action == ActionFailover && !r.Pair.HasPoint && slices.Contains(table[r.Pair.State], action)
	return refusal
}

// replicates tells whether the main host replicates, or should, in this state.
func (s State) replicates() bool {
	switch s {
	case InitialSync, Replicating, Resyncing, ReplicationPaused, ReplicationError:
		return true
	default:
		return false
	}
}

// NextStep tells a person what to do next.
func NextStep(p Pair) string {
	if p.Restored {
		return "Wait until both hosts, the shadow host at least, are connected and have said what they hold: this record is from a backup. Deleting it removes the record and nothing at the hosts."
	}
	switch p.State {
	case InitialSync:
		return "Wait for the first recovery point; the progress shows how long."
	case Replicating:
		return "Nothing to do. Failover when the main server cannot operate."
	case Resyncing:
		return "Wait. The recovery points that exist can be failed over to meanwhile."
	case ReplicationPaused:
		if p.Paused {
			return "Resume replication to make recovery points again."
		}
		return "Mend what the failure names; replication goes on by itself. The recovery points that exist can be failed over to."
	case ReplicationError:
		return "See the failure. It is tried again by itself; the recovery points that exist can be failed over to."
	case FailoverProcessing, ChangingRecoveryPoint, Committing, Deleting:
		return "Wait. Watch the current operation for its steps."
	case FailoverError:
		return "Failover again to another recovery point, restart replication, or get a support bundle for help."
	case FailedOver:
		return "Check the data in the shadow server. Then commit the failover, or change the recovery point."
	case Committed:
		return "The shadow server is the primary server. Delete the pair when its recovery points are no longer needed."
	default:
		return ""
	}
}
