package drpair_test

import (
	"testing"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

var (
	mainModes   = []drpair.MainMode{drpair.MainReplicate, drpair.MainPause, drpair.MainFence, drpair.MainRelease}
	shadowModes = []drpair.ShadowMode{drpair.ShadowReceive, drpair.ShadowStop, drpair.ShadowRun, drpair.ShadowCommit, drpair.ShadowDelete}
)

func heldMain(mode drpair.MainMode, epoch, generation uint64) *drpair.Held {
	return &drpair.Held{UID: "uid", Epoch: epoch, Generation: generation, ResyncGeneration: 1, Main: mode}
}

func heldShadow(mode drpair.ShadowMode, epoch, generation uint64) drpair.Held {
	held := drpair.Held{UID: "uid", Epoch: epoch, Generation: generation, ResyncGeneration: 1, Shadow: mode, HasPoint: true}
	if mode == drpair.ShadowRun || mode == drpair.ShadowCommit {
		held.Attempt = &drpair.Attempt{Number: 7, Point: "rp-7"}
	}
	return held
}

// restored is a record in that state as a backup holds it.
func restored(state drpair.State) drpair.Record {
	rec := recordIn(state, state == drpair.ReplicationPaused)
	rec.Pair.Restored, rec.Pair.Generation, rec.Pair.Epoch = true, 20, 5
	return rec
}

func TestARestoredRecordBecomesTheNewestThatIsKnown(t *testing.T) {
	const older, same, newer = 4, 5, 6
	for name, c := range map[string]struct {
		record drpair.State
		main   *drpair.Held
		shadow drpair.Held
		want   drpair.State
	}{
		"nothing since":                       {drpair.Replicating, heldMain(drpair.MainReplicate, same, 20), heldShadow(drpair.ShadowReceive, same, 20), drpair.Replicating},
		"nothing since, main host away":       {drpair.Replicating, nil, heldShadow(drpair.ShadowReceive, same, 20), drpair.Replicating},
		"nothing since a failover":            {drpair.FailedOver, heldMain(drpair.MainFence, same, 20), heldShadow(drpair.ShadowRun, same, 20), drpair.FailedOver},
		"a pause since":                       {drpair.Replicating, heldMain(drpair.MainPause, same, 21), heldShadow(drpair.ShadowReceive, same, 20), drpair.ReplicationPaused},
		"a resume since":                      {drpair.ReplicationPaused, heldMain(drpair.MainReplicate, same, 21), heldShadow(drpair.ShadowReceive, same, 20), drpair.Resyncing},
		"a failover since":                    {drpair.Replicating, heldMain(drpair.MainFence, newer, 22), heldShadow(drpair.ShadowRun, newer, 25), drpair.FailoverProcessing},
		"a failover that failed":              {drpair.Replicating, heldMain(drpair.MainFence, newer, 22), heldShadow(drpair.ShadowStop, newer, 25), drpair.FailoverError},
		"a failover that only main heard of":  {drpair.Replicating, heldMain(drpair.MainFence, newer, 22), heldShadow(drpair.ShadowReceive, same, 20), drpair.FailoverError},
		"a failover that main missed":         {drpair.Replicating, heldMain(drpair.MainReplicate, same, 20), heldShadow(drpair.ShadowRun, newer, 25), drpair.FailoverProcessing},
		"a commit since":                      {drpair.FailedOver, heldMain(drpair.MainFence, same, 20), heldShadow(drpair.ShadowCommit, same, 23), drpair.Committing},
		"a deletion since":                    {drpair.Committed, nil, heldShadow(drpair.ShadowDelete, newer, 23), drpair.Deleting},
		"a deletion that only main heard of":  {drpair.Replicating, heldMain(drpair.MainRelease, newer, 23), heldShadow(drpair.ShadowReceive, same, 20), drpair.Replicating},
		"a restart since a failed failover":   {drpair.FailoverError, heldMain(drpair.MainReplicate, newer, 23), heldShadow(drpair.ShadowReceive, newer, 23), drpair.Resyncing},
		"a restart, and a server that serves": {drpair.FailedOver, heldMain(drpair.MainReplicate, newer, 23), heldShadow(drpair.ShadowRun, same, 20), drpair.FailedOver},
		"hosts that lost what they knew":      {drpair.FailedOver, heldMain(drpair.MainReplicate, older, 9), heldShadow(drpair.ShadowReceive, older, 9), drpair.FailedOver},
		"a deletion that is over":             {drpair.Replicating, &drpair.Held{}, drpair.Held{}, drpair.ReplicationPaused},
	} {
		rec := run(t, restored(c.record), drpair.HostsHold{OperationID: "op-h", Main: c.main, Shadow: c.shadow})
		if rec.Pair.State != c.want || rec.Pair.Restored {
			t.Errorf("%s: the pair is %s, restored %v; want %s", name, rec.Pair.State, rec.Pair.Restored, c.want)
		}
	}
}

func TestWhateverHostsHoldNothingIsLostAndNothingHangs(t *testing.T) {
	for _, state := range drpair.States {
		for _, shadowMode := range shadowModes {
			for _, mainMode := range mainModes {
				for i := range 81 {
					epochs := [...]uint64{4, 5, 6}
					main := heldMain(mainMode, epochs[i%3], []uint64{19, 20, 21}[i/3%3])
					shadow := heldShadow(shadowMode, epochs[i/9%3], []uint64{19, 20, 21}[i/27%3])
					hold(t, state, main, shadow)
				}
			}
		}
	}
}

func hold(t *testing.T, state drpair.State, main *drpair.Held, shadow drpair.Held) {
	t.Helper()
	before := lived(t, state)
	change, err := drpair.Apply(before, drpair.HostsHold{OperationID: "op-h", Main: main, Shadow: shadow}, now)
	if err != nil || !change.Changed {
		t.Fatalf("%s: %v, changed %v", state, err, change.Changed)
	}
	p := change.Pair
	if p.Epoch <= max(6, before.Pair.Epoch) || p.Generation <= max(21, before.Pair.Generation) || p.LastAttempt <= max(7, before.Pair.LastAttempt) {
		t.Fatalf("%s, main %s, shadow %s: epoch %d, generation %d, attempt %d may have been given out before", state, main.Main, shadow.Shadow, p.Epoch, p.Generation, p.LastAttempt)
	}
	mode, _ := drpair.DesiredShadow(p)
	if mode == drpair.ShadowDelete && shadow.Shadow != drpair.ShadowDelete && state != drpair.Deleting {
		t.Fatalf("%s, main %s, shadow %s: the points are deleted", state, main.Main, shadow.Shadow)
	}
	if shadow.Shadow == drpair.ShadowCommit && shadow.Epoch == 6 && p.State != drpair.Committing && p.State != drpair.Committed {
		t.Fatalf("%s, main %s: a commit that has begun is given up: %s", state, main.Main, p.State)
	}
	if shadow.Shadow == drpair.ShadowRun && shadow.Epoch == 6 && drpair.DesiredMain(p) != drpair.MainFence {
		t.Fatalf("%s, main %s: the main server may run beside a shadow server", state, main.Main)
	}
	endsWithHosts(t, change.Record)
	endsWithoutHosts(t, change.Record)
}

// lived is a restored record that came to that state as pairs do.
func lived(t *testing.T, state drpair.State) drpair.Record {
	t.Helper()
	request := drpair.Request{OperationID: "op-2"}
	rec := restored(state)
	switch state {
	case drpair.FailoverProcessing:
		rec = run(t, replicating(t), failover("op-1"))
	case drpair.FailoverError:
		rec = run(t, replicating(t), failover("op-1"), stopped(2), drpair.MainUnreachable{}, failed(2, 1, 0))
	case drpair.FailedOver:
		rec = failedOver(t)
	case drpair.ChangingRecoveryPoint:
		rec = run(t, failedOver(t), drpair.ChangeRecoveryPoint{Request: request, Point: "rp-2"})
	case drpair.Committing:
		rec = run(t, failedOver(t), drpair.CommitFailover{Request: request})
	case drpair.Committed:
		rec = run(t, failedOver(t), drpair.CommitFailover{Request: request}, drpair.ShadowReported{Epoch: 2, Phase: drpair.ShadowCommitted})
	case drpair.Deleting:
		rec = run(t, replicating(t), drpair.Delete{Request: request})
	default:
		rec.Pair.Active = nil
	}
	wantState(t, rec, state)
	rec.Pair.Restored, rec.Pair.Generation, rec.Pair.Epoch = true, 20, 5
	return rec
}

func TestARestoredPairWaitsForItsHostsWhateverElseHappens(t *testing.T) {
	for _, state := range drpair.States {
		rec := restored(state)
		for _, event := range []drpair.Event{
			drpair.MainReported{Epoch: 5, ResyncGeneration: 1, Phase: drpair.MainReplicating},
			drpair.MainUnreachable{},
			stopped(5), running(5, 1),
			drpair.StepTimeout{OperationID: "op-1", Step: drpair.StepStopReplication},
			drpair.HostsHold{Main: &drpair.Held{UID: "another"}, Shadow: heldShadow(drpair.ShadowReceive, 6, 21)},
			drpair.HostsHold{Shadow: drpair.Held{UID: "another"}},
			drpair.HostsHold{Shadow: heldShadow(drpair.ShadowReceive, 1<<63, 21)},
		} {
			if change, err := drpair.Apply(rec, event, now); err != nil || change.Changed {
				t.Errorf("%s: %T changes it: %v", state, event, err)
			}
		}
		if allowed := drpair.Allowed(rec.Pair); len(allowed) != 1 || allowed[0] != drpair.ActionDelete {
			t.Errorf("%s allows %v", state, allowed)
		}
		change, err := drpair.Apply(rec, drpair.Delete{Request: drpair.Request{OperationID: "op-d"}}, now)
		if err != nil || !change.Remove {
			t.Errorf("%s: deleting the record: %v, removed %v", state, err, change.Remove)
		}
	}
}

// The attempt that failed since the backup has left the server of the one before running.
func TestAServerThatAFailedChangeLeftRunningGoesOn(t *testing.T) {
	rec := run(t, restored(drpair.Replicating), drpair.HostsHold{OperationID: "op-h", Shadow: heldShadow(drpair.ShadowRun, 6, 30)})
	report := failed(rec.Pair.Epoch, 7, 6)
	report.RunningPoint = "rp-6"
	rec = run(t, rec, report)
	wantState(t, rec, drpair.FailedOver)
	wantShadow(t, rec, drpair.ShadowRun, 6)
}
