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
	// former are assignments that the control plane knows nothing of any more, of pairs that it did not delete.
	former map[string]*umbrav1.Assignment
	// asked are the pairs of which the control plane wants to know what is held, as it has named them.
	asked map[string]*umbrav1.Assignment
}

// kept is an assignment in the journal: protobuf, so that a newer field survives an older hostd.
type kept struct {
	Assignment []byte
	// Former: it is not assigned any more, and kept for a control plane whose records have been lost.
	Former bool `json:",omitempty"`
}

func newAssigned(kept *journal.Journal, log *slog.Logger) *assigned {
	none := func() map[string]*umbrav1.Assignment { return map[string]*umbrav1.Assignment{} }
	return &assigned{journal: kept, log: log, set: none(), former: none(), asked: none()}
}

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
		if record.Former {
			a.former[pair] = assignment
		} else {
			a.set[pair] = assignment
		}
	}
	return nil
}

// expectComplete begins a session: changes count only after its complete set.
func (a *assigned) expectComplete() {
	a.complete = false
	clear(a.asked)
}

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
		if err := a.leave(pair); err != nil {
			return err
		}
	}
	a.sequence, a.complete = message.GetResultsIn(), true
	return nil
}

func (a *assigned) put(assignment *umbrav1.Assignment) error {
	pair := assignment.GetDrPair()
	delete(a.asked, pair)
	held := a.held(pair)
	switch {
	case assignment.GetHold():
		a.asked[pair] = assignment
		return a.hold(held)
	case held != nil && assignment.GetGeneration() < held.GetGeneration() && !journal.OtherPair(held.GetDrPairUid(), assignment.GetDrPairUid()):
		a.log.Error("the control plane's record of a pair is older than what this host holds, which is kept to. If records were restored, say so with umbra-controlplane mark-restored",
			"pair", pair, "generation", assignment.GetGeneration(), "held", held.GetGeneration())
		a.asked[pair] = assignment
		return a.hold(held)
	}
	if !proto.Equal(a.set[pair], assignment) {
		if err := a.keep(assignment, false); err != nil {
			return err
		}
	}
	a.set[pair] = assignment
	delete(a.former, pair)
	return nil
}

// held is what is held of a pair, assigned or not; nil for nothing.
func (a *assigned) held(pair string) *umbrav1.Assignment {
	if assignment := a.set[pair]; assignment != nil {
		return assignment
	}
	return a.former[pair]
}

// hold goes on with what is held, if anything, and starts nothing for it.
func (a *assigned) hold(held *umbrav1.Assignment) error {
	if held == nil {
		return nil
	}
	if a.set[held.GetDrPair()] == nil {
		if err := a.keep(held, false); err != nil {
			return err
		}
		delete(a.former, held.GetDrPair())
	}
	held = proto.CloneOf(held)
	held.Hold = true
	a.set[held.GetDrPair()] = held
	return nil
}

// leave lets go of a pair that is not assigned any more. One that was not released or deleted before is remembered: the control
// plane may have lost its records.
func (a *assigned) leave(pair string) error {
	delete(a.asked, pair)
	held := a.set[pair]
	delete(a.set, pair)
	if held == nil {
		return nil
	}
	if held.GetMain().GetMode() == umbrav1.MainMode_MAIN_MODE_RELEASE || held.GetShadow().GetMode() == umbrav1.ShadowMode_SHADOW_MODE_DELETE {
		return journal.Delete(a.journal, journal.Assignments, pair)
	}
	a.former[pair] = held
	return a.keep(held, true)
}

// keep makes an assignment durable, without the hold that is for this session.
func (a *assigned) keep(assignment *umbrav1.Assignment, former bool) error {
	if assignment.GetHold() {
		assignment = proto.CloneOf(assignment)
		assignment.Hold = false
	}
	data, err := proto.Marshal(assignment)
	if err != nil {
		return fmt.Errorf("encoding the assignment of pair %s: %w", assignment.GetDrPair(), err)
	}
	return journal.Save(a.journal, journal.Assignments, assignment.GetDrPair(), kept{Assignment: data, Former: former})
}

// answers say what is held of the pairs that the control plane asks about.
func (a *assigned) answers() []answer {
	answers := make([]answer, 0, len(a.asked))
	for pair, asked := range a.asked {
		one := answer{asked: asked, held: &umbrav1.Held{}}
		if held := a.set[pair]; held != nil {
			one.held.Assignment = proto.CloneOf(held)
			one.held.Assignment.Hold = false
		}
		answers = append(answers, one)
	}
	return answers
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
