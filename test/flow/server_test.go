package flow_test

import (
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// shadowConsole reads the shadow server's console from now on.
func (w *world) shadowConsole() *console.Console {
	w.t.Helper()
	log := w.Shadow.Console(guest)
	if err := log.SkipToEnd(); err != nil {
		w.t.Fatal(err)
	}
	return log
}

// booted waits until the guest has said what it found, which must be whole.
func (w *world) booted(log *console.Console) ledger.Report {
	w.t.Helper()
	report, err := w.NextBoot(w.ctx(), log)
	if err != nil {
		w.t.Fatal(err)
	}
	if !report.Intact() {
		w.t.Fatalf("the ledger is not whole: %+v", report)
	}
	return report
}

// failover fails over to a point, "" for the newest, and returns what the booted guest found.
func (w *world) failover(point string) ledger.Report {
	w.t.Helper()
	log := w.shadowConsole()
	answer, err := w.Failover.Failover(w.ctx(), &umbrav1.FailoverRequest{Name: pairName, RecoveryPoint: point})
	w.end(answer.GetOperation(), err, succeeded)
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER)
	return w.booted(log)
}

// change goes to another point and returns what the booted guest found.
func (w *world) change(point string) ledger.Report {
	w.t.Helper()
	log := w.shadowConsole()
	answer, err := w.Failover.ChangeRecoveryPoint(w.ctx(), &umbrav1.ChangeRecoveryPointRequest{Name: pairName, RecoveryPoint: point})
	w.end(answer.GetOperation(), err, succeeded)
	return w.booted(log)
}

func (w *world) commit(deletePoints bool) {
	w.t.Helper()
	answer, err := w.Failover.CommitFailover(w.ctx(), &umbrav1.CommitFailoverRequest{Name: pairName, DeleteRecoveryPoints: deletePoints})
	w.end(answer.GetOperation(), err, succeeded)
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED)
}

// standsAlone checks that the committed server has no backing file and survives its own restart.
func (w *world) standsAlone() {
	w.t.Helper()
	for _, args := range [][]string{{"dumpxml", guest}, {"dumpxml", "--inactive", guest}} {
		xml, err := w.Shadow.Virsh(w.ctx(), args...)
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.Contains(xml, "<backingStore type=") {
			w.t.Errorf("virsh %v still shows a backing file:\n%s", args, xml)
		}
	}
	if _, err := w.Shadow.Virsh(w.ctx(), "destroy", guest); err != nil {
		w.t.Fatal(err)
	}
	report, err := w.Shadow.StartGuest(w.ctx(), guest, longest)
	if err != nil {
		w.t.Fatal(err)
	}
	if !report.Intact() || report.Last == 0 {
		w.t.Errorf("after its own restart the ledger is %+v", report)
	}
}

// announced is the record that the main server announced last.
func (w *world) announced() uint64 {
	w.t.Helper()
	told, err := w.Main.Console(guest).Ledger()
	if err != nil {
		w.t.Fatal(err)
	}
	return told.Last
}
