package replicate

import (
	"testing"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/journal/journaltest"
)

func TestTheRecordsOfEarlierVersionsAreRead(t *testing.T) {
	journaltest.Records(t, journal.Replicate, map[string]record{
		"web": {
			UID: "uid-web", Server: "web", ServerUUID: "5f0c8f1e-0a52-4d3b-9b0e-3c7a1d2e4f60", AutostartTaken: true, AutostartWas: true,
			AutostartBoot: "boot-1", CheckpointsKept: true, ResyncGeneration: 3, PointStored: true,
		},
		"fenced": {
			UID: "uid-fenced", Server: "old", ServerUUID: "6a1d902f-1b63-4e4c-8c1f-4d8b2e3f5071", AutostartTaken: true,
			ShutDown: true, LinksDown: true, WentOff: true, ResyncGeneration: 1,
		},
	})
}
