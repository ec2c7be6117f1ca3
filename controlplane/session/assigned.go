package session

import (
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// assigned is what one session has been told to do, and makes the next message from what it should be told.
type assigned struct {
	host     string
	sequence uint64
	current  map[string]told
}

// told is what the host was told of a pair, and what that was made from: the same is not made again.
type told struct {
	assignment *umbrav1.Assignment
	uid        string
	revision   int64
	address    string
}

func newAssigned(host string) *assigned { return &assigned{host: host} }

// next is the message that takes the host from what it was told to what the records say, or nil when they say the
// same. The first message is the complete set. An assignment that differs by its generation alone is not sent again.
// A pair that was removed and made again meanwhile takes two messages: the host has to forget the first.
func (a *assigned) next(entries []store.Entry, dataAddress func(host string) string) *umbrav1.AssignmentSet {
	set := &umbrav1.AssignmentSet{Complete: a.current == nil, AppliesTo: a.sequence, ResultsIn: a.sequence + 1}
	wanted := make(map[string]told, len(entries))
	for _, entry := range entries {
		pair := entry.Record.Pair
		held := a.current[pair.ID]
		if held.assignment != nil && held.uid != pair.UID {
			continue
		}
		address := dataAddress(pair.Shadow.Host)
		if held.assignment != nil && held.revision == entry.Revision && held.address == address {
			wanted[pair.ID] = held
			continue
		}
		assignment := assignmentFor(a.host, entry.Record, address)
		if held.assignment != nil && same(held.assignment, assignment) {
			assignment = held.assignment
		} else {
			set.Assignments = append(set.Assignments, assignment)
		}
		wanted[pair.ID] = told{assignment: assignment, uid: pair.UID, revision: entry.Revision, address: address}
	}
	for pair := range a.current {
		if wanted[pair].assignment == nil {
			set.RemovedDrPairs = append(set.RemovedDrPairs, pair)
		}
	}
	if !set.Complete && len(set.GetAssignments()) == 0 && len(set.GetRemovedDrPairs()) == 0 {
		a.current = wanted
		return nil
	}
	a.current = wanted
	a.sequence++
	return set
}

func same(a, b *umbrav1.Assignment) bool {
	if a.GetGeneration() == b.GetGeneration() {
		return proto.Equal(a, b)
	}
	leveled := proto.CloneOf(b)
	leveled.Generation = a.GetGeneration()
	return proto.Equal(a, leveled)
}
