package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/umbra-dr/umbra/pkg/identity"
)

const (
	// peerRedialMax is the longest pause between attempts to reach another control plane.
	peerRedialMax      = 2 * time.Second
	peerConnectTimeout = 10 * time.Second
)

// peerAddress is where other control planes reach this one: what the flags say, or the address that is listened at, with
// the machine's name in place of none. Empty if they cannot.
func peerAddress(f flags) string {
	if f.PeerAddr != "" || f.Listen == "" {
		return f.PeerAddr
	}
	host, port, err := net.SplitHostPort(f.Listen)
	if err != nil {
		return f.Listen
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return f.Listen
	}
	name, err := os.Hostname()
	if err != nil {
		return f.Listen
	}
	return net.JoinHostPort(name, port)
}

// dialPeer dials other control planes.
func dialPeer(own *identity.Source) func(address string) (*grpc.ClientConn, error) {
	return func(address string) (*grpc.ClientConn, error) {
		secure, err := own.Dial(identity.ControlPlane())
		if err != nil {
			return nil, err
		}
		again := backoff.DefaultConfig
		again.MaxDelay = peerRedialMax
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(secure),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: peerConnectTimeout}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
		if err != nil {
			return nil, fmt.Errorf("dialling the control plane at %s: %w", address, err)
		}
		return conn, nil
	}
}
