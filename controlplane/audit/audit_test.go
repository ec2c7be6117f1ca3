package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/audit"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

type stopped struct {
	clock.Clock
	at time.Time
}

func (s *stopped) Now() time.Time { return s.at }

// events is a store in memory.
type events struct {
	mu        sync.Mutex
	begun     []store.AuditEvent
	completed []store.AuditEvent
	full      bool
}

func (e *events) AppendAudit(_ context.Context, event store.AuditEvent) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full {
		return 0, errors.New("no space")
	}
	e.begun = append(e.begun, event)
	return int64(len(e.begun)), nil
}

func (e *events) CompleteAudit(ctx context.Context, event store.AuditEvent, _ int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() == nil {
		e.completed = append(e.completed, event)
	}
	return ctx.Err()
}

var (
	ann    = access.Caller{Kind: access.Person, Name: "client/ann"}
	nobody = access.Caller{Kind: access.Nobody, Name: "nobody"}
)

func newLog(at *stopped) (*audit.Log, *events, *bytes.Buffer) {
	kept, lines := &events{}, &bytes.Buffer{}
	return audit.New(kept, at, slog.New(slog.DiscardHandler), lines), kept, lines
}

func linesOf(t *testing.T, lines *bytes.Buffer) []map[string]any {
	t.Helper()
	var read []map[string]any
	for line := range strings.Lines(lines.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		read = append(read, one)
	}
	return read
}

func TestACallIsStoredBeforeItActsAndCompletedWithWhatCameOfIt(t *testing.T) {
	at := &stopped{at: now}
	log, kept, lines := newLog(at)
	request := &umbrav1.FailoverRequest{Name: "drPairs/web", RequestId: "r-1"}
	ctx, cancel := context.WithCancel(t.Context())
	end, err := log.Begin(ctx, ann, "/umbra.v1.FailoverService/Failover", request)
	if err != nil || len(kept.begun) != 1 || !kept.begun[0].EndTime.IsZero() || lines.Len() != 0 {
		t.Fatalf("begun %+v, lines %q, error %v", kept.begun, lines, err)
	}
	cancel() // the caller may leave; the outcome is stored all the same
	at.at = now.Add(time.Second)
	end(&umbrav1.FailoverResponse{Operation: &umbrav1.Operation{Name: "operations/op-1"}}, nil)
	got := kept.completed[0]
	if got.Caller != "client/ann" || got.Resource != "drPairs/web" || got.RequestID != "r-1" || got.Operation != "operations/op-1" ||
		!got.Time.Equal(now) || !got.EndTime.Equal(at.at) || got.Code != codes.OK || got.ID != kept.begun[0].ID {
		t.Errorf("completed as %+v", got)
	}
	read := linesOf(t, lines)
	if len(read) != 1 || read[0]["caller"] != "client/ann" || read[0]["request_id"] != "r-1" || read[0]["operation"] != "operations/op-1" {
		t.Errorf("lines %v", read)
	}
	end, err = log.Begin(t.Context(), ann, "/umbra.v1.FailoverService/Failover", request)
	if err != nil {
		t.Fatal(err)
	}
	end(nil, status.Error(codes.NotFound, "no such pair"))
	if got := kept.completed[1]; got.Code != codes.NotFound || got.Message != "no such pair" || got.Operation != "" {
		t.Errorf("a failed call is completed as %+v", got)
	}
}

func TestACallThatCannotBeStoredDoesNotBegin(t *testing.T) {
	log, kept, _ := newLog(&stopped{at: now})
	kept.full = true
	if _, err := log.Begin(t.Context(), ann, "/m", &umbrav1.FailoverRequest{}); err == nil {
		t.Error("it begins")
	}
}

func TestSecretsAreInNoEvent(t *testing.T) {
	log, kept, lines := newLog(&stopped{at: now})
	request := &umbrav1.EnrollRequest{Token: "umbra-join-1.secret", CertificateSigningRequest: []byte("a request")}
	log.Refused(t.Context(), nobody, "/m", request, status.Error(codes.PermissionDenied, "no"))
	if all := lines.String() + string(kept.begun[0].Request); strings.Contains(all, "umbra-join") || !strings.Contains(all, "certificateSigningRequest") {
		t.Errorf("the event is %s", all)
	}
	if request.GetToken() == "" {
		t.Error("the request itself was changed")
	}
}

func TestLongRequestsAreCutOffAndStayJSON(t *testing.T) {
	log, kept, lines := newLog(&stopped{at: now})
	log.Refused(t.Context(), ann, "/m", &umbrav1.FailoverRequest{Name: strings.Repeat("ü", 10_000)}, status.Error(codes.NotFound, strings.Repeat("ü", 10_000)))
	if got := kept.begun[0]; len(got.Request) > 5_000 || len(got.Resource) > 600 || len(got.Message) > 1_100 {
		t.Errorf("%d bytes of request, %d of resource, %d of message", len(got.Request), len(got.Resource), len(got.Message))
	}
	linesOf(t, lines)
}

func TestTooManyRefusedCallsAreCountedOnlyAndStrangersHideNobody(t *testing.T) {
	at := &stopped{at: now}
	log, kept, _ := newLog(at)
	refuse := func(caller access.Caller) {
		log.Refused(t.Context(), caller, "/m", &umbrav1.FailoverRequest{}, status.Error(codes.PermissionDenied, "no"))
	}
	for range 1000 {
		refuse(nobody)
	}
	stored := len(kept.begun)
	if stored == 0 || stored > 200 {
		t.Errorf("%d of 1,000 refused calls are stored", stored)
	}
	refuse(ann)
	if got := kept.begun[len(kept.begun)-1]; len(kept.begun) != stored+1 || got.Caller != "client/ann" || got.Omitted != 0 {
		t.Errorf("after them, %+v", got)
	}
	at.at = now.Add(time.Minute)
	refuse(nobody)
	if got := kept.begun[len(kept.begun)-1]; got.Omitted != int64(1000-stored) {
		t.Errorf("%d are told to be omitted, not %d", got.Omitted, 1000-stored)
	}
}
