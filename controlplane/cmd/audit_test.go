package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/access"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestWhatWasAskedIsInTheAuditLogAndInItsFile(t *testing.T) {
	s := newSite(t)
	identities := umbrav1.NewIdentityServiceClient(s.local(t))
	if _, err := identities.CreateJoinToken(soon(t), &umbrav1.CreateJoinTokenRequest{Host: "hosts/a"}); err != nil {
		t.Fatal(err)
	}
	operator := umbrav1.NewFailoverServiceClient(s.asRole(t, access.Operator))
	if _, err := operator.Failover(soon(t), &umbrav1.FailoverRequest{Name: "drPairs/p", RequestId: "11111111-2222-4333-8444-555555555555"}); err == nil {
		t.Error("a pair that is not there was failed over")
	}
	viewer := umbrav1.NewProtectionServiceClient(s.asRole(t, access.Viewer))
	if _, err := viewer.PauseReplication(soon(t), &umbrav1.PauseReplicationRequest{Name: "drPairs/p"}); err == nil {
		t.Error("a viewer may pause replication")
	}
	log, err := umbrav1.NewAuditServiceClient(s.asRole(t, access.Administrator)).ListAuditEvents(soon(t), &umbrav1.ListAuditEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		caller, method, resource, requestID string
		code                                codes.Code
		reason                              umbrav1.ErrorReason
	}{
		{"client/the-viewer", "PauseReplication", "drPairs/p", "", codes.PermissionDenied, umbrav1.ErrorReason_ERROR_REASON_PERMISSION_DENIED},
		{"client/the-operator", "Failover", "drPairs/p", "11111111-2222-4333-8444-555555555555", codes.NotFound, umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND},
		{"local:", "CreateJoinToken", "hosts/a", "", codes.OK, 0},
	}
	if len(log.GetAuditEvents()) != len(want) {
		t.Fatalf("the log has %v", log.GetAuditEvents())
	}
	var ids []string
	for i, event := range log.GetAuditEvents() {
		w := want[i]
		if !strings.HasPrefix(event.GetCaller(), w.caller) || !strings.HasSuffix(event.GetMethod(), w.method) || event.GetResource() != w.resource ||
			event.GetRequestId() != w.requestID || codes.Code(event.GetCode()) != w.code || event.GetReason() != w.reason ||
			event.GetEndTime() == nil || event.GetAddress() == "" {
			t.Errorf("event %d: %v", i, event)
		}
		ids = append(ids, event.GetId())
	}
	s.stop()
	file, err := os.ReadFile(filepath.Join(s.stateDir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for line := range strings.Lines(string(file)) {
		var event struct{ ID string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		written = append(written, event.ID)
	}
	slices.Reverse(written)
	if !slices.Equal(written, ids) {
		t.Errorf("the file has %v, the log %v", written, ids)
	}
}
