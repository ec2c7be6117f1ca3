package nbd

import (
	"context"
	"fmt"
	"net"
)

// Dial connects, negotiates and returns a Client that is ready to read. The context bounds Dial only; it has no
// influence on the Client afterwards.
//
// Errors: ErrInvalidConfig, ErrProtocol, ErrDisconnected, a *NegotiationError when the server refuses the export, the
// context's error, or that of the connection attempt.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("nbd: connect: %w", err)
	}
	client, err := newClient(ctx, conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("nbd: open export %q at %s: %w", cfg.Export, cfg.Address, err)
	}
	return client, nil
}

// newClient negotiates on conn, which it owns from here on, and starts the Client.
func newClient(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.Close() // the negotiation, if still under way, notices
	})
	export, err := negotiate(conn, cfg)
	if !stop() {
		<-interrupted
		return nil, fmt.Errorf("negotiate: %w", ctx.Err())
	}
	if err != nil {
		_ = conn.Close() // the negotiation's error is the one that matters
		return nil, err
	}
	client := prepareClient(conn, export, cfg.inFlightMax())
	client.run()
	return client, nil
}
