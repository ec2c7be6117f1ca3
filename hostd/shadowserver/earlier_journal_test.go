package shadowserver

import (
	"testing"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/journal/journaltest"
)

func TestTheRecordsOfEarlierVersionsAreRead(t *testing.T) {
	report, err := proto.Marshal(&umbrav1.ShadowReport{Attempt: 1, Failure: &umbrav1.Failure{Message: "it did not boot"}})
	if err != nil {
		t.Fatal(err)
	}
	journaltest.Records(t, journal.ShadowServer, map[string]record{
		"failed-over": {
			UID: "uid-failed-over", Generation: 30, Server: "db", UUID: "7b2ea130-2c74-4f5d-9d20-5e9c3f406182",
			Attempts: []attempt{
				{Number: 1, Point: "rp-000000000003", Dir: "/var/lib/umbra/servers/failed-over/1", State: attemptFailed, Booted: true, Report: report},
				{
					Number: 2, Point: "rp-000000000001", Force: true, Dir: "/var/lib/umbra/servers/failed-over/2", State: attemptVerified,
					Booted: true, Switched: true, OldOn: true, XML: "<domain/>",
				},
			},
			Current: 2, Commit: commitFlattening, Suspending: true,
		},
		"committed": {
			UID: "uid-committed", Generation: 9, Server: "crm", UUID: "8c3fb241-3d85-406e-ae31-6fad40517293", Current: 1,
			Commit: commitComplete, CommitReport: report,
		},
	})
}
