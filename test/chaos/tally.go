package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Tally counts what a run did.
type Tally struct {
	Cycles int
	Acts   map[string]int
	Faults map[string]int // that had something to hit
	Missed map[string]int // that had nothing to hit
	Checks map[string]int // of each promise
	Failed map[string]int // operations that failed, which they may under some faults, by reason
	Fallen map[string]int // programs that ended by themselves
	// LostJobs are backup jobs that libvirtd was killed in beginning.
	LostJobs map[string]int
	Took     time.Duration // of all cycles together
}

func newTally() *Tally {
	return &Tally{
		Acts: map[string]int{}, Faults: map[string]int{}, Missed: map[string]int{}, Checks: map[string]int{}, Failed: map[string]int{},
		Fallen: map[string]int{}, LostJobs: map[string]int{},
	}
}

// Write writes the tally as a table.
func (t *Tally) Write(out io.Writer) {
	_, _ = fmt.Fprintf(out, "\n%d cycles in %v\n", t.Cycles, t.Took.Round(time.Second))
	for _, part := range []struct {
		title  string
		counts map[string]int
	}{
		{"acts", t.Acts},
		{"faults", t.Faults},
		{"faults that had nothing to hit", t.Missed},
		{"checks of promises", t.Checks},
		{"operations that failed, as they may", t.Failed},
		{"programs that fell by themselves", t.Fallen},
		{"backup jobs that libvirtd lost", t.LostJobs},
	} {
		_, _ = fmt.Fprintf(out, "%s:\n", part.title)
		for _, name := range slices.Sorted(maps.Keys(part.counts)) {
			_, _ = fmt.Fprintf(out, "  %5d  %s\n", part.counts[name], name)
		}
	}
}
