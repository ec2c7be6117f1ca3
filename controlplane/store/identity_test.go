package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/store"
)

func subject(host string) string { return "host/" + host }

func putToken(t *testing.T, s *store.Store, id, host string) store.JoinToken {
	t.Helper()
	token := store.JoinToken{ID: id, SecretHash: [32]byte{1}, Host: host, ExpireTime: epoch.Add(time.Hour)}
	if err := s.PutJoinToken(t.Context(), token, epoch); err != nil {
		t.Fatal(err)
	}
	return token
}

func shown(id string, secret, key byte) store.JoinToken {
	return store.JoinToken{ID: id, SecretHash: [32]byte{secret}, KeyHash: [32]byte{key}}
}

func TestAJoinTokenIsGoodForOneKeyUntilItEnds(t *testing.T) {
	s, _ := startStore(t)
	putToken(t, s, "aa", "a")
	enroll := func(token store.JoinToken, after time.Duration) (store.JoinToken, error) {
		return s.Enroll(t.Context(), token, subject, epoch.Add(after))
	}
	for name, c := range map[string]struct {
		token store.JoinToken
		after time.Duration
	}{
		"unknown":      {shown("bb", 1, 1), 0},
		"wrong secret": {shown("aa", 2, 1), 0},
		"too late":     {shown("aa", 1, 1), time.Hour},
	} {
		if _, err := enroll(c.token, c.after); !errors.Is(err, store.ErrBadJoinToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 { // the answer may have been lost
		if got, err := enroll(shown("aa", 1, 1), time.Hour-1); err != nil || got.Host != "a" || got.Generation != 1 {
			t.Fatalf("enrolled %+v, %v", got, err)
		}
	}
	if _, err := enroll(shown("aa", 1, 2), 0); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("replayed with another key: %v", err)
	}
	if _, err := enroll(shown("aa", 1, 1), time.Hour); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("repeated after its end: %v", err)
	}
	putToken(t, s, "cc", "a")
	if got, err := enroll(shown("cc", 1, 3), 0); err != nil || got.Generation != 2 {
		t.Errorf("enrolled again as %+v, %v", got, err)
	}
	if _, err := enroll(shown("aa", 1, 1), 0); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("repeated after another enrolment of the host: %v", err)
	}
}

func TestOfManyThatUseATokenAtOnceOneSucceeds(t *testing.T) {
	s, _ := startStore(t)
	putToken(t, s, "aa", "a")
	var work sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		work.Go(func() {
			_, results[i] = s.Enroll(context.Background(), shown("aa", 1, byte(i)), subject, epoch)
		})
	}
	work.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrBadJoinToken) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d enrolled", won)
	}
}

func TestARevocationCountsForEverythingBeforeItAndNothingAfter(t *testing.T) {
	s, _ := startStore(t)
	if _, err := s.Identity(t.Context(), "host/a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown identity: %v", err)
	}
	if got, err := s.Revoke(t.Context(), "host/a", epoch); err != nil || got.Least != 1 {
		t.Errorf("revoked before it enrolled: %+v, %v", got, err)
	}
	putToken(t, s, "aa", "a")
	enrolled, err := s.Enroll(t.Context(), shown("aa", 1, 1), subject, epoch)
	if err != nil || enrolled.Generation != 1 {
		t.Fatalf("enrolled %+v, %v", enrolled, err)
	}
	for range 2 {
		if got, err := s.Revoke(t.Context(), "host/a", epoch); err != nil || got.Least != 2 || got.Generation != 1 {
			t.Errorf("revoked: %+v, %v", got, err)
		}
	}
	if _, err := s.Enroll(t.Context(), shown("aa", 1, 1), subject, epoch); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("enrolled with a token whose certificate was revoked: %v", err)
	}
	for range 2 { // one client, two certificates
		if got, err := s.Admit(t.Context(), "client/ann"); err != nil || got.Generation != 1 || got.Least != 0 {
			t.Errorf("admitted: %+v, %v", got, err)
		}
	}
	if _, err := s.Revoke(t.Context(), "client/ann", epoch); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Admit(t.Context(), "client/ann"); err != nil || got.Generation != 2 || got.Least != 2 {
		t.Errorf("admitted again: %+v, %v", got, err)
	}
}

func TestWhoFollowsIdentitiesIsToldAllAndThenWhatChanges(t *testing.T) {
	s, _ := startStore(t)
	if _, err := s.Admit(t.Context(), "client/ann"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, complete, ended := make(chan store.Identity, 10), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.FollowIdentities(ctx, func(i store.Identity) { told <- i }, func() { close(complete) })
	}()
	<-complete
	if first := <-told; first.Subject != "client/ann" || len(told) != 0 {
		t.Errorf("told %+v first", first)
	}
	if _, err := s.Revoke(t.Context(), "host/a", epoch); err != nil {
		t.Fatal(err)
	}
	if next := <-told; next.Subject != "host/a" || next.Least != 1 {
		t.Errorf("told %+v next", next)
	}
	cancel()
	<-ended
}

func TestControlPlanesThatStartTogetherGetOneAuthority(t *testing.T) {
	s, _ := startStore(t)
	var work sync.WaitGroup
	results := make([]store.AuthorityRecord, 4)
	for i := range results {
		work.Go(func() {
			var err error
			results[i], err = s.Authority(context.Background(), func() (store.AuthorityRecord, error) {
				return store.AuthorityRecord{Key: []byte{byte(i)}}, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	for _, got := range results {
		if string(got.Key) != string(results[0].Key) {
			t.Errorf("authorities %v", results)
		}
	}
}

func TestAuditEventsAreCompletedOnceAndListedNewestFirst(t *testing.T) {
	s, _ := startStore(t)
	var ids []string
	for i := range 5 {
		event := store.AuditEvent{ID: store.NewAuditID(epoch.Add(time.Duration(i) * time.Second)), Caller: "ann"}
		ids = append(ids, event.ID)
		revision, err := s.AppendAudit(t.Context(), event)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendAudit(t.Context(), event); !errors.Is(err, store.ErrConflict) {
			t.Errorf("appended twice: %v", err)
		}
		event.Code = codes.NotFound
		if err := s.CompleteAudit(t.Context(), event, revision); err != nil {
			t.Fatal(err)
		}
		event.Code = codes.Aborted
		if err := s.CompleteAudit(t.Context(), event, revision); !errors.Is(err, store.ErrConflict) {
			t.Errorf("completed twice: %v", err)
		}
	}
	token, left := "", ids
	for {
		page, next, err := s.AuditEvents(t.Context(), 2, token)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range page {
			if want := left[len(left)-1]; event.ID != want || event.Code != codes.NotFound {
				t.Errorf("listed %+v, expected %s", event, want)
			}
			left = left[:len(left)-1]
		}
		if token = next; token == "" {
			break
		}
	}
	if len(left) != 0 {
		t.Errorf("%v are not listed", left)
	}
	if _, _, err := s.AuditEvents(t.Context(), 2, "no/token"); !errors.Is(err, store.ErrBadToken) {
		t.Errorf("a bad token: %v", err)
	}
}
