package replica

import (
	"testing"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/journal/journaltest"
)

func TestTheRecordsOfEarlierVersionsAreRead(t *testing.T) {
	journaltest.Records(t, journal.Replica, map[string]record{
		"mail": {
			UID: "uid-mail", Generation: 12, Epoch: 4, Accept: true, MainHost: "rack1", RefusedEpoch: 3, ResyncGeneration: 2,
			ResyncPending: true, DeletePoints: true, Untrusted: true,
		},
		"failed-over": {UID: "uid-failed-over", Generation: 30, Epoch: 7, MainHost: "rack2", RefusedEpoch: 7, ResyncGeneration: 1},
	})
}
