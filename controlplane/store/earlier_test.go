package store_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// What earlier versions wrote is in testdata, a key and its value a line. version-1.jsonl was written by the code of November 2026, with
// each field of each kind of record set. It is never made anew: a version that writes something else adds a file, and goes on
// to read these.

// earlier puts what an earlier version wrote into an etcd, changed if need be.
func earlier(t *testing.T, client *clientv3.Client, change func(value string) string) (keys []string) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", "version-1.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		var record struct{ Key, Value string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Put(t.Context(), record.Key, change(record.Value)); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, record.Key)
	}
	return keys
}

func unchanged(value string) string { return value }

var (
	earlierFailure = drpair.Failure{
		Code: 9, Reason: "VERIFICATION_FAILED", Step: drpair.StepVerifyServer, Side: "SHADOW", Message: "no answer", Causes: []string{"it does not boot"},
		Actions: []string{"choose another point"}, Retryable: true, Time: epoch.Add(time.Second),
	}
	earlierOperation = drpair.Operation{
		ID: operationID(2), Pair: "web", Kind: drpair.KindChangeRecoveryPoint, State: drpair.OperationFailed, CreateTime: epoch, EndTime: epoch.Add(time.Minute),
		Point: "rp-000000000007", RequestID: "r-2", Epoch: 4, Attempt: 3, DeletePoints: true, TraceParent: "00-of-the-operation",
		Steps: []drpair.Step{{
			Kind: drpair.StepVerifyServer, State: drpair.StepFailed, StartTime: epoch.Add(2 * time.Second), EndTime: epoch.Add(3 * time.Second), Message: "no answer",
		}},
		Failure: &earlierFailure, Allowed: []drpair.Action{drpair.ActionFailover},
	}
	earlierFailover = drpair.Operation{ID: operationID(1), Pair: "web", Kind: drpair.KindFailover, State: drpair.OperationSucceeded, CreateTime: epoch, EndTime: epoch.Add(time.Second), Epoch: 4}
	earlierPair     = drpair.Pair{
		ID: "web", UID: "uid-of-web", CreateTime: epoch, UpdateTime: epoch.Add(time.Hour), Generation: 11, Epoch: 4, State: drpair.FailoverError,
		Failure: &earlierFailure,
		Main:    drpair.Main{Host: "rack1", Server: "web", UUID: "5f0c8f1e-0a52-4d3b-9b0e-3c7a1d2e4f60"},
		Shadow:  drpair.Shadow{Host: "rack2", Server: "web-shadow"},
		Policy: drpair.Policy{
			Interval: 5 * time.Second, Retention: []drpair.RetentionRule{{MaxAge: time.Hour, Spacing: time.Minute}}, StoreBytesMax: 1 << 40,
			BandwidthBytesPerSecond: 1 << 20, Networks: []drpair.NetworkMapping{{Main: "lan", Shadow: "dr"}},
			Verification: drpair.Verification{RunTime: 3 * time.Second, GuestAgent: true, Timeout: time.Minute, TCPProbe: "10.0.0.9:22"},
			OnMainReturn: drpair.DisconnectNetwork, ApplicationConsistent: true, FenceTimeout: 20 * time.Second,
		},
		TraceParent: "00-of-the-pair", Paused: true, ResyncGeneration: 2, DeletePointsOnResync: true, HasPoint: true,
		Fence: drpair.Fence{State: drpair.FenceUnconfirmed, Message: "the main host is away", Since: epoch.Add(5 * time.Second)}, Stopped: true, LastAttempt: 3,
		Wanted: &drpair.Attempt{Number: 3, Point: "rp-000000000007", Force: true}, Active: &drpair.Attempt{Number: 2, Point: "rp-000000000005"},
		DeletePoints: true, MainReleased: true, ShadowDeleted: true, WasCommitted: true, Restored: true,
	}
	earlierHost      = store.HostRecord{ID: "rack1", LastInventory: []byte{0, 1, 255}, Time: epoch}
	earlierAuthority = store.AuthorityRecord{Certs: []byte("certificates"), Key: []byte("key")}
	earlierToken     = store.JoinToken{
		ID: "token", SecretHash: sha256.Sum256([]byte("secret")), Host: "rack1", ExpireTime: epoch.Add(time.Hour),
		Used: true, KeyHash: sha256.Sum256([]byte("key")), Generation: 2,
	}
	earlierIdentity = store.Identity{Subject: "host/rack1", Generation: 2, Least: 2, RevokeTime: epoch}
	earlierEvent    = store.AuditEvent{
		ID: "au-01b8c1d2e3f4-0123456789abcdef", Time: epoch, Caller: "client/anna", Address: "10.0.0.5:33000", Method: "/umbra.v1.FailoverService/Failover",
		Resource: "drPairs/web", RequestID: "r-2", Request: json.RawMessage(`{"name":"drPairs/web"}`), EndTime: epoch.Add(time.Second), Code: codes.FailedPrecondition,
		Reason: "STATE_NOT_ALLOWED", Message: "not now", Operation: "operations/1", Omitted: 7,
	}
	earlierPlane = store.ControlPlane{ID: "plane-1", Address: "10.0.0.1:7443"}
)

var (
	firstRequest  = store.RequestKey{Method: "/umbra.v1.FailoverService/Failover", Caller: "client/anna", ID: "r-1", Fingerprint: [32]byte{1}}
	secondRequest = store.RequestKey{Method: "/umbra.v1.FailoverService/ChangeRecoveryPoint", Caller: "client/anna", ID: "r-2", Fingerprint: [32]byte{2}}
)

func subjectOf(host string) string { return "host/" + host }

func TestWhatEarlierVersionsStoredIsReadToTheLastField(t *testing.T) {
	s, client := startStore(t)
	earlier(t, client, unchanged)
	same := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", what, err, diff)
		}
	}
	entry, err := s.Pair(t.Context(), "web")
	same("the pair", drpair.Record{Pair: earlierPair, Operation: &earlierOperation}, entry.Record, err)
	of, _, err := s.Operations(t.Context(), "web", 10, "")
	same("the pair's operations", []drpair.Operation{earlierOperation, earlierFailover}, of, err)
	all, _, err := s.Operations(t.Context(), "", 10, "")
	same("all operations", of, all, err)
	led, _, err := s.Request(t.Context(), secondRequest)
	same("a request", store.RequestRecord{Pair: "web", Operation: earlierOperation.ID}, led, err)
	hosts, err := s.Hosts(t.Context())
	same("the hosts", []store.HostRecord{earlierHost}, hosts, err)
	authority, err := s.Authority(t.Context(), func() (store.AuthorityRecord, error) { return store.AuthorityRecord{}, errors.New("there is one") })
	same("the authority", earlierAuthority, authority, err)
	identity, err := s.Identity(t.Context(), subjectOf("rack1"))
	same("an identity", earlierIdentity, identity, err)
	shown := store.JoinToken{ID: earlierToken.ID, SecretHash: earlierToken.SecretHash, KeyHash: earlierToken.KeyHash}
	token, err := s.JudgeJoinToken(t.Context(), shown, subjectOf, epoch)
	same("a join token", earlierToken, token, err)
	events, _, err := s.AuditEvents(t.Context(), 10, "")
	same("the audit log", []store.AuditEvent{earlierEvent}, events, err)
	present, _, err := s.Present(t.Context())
	if err != nil || len(present) != 2 {
		t.Fatalf("present: %+v, %v", present, err)
	}
	same("a control plane", &earlierPlane, present[0].ControlPlane, nil)
	session := store.HeldSession{Session: store.Session{Host: "rack1", Number: uint64(present[1].Revision)}, Holder: "plane-1", Time: epoch}
	same("a session", &session, present[1].Session, nil)

	var protected *store.AlreadyProtectedError
	if _, err := s.Create(t.Context(), recordOf("other", earlierPair.Main.UUID), store.RequestKey{}); err != nil {
		t.Errorf("another host's server of that UUID: %v", err)
	}
	taken := recordOf("taken", earlierPair.Main.UUID)
	taken.Pair.Main.Host = earlierPair.Main.Host
	if _, err := s.Create(t.Context(), taken, store.RequestKey{}); !errors.As(err, &protected) || protected.Pair != "web" {
		t.Errorf("the server is protected by web, and yet: %v", err)
	}
	if cached, ok := startCache(t, s).Get("web"); !ok {
		t.Error("the cache has no such pair")
	} else {
		same("the pair in the cache", entry.Record, cached.Record, nil)
	}
}

// Everything that reads a value is tried, also what reads it to change it.
func TestWhatANewerVersionStoredIsRefusedAndLeftAsItWas(t *testing.T) {
	s, client := startStore(t)
	keys := earlier(t, client, func(value string) string { return strings.Replace(value, `{"version":1,`, `{"version":2,`, 1) })
	stored := func() (values []string) {
		for _, key := range keys {
			response, err := client.Get(t.Context(), key)
			if err != nil || len(response.Kvs) != 1 {
				t.Fatalf("%s: %v", key, err)
			}
			values = append(values, string(response.Kvs[0].Value))
		}
		return values
	}
	before := stored()
	shown := store.JoinToken{ID: earlierToken.ID, SecretHash: earlierToken.SecretHash, KeyHash: earlierToken.KeyHash}
	for what, try := range map[string]func() error{
		"the pair":       func() error { _, err := s.Pair(t.Context(), "web"); return err },
		"the cache":      func() error { return store.NewCache(s, clock.System, testLog(t)).Run(t.Context()) },
		"a mark":         func() error { _, err := s.MarkRestored(t.Context()); return err },
		"an operation":   func() error { _, err := s.Operation(t.Context(), earlierOperation.ID); return err },
		"operations":     func() error { _, _, err := s.Operations(t.Context(), "", 10, ""); return err },
		"a pair's":       func() error { _, _, err := s.Operations(t.Context(), "web", 10, ""); return err },
		"a request":      func() error { _, _, err := s.Request(t.Context(), firstRequest); return err },
		"the hosts":      func() error { _, err := s.Hosts(t.Context()); return err },
		"the authority":  func() error { _, err := s.Authority(t.Context(), nil); return err },
		"an identity":    func() error { _, err := s.Identity(t.Context(), subjectOf("rack1")); return err },
		"a revocation":   func() error { _, err := s.Revoke(t.Context(), subjectOf("rack1"), epoch); return err },
		"a renewal":      func() error { _, err := s.Admit(t.Context(), subjectOf("rack1")); return err },
		"an enrolment":   func() error { _, err := s.Enroll(t.Context(), shown, subjectOf, epoch); return err },
		"the audit log":  func() error { _, _, err := s.AuditEvents(t.Context(), 10, ""); return err },
		"who is present": func() error { _, _, err := s.Present(t.Context()); return err },
		"all identities": func() error { return s.FollowIdentities(t.Context(), func(store.Identity) {}, func() {}) },
		"the same asked for again": func() error {
			_, err := s.Create(t.Context(), recordOf("other", "other"), firstRequest)
			return err
		},
	} {
		var newer *store.VersionError
		if err := try(); !errors.As(err, &newer) || newer.Found != 2 || newer.Known != 1 || !strings.Contains(err.Error(), "newer control plane") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if diff := cmp.Diff(before, stored()); diff != "" {
		t.Error(diff)
	}
}
