package replicate

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// faults are what may happen between the writes of a guest and the next point.
var faults = map[string]func(r *rig, rng *rand.Rand){
	"nothing": func(*rig, *rand.Rand) {},
	"the stream is cut": func(r *rig, rng *rand.Rand) {
		r.shadow.locked(func() { r.shadow.cutAfter = 1 + rng.IntN(40) })
		r.restart()
	},
	"the bitmaps break": func(r *rig, _ *rand.Rand) { r.source.locked(func() { r.source.lost = true }) },
	"the bitmaps break and the stream is cut": func(r *rig, rng *rand.Rand) {
		r.source.locked(func() { r.source.lost = true })
		r.shadow.locked(func() { r.shadow.cutAfter = 1 + rng.IntN(80) })
		r.restart()
	},
	"the daemon restarts": func(r *rig, _ *rand.Rand) { r.restart() },
	"the backup job dies": func(r *rig, _ *rand.Rand) { r.source.killServer() },
	"scratch space runs out": func(r *rig, rng *rand.Rand) {
		r.source.locked(func() {
			until := r.source.jobs + 1 + rng.IntN(3)
			r.source.scratch = func(job int) int64 {
				if job <= until {
					return r.cfg.ScratchBytesMax
				}
				return 0
			}
		})
	},
	"replication is restarted": func(r *rig, _ *rand.Rand) {
		r.resync++
		r.assign(nil)
	},
}

func TestEveryPointEqualsTheDisksWhateverFails(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			r := build(t, 24*mib+512, 3*mib)
			r.cfg.ScratchBytesMax = mib
			names := keysOf(faults)
			r.source.write(change{0, 0, 18 * mib, 1})
			r.start()
			r.assign(nil)
			for range 14 {
				name := names[rng.IntN(len(names))]
				t.Log(name)
				r.source.write(r.randomChanges(rng)...)
				faults[name](r, rng)
				r.nextPoint()
			}
			r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, 0)
		})
	}
}

// restart ends the daemon and begins another life of it.
func (r *rig) restart() {
	r.stop()
	r.start()
	r.assign(nil)
}

func (r *rig) randomChanges(rng *rand.Rand) []change {
	var out []change
	for range 1 + rng.IntN(12) {
		disk := rng.IntN(len(r.source.disks))
		sectors := int(r.source.disks[disk].SizeBytes) / 512
		off := rng.IntN(sectors)
		most := 2048
		if rng.IntN(8) == 0 {
			most = 16384
		}
		length := min(1+rng.IntN(most), sectors-off)
		value := byte(rng.IntN(256))
		if rng.IntN(3) == 0 {
			value = 0
		}
		out = append(out, change{disk, off * 512, length * 512, value})
	}
	return out
}

func TestScratchSpaceThatNeverSufficesIsReportedAndProgressIsStillMade(t *testing.T) {
	r := build(t, 100*mib)
	r.source.write(change{0, 0, 100 * mib, 1})
	r.cfg.ScratchBytesMax = mib
	r.source.scratch = func(job int) int64 { return mib }
	r.start()
	r.assign(nil)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, 0)
	if report.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE || report.GetFailure().GetSide() != umbrav1.Side_SIDE_MAIN {
		t.Errorf("reported %v", report.GetFailure())
	}
	r.shadow.locked(func() {
		if r.shadow.clusters["vda"] == 0 {
			t.Error("no progress was made")
		}
	})
	r.source.locked(func() { r.source.scratch = nil })
	r.nextPoint()
	r.shadow.locked(func() {
		if r.shadow.data != 100*mib/clusterBytes {
			t.Errorf("%d clusters were sent, the disk has %d", r.shadow.data, 100*mib/clusterBytes)
		}
	})
}

// room is what a rig's file system of scratch files has free.
func (r *rig) room(free int64) *atomic.Int64 {
	var room atomic.Int64
	room.Store(free)
	r.cfg.FreeBytes = func(string) (int64, error) { return room.Load(), nil }
	return &room
}

func TestWithoutRoomForScratchFilesNoBackupJobIsBegun(t *testing.T) {
	r := build(t, 4*mib)
	room := r.room(ScratchFreeBytesMinDefault - 1)
	r.start()
	r.assign(nil)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, 0)
	if report.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE || report.GetFailure().GetSide() != umbrav1.Side_SIDE_MAIN {
		t.Errorf("reported %v", report.GetFailure())
	}
	r.source.locked(func() {
		if r.source.jobs > 0 {
			t.Error("a backup job was begun")
		}
	})
	room.Store(2 * ScratchFreeBytesMinDefault)
	r.nextPoint()
}

func TestAStreamThatStandsStillIsGivenUpAndSaysSo(t *testing.T) {
	r := build(t, 64*mib) // more than the windows of the stream hold
	r.source.write(change{0, 0, 64 * mib, 1})
	r.cfg.Clock = fastClock{time.Now(), 300}
	r.shadow.locked(func() { r.shadow.hang = true })
	r.start()
	r.assign(nil)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, 0)
	if report.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_DEADLINE {
		t.Errorf("reported %v", report.GetFailure())
	}
	r.nextPoint()
}
