package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// seenLate is how late what the guest has written may be seen on its console, on a machine with other things to do.
const seenLate = 10 * time.Second

// checkBoot: the point that was booted in this cycle has booted, and its ledger holds every record that was announced
// before the point was begun, none begun after it was complete, and no gap or damage.
func checkBoot(ctx context.Context, w *world) error {
	if w.booting == nil {
		return nil
	}
	report, err := w.NextBoot(ctx, w.booting.log)
	if err != nil {
		return fmt.Errorf("%s does not boot: %w", w.booting.point.GetName(), err)
	}
	p := w.booting.point
	return w.holds(moment{p.GetName(), p.GetPointTime().AsTime(), p.GetCompleteTime().AsTime()}, report)
}

// moment is when a point was begun and when it was complete.
type moment struct {
	point           string
	begun, complete time.Time
}

// holds compares a ledger with what the point must hold.
func (w *world) holds(m moment, report ledger.Report) error {
	if !report.Intact() {
		return fmt.Errorf("the ledger of %s is not whole: %+v", m.point, report)
	}
	if must := w.announced.By(m.begun); report.Last < must {
		return fmt.Errorf("%s was begun after record %d had been announced, and holds only %d", m.point, must, report.Last)
	}
	if most := w.announced.By(m.complete.Add(seenLate)) + 1; report.Last > most {
		return fmt.Errorf("%s was complete when record %d was being written, and holds %d", m.point, most, report.Last)
	}
	return nil
}
