package main

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
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
	conn, err := dialAs(main, identity.Host("shadow"), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}
