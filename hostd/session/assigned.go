package session

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// assigned is the set of assignments that this host holds, kept in the journal. It belongs to the goroutine that
// receives.
type assigned struct {
	journal  *journal.Journal
	log      *slog.Logger
	sequence uint64
	complete bool // whether a complete set has come in this session
	set      map[string]*umbrav1.Assignment
}

// kept is an assignment in the journal: protobuf, so that a newer field survives an older hostd.
type kept struct{ Assignment []byte }

func (a *assigned) load() error {
	records, err := journal.All[kept](a.journal, journal.Assignments)
	if err != nil {
		return err
	}
	for pair, record := range records {
		assignment := &umbrav1.Assignment{}
		if err := proto.Unmarshal(record.Assignment, assignment); err != nil {
			a.log.Error("a kept assignment cannot be read; the pair rests until the control plane assigns it again", "pair", pair, "error", err)
			continue
		}
		a.set[pair] = assignment
	}
	return nil
}

// expectComplete begins a session: changes count only after its complete set.
func (a *assigned) expectComplete() { a.complete = false }

// take takes a message in. What it says is durable when take returns.
func (a *assigned) take(message *umbrav1.AssignmentSet) error {
	if !message.GetComplete() && (!a.complete || message.GetAppliesTo() != a.sequence) {
		return fmt.Errorf("a change to assignment set %d came while %d is held", message.GetAppliesTo(), a.sequence)
	}
	gone := message.GetRemovedDrPairs()
	if message.GetComplete() {
		gone = a.missing(message.GetAssignments())
	}
	for _, assignment := range message.GetAssignments() {
		if err := a.put(assignment); err != nil {
			return err
		}
	}
	for _, pair := range gone {
		if err := journal.Delete(a.journal, journal.Assignments, pair); err != nil {
			return err
		}
		delete(a.set, pair)
	}
	a.sequence, a.complete = message.GetResultsIn(), true
	return nil
}

func (a *assigned) put(assignment *umbrav1.Assignment) error {
	pair := assignment.GetDrPair()
	data, err := proto.Marshal(assignment)
	if err != nil {
		return fmt.Errorf("encoding the assignment of pair %s: %w", pair, err)
	}
	if held := a.set[pair]; held == nil || !proto.Equal(held, assignment) {
		if err := journal.Save(a.journal, journal.Assignments, pair, kept{Assignment: data}); err != nil {
			return err
		}
	}
	a.set[pair] = assignment
	return nil
}

func (a *assigned) missing(complete []*umbrav1.Assignment) []string {
	named := map[string]bool{}
	for _, assignment := range complete {
		named[assignment.GetDrPair()] = true
	}
	var missing []string
	for pair := range a.set {
		if !named[pair] {
			missing = append(missing, pair)
		}
	}
	return missing
}

// byRole is the set, parted by role, each part in the order of pairs.
func (a *assigned) byRole() (mains, shadows []*umbrav1.Assignment) {
	for _, pair := range slices.Sorted(maps.Keys(a.set)) {
		switch assignment := a.set[pair]; {
		case assignment.GetMain() != nil:
			mains = append(mains, assignment)
		case assignment.GetShadow() != nil:
			shadows = append(shadows, assignment)
		}
	}
	return mains, shadows
}

// Kept is the kept assignment of a pair, or nil.
func Kept(j *journal.Journal, pair string) (*umbrav1.Assignment, error) {
	record, found, err := journal.Load[kept](j, journal.Assignments, pair)
	if err != nil || !found {
		return nil, err
	}
	assignment := &umbrav1.Assignment{}
	if err := proto.Unmarshal(record.Assignment, assignment); err != nil {
		return nil, fmt.Errorf("reading the kept assignment of pair %s: %w", pair, err)
	}
	return assignment, nil
}
