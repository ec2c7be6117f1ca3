package enrolment_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/enrolment"
	"github.com/umbra-dr/umbra/pkg/identity"
)

func TestAHostEnrolsOnceAndIsItselfAfterARestart(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	first := s.host(t, "a", dir, s.token(t, "a"))
	made, err := first.open(t)
	if err != nil || made.ID() != identity.Host("a") {
		t.Fatalf("enrolled as %v, %v", made, err)
	}
	if err := check(t, s.dial(t, identity.NewSource(made, nil))); err != nil {
		t.Error(err)
	}
	token := first.cfg.Token
	first.end(t)
	for name, with := range map[string]string{"the token of before": token, "no token": ""} {
		next := s.host(t, "a", dir, with)
		again, err := next.open(t)
		if err != nil || !again.NotAfter().Equal(made.NotAfter()) {
			t.Errorf("with %s: %v", name, err)
		}
		next.end(t)
	}
	if _, err := s.host(t, "b", dir, "").open(t); err == nil {
		t.Error("host a's identity was taken for host b's")
	}
}

func TestATokenIsRefusedWhenItIsUsedEndedForAnotherHostOrOfAnotherAuthority(t *testing.T) {
	s := newSite(t)
	used := s.token(t, "a")
	if _, err := s.host(t, "a", t.TempDir(), used).open(t); err != nil {
		t.Fatal(err)
	}
	forB, otherSite := s.token(t, "b"), newSite(t)
	foreign, _, err := otherSite.office.JoinToken(t.Context(), "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	refusals := map[string]string{"replayed": used, "for another host": forB, "unknown here": identity.NewToken(s.authority.Fingerprint()).String()}
	for name, token := range refusals {
		if _, err := s.host(t, "a", t.TempDir(), token).open(t); err == nil {
			t.Errorf("%s: enrolled", name)
		} else if name != "for another host" && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended := s.token(t, "a")
	s.clock.move(time.Hour)
	if _, err := s.host(t, "a", t.TempDir(), ended).open(t); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ended: %v", err)
	}
	// The host does not tell its token to a control plane of another authority: it goes on looking for its own.
	wary := s.host(t, "a", t.TempDir(), foreign.String())
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { _, err := enrolment.Open(ctx, wary.cfg); result <- err }()
	<-wary.cfg.Clock.(*handClock).waits
	cancel()
	if err := <-result; err == nil {
		t.Error("enrolled at a control plane of another authority")
	}
	events, _, err := s.records.AuditEvents(t.Context(), 100, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events {
		if strings.Contains(string(event.Request), "umbra-join") {
			t.Errorf("the audit log holds a token: %s", event.Request)
		}
	}
	if n := len(slices.DeleteFunc(events, func(e store.AuditEvent) bool { return e.Code == codes.OK })); n != 3 {
		t.Errorf("%d refusals are in the audit log", n)
	}
}

func TestATokenThatIsRefusedCostsAHostNothing(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	first := s.host(t, "a", dir, s.token(t, "a"))
	if _, err := first.open(t); err != nil {
		t.Fatal(err)
	}
	first.end(t)
	second := s.host(t, "a", dir, identity.NewToken(s.authority.Fingerprint()).String())
	if _, err := second.open(t); status.Code(err) != codes.PermissionDenied {
		t.Errorf("enrolled with a token that nobody made: %v", err)
	}
	second.end(t)
	made, err := s.host(t, "a", dir, "").open(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t, s.dial(t, identity.NewSource(made, nil))); err != nil {
		t.Errorf("what the host had counts no more: %v", err)
	}
}

func TestACertificateIsRenewedWithANewKeyWhileStreamsGoOn(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	h := s.host(t, "a", dir, s.token(t, "a"))
	made, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	source := identity.NewSource(made, nil)
	conn := s.dial(t, source)
	stream := watch(t, conn)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		enrolment.Keep(ctx, h.cfg, source, conn)
	}()
	hand := h.cfg.Clock.(*handClock)
	if wait := <-hand.waits; wait < 6*day || wait > 8*day {
		t.Errorf("a certificate for 14 days is renewed after %v", wait)
	}
	hand.move(8 * day)
	<-hand.waits // for the next renewal: the one before is done
	renewed := source.Current()
	if renewed == made || sameKey(t, made, renewed) {
		t.Error("the certificate was not renewed, or not with a new key")
	}
	if err := stream.Context().Err(); err != nil {
		t.Errorf("the stream has ended: %v", err)
	}
	if err := check(t, conn); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	if err := check(t, s.dial(t, source)); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	cancel()
	<-ended
	h.end(t)
	again, err := s.host(t, "a", dir, "").open(t)
	if err != nil || !sameKey(t, again, renewed) {
		t.Errorf("after a restart the host has another certificate, error %v", err)
	}
}

func TestARenewalThatFailsIsTriedAgain(t *testing.T) {
	s := newSite(t)
	h := s.host(t, "a", t.TempDir(), s.token(t, "a"))
	made, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	source := identity.NewSource(made, nil)
	conn := s.dial(t, source)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		enrolment.Keep(ctx, h.cfg, source, conn)
	}()
	hand := h.cfg.Clock.(*handClock)
	<-hand.waits
	if err := s.office.Revoke(t.Context(), identity.HostSubject("a")); err != nil {
		t.Fatal(err)
	}
	hand.move(8 * day)
	if wait := <-hand.waits; wait > 10*time.Second {
		t.Errorf("the first new attempt comes after %v", wait)
	}
	if source.Current() != made {
		t.Error("a revoked host got a certificate")
	}
	cancel()
	<-ended
}

func TestARevokedHostIsCutOffAtOnceAndMayEnrolAgain(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	h := s.host(t, "a", dir, s.token(t, "a"))
	made, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	source := identity.NewSource(made, nil)
	conn := s.dial(t, source)
	stream := watch(t, conn)
	if err := s.office.Revoke(t.Context(), identity.HostSubject("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream of a revoked host: %v", err)
	}
	if err := check(t, s.dial(t, source)); status.Code(err) != codes.Unavailable {
		t.Errorf("a new connection of a revoked host: %v", err)
	}
	h.end(t)
	again, err := s.host(t, "a", dir, s.token(t, "a")).open(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t, s.dial(t, identity.NewSource(again, nil))); err != nil {
		t.Errorf("after it enrolled again: %v", err)
	}
	if err := check(t, s.dial(t, source)); status.Code(err) != codes.Unavailable {
		t.Errorf("the certificate of before: %v", err)
	}
}

func TestWhoeverHasAHostsEarlierCertificateIsCutOffWhenItEnrolsAgain(t *testing.T) {
	s := newSite(t)
	thief, err := s.host(t, "a", t.TempDir(), s.token(t, "a")).open(t)
	if err != nil {
		t.Fatal(err)
	}
	stream := watch(t, s.dial(t, identity.NewSource(thief, nil)))
	if _, err := s.host(t, "a", t.TempDir(), s.token(t, "a")).open(t); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the earlier certificate's stream: %v", err)
	}
}

func TestARequestThatIsNoneUsesNoTokenUp(t *testing.T) {
	s := newSite(t)
	token := s.token(t, "a")
	parsed, err := identity.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	conn := s.first(t, parsed)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = umbrav1.NewIdentityServiceClient(conn).Enroll(ctx, &umbrav1.EnrollRequest{Token: token, CertificateSigningRequest: []byte("none")})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a request that is none: %v", err)
	}
	if _, err := s.host(t, "a", t.TempDir(), token).open(t); err != nil {
		t.Error(err)
	}
}
