package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/enrolment"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/identity"
)

const patience = time.Minute

func TestTheHostAtTheOtherEndIsCutOffWhenTheAssignmentSaysThatItIsRevoked(t *testing.T) {
	authority, err := identity.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	source := func(host string, peers *identity.Peers) *identity.Source {
		made, err := authority.Issue(identity.Grant{ID: identity.Host(host), Generation: 1, Life: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return identity.NewSource(made, peers)
	}
	mainOf := func(least uint64) []*umbrav1.Assignment {
		main := &umbrav1.MainAssignment{ShadowHost: "shadow", ShadowGenerationMin: least}
		return []*umbrav1.Assignment{{DrPair: "p", Role: &umbrav1.Assignment_Main{Main: main}}}
	}
	shadowOf := func(least uint64) []*umbrav1.Assignment {
		shadow := &umbrav1.ShadowAssignment{MainHost: "main", MainGenerationMin: least}
		return []*umbrav1.Assignment{{DrPair: "p", Role: &umbrav1.Assignment_Shadow{Shadow: shadow}}}
	}
	for name, revoke := range map[string]func(main, shadow *identity.Peers, least uint64){
		"the main host":   func(_, shadow *identity.Peers, least uint64) { cutRevoked(shadow, shadowOf(least)) },
		"the shadow host": func(main, _ *identity.Peers, least uint64) { cutRevoked(main, mainOf(least)) },
	} {
		main, shadow := identity.NewPeers(), identity.NewPeers()
		conn := connected(t, source("main", main), source("shadow", shadow))
		revoke(main, shadow, 1)
		if err := check(t, conn); err != nil {
			t.Errorf("%s, not revoked: %v", name, err)
		}
		revoke(main, shadow, 2)
		if err := check(t, conn); err == nil {
			t.Errorf("%s, revoked: it still talks", name)
		}
	}
}

// The whole chain: a control plane's process, three hosts wired as their command does it, TLS between all.
func TestARevokedMainHostIsCutFromAllAtOnceAndReplicatesAgainWhenItHasEnrolledAgain(t *testing.T) {
	s := startSite(t)
	a, b, c := s.newDaemon(t, "a"), s.newDaemon(t, "b"), s.newDaemon(t, "c")
	a.addServer(t)
	c.addServer(t)
	for _, d := range []*daemon{a, b, c} {
		d.live(t, s.token(t, string(d.flags.HostID)))
	}
	s.protect(t, "revoked", "a", "b")
	s.protect(t, "other", "c", "b")
	s.newPoint(t, "revoked")
	s.newPoint(t, "other")

	before := len(b.log.read())
	if _, err := umbrav1.NewIdentityServiceClient(s.api).RevokeHost(soon(t), &umbrav1.RevokeHostRequest{Name: "hosts/a"}); err != nil {
		t.Fatal(err)
	}
	over := b.log.until(t, before, func(text string) bool { return strings.Contains(text, `"replication stream ends" host=b pair=revoked`) })
	a.log.until(t, 0, func(text string) bool { return strings.Contains(text, "no session with the control plane") })
	s.until(t, "revoked", func(p *umbrav1.DRPair) bool {
		return p.GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_MAIN_HOST_UNREACHABLE
	})
	// With what it has it gets nothing any more.
	source := ownSource(t, a)
	controlPlane, err := dialControlPlanes(source, []string{s.address})
	must(t, err)
	defer func() { _ = controlPlane.Close() }()
	key, err := identity.NewKey()
	must(t, err)
	request, err := key.Request()
	must(t, err)
	_, err = umbrav1.NewIdentityServiceClient(controlPlane).RenewCertificate(soon(t), &umbrav1.RenewCertificateRequest{CertificateSigningRequest: request})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("renewing: %v", err)
	}
	shadow, err := dialHost(source, "b", b.flags.DataListen)
	must(t, err)
	defer func() { _ = shadow.Close() }()
	if err := check(t, shadow.GRPC()); status.Code(err) != codes.Unavailable {
		t.Errorf("dialling the shadow host: %v", err)
	}
	// The other pair has gone on all the while, on the stream that it had.
	s.newPoint(t, "other")
	since := b.log.read()
	if strings.Contains(since[before:], "pair=other") {
		t.Errorf("the other pair's stream was touched: %s", since[before:])
	}
	if strings.Contains(since[over:], `"replication stream begins" host=b pair=revoked`) {
		t.Errorf("a revoked host has a stream again: %s", since[over:])
	}

	a.stop()
	a.live(t, s.token(t, "a"))
	s.newPoint(t, "revoked")
}

// ownSource is what a daemon that has ended, or is cut off, shows of itself.
func ownSource(t *testing.T, d *daemon) *identity.Source {
	t.Helper()
	d.stop()
	kept, err := journal.Open(d.flags.StateDir)
	must(t, err)
	made, err := enrolment.Open(t.Context(), enrolment.Config{Host: string(d.flags.HostID), Journal: kept})
	must(t, err)
	must(t, kept.Close())
	return identity.NewSource(made, nil)
}

// connected is a connection from the main host to the shadow host.
func connected(t *testing.T, main, shadow *identity.Source) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(shadow.Server(isHost)))
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := dialHost(main, "shadow", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.GRPC()
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}
