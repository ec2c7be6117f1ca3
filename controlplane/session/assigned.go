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
	peer       peer
}

// peer is what a host is told of the other host of a pair, beside what the record says.
type peer struct {
	address string // where it takes replication in
	least   uint64 // the least generation of its certificates that counts
}

func newAssigned(host string) *assigned { return &assigned{host: host} }

// next is the message that takes the host from what it was told to what the records say, or nil when they say the
// same. The first message is the complete set. An assignment that differs by its generation alone is not sent again.
// A pair that was removed and made again meanwhile takes two messages: the host has to forget the first.
func (a *assigned) next(entries []store.Entry, peerOf func(host string) peer) *umbrav1.AssignmentSet {
	set := &umbrav1.AssignmentSet{Complete: a.current == nil, AppliesTo: a.sequence, ResultsIn: a.sequence + 1}
	wanted := make(map[string]told, len(entries))
	for _, entry := range entries {
		pair := entry.Record.Pair
		held := a.current[pair.ID]
		if held.assignment != nil && held.uid != pair.UID {
			continue
		}
		other := pair.Shadow.Host
		if other == a.host {
			other = pair.Main.Host
		}
		peer := peerOf(other)
		if held.assignment != nil && held.revision == entry.Revision && held.peer == peer {
			wanted[pair.ID] = held
			continue
		}
		assignment := assignmentFor(a.host, entry.Record, peer)
		if held.assignment != nil && same(held.assignment, assignment) {
			assignment = held.assignment
		} else {
			set.Assignments = append(set.Assignments, assignment)
		}
		wanted[pair.ID] = told{assignment: assignment, uid: pair.UID, revision: entry.Revision, peer: peer}
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
