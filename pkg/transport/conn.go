package transport

import (
	"context"
	"fmt"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Dialer says how shadow hosts are reached. It must not change once it is used; then it is safe for concurrent use.
type Dialer struct {
	// Credentials secure gRPC's connection and every data connection.
	Credentials credentials.TransportCredentials
	// DialContext makes a connection to "host:port". Default: TCP.
	DialContext func(ctx context.Context, address string) (net.Conn, error)
	// OneConnection has disk data travel by gRPC too, as it does to a shadow host that knows no data connections.
	OneConnection bool
	// Options come after the dialer's own, and replace them.
	Options []grpc.DialOption
}

// Conn is the way to one shadow host. Safe for concurrent use.
type Conn struct {
	grpc    *grpc.ClientConn
	dialer  Dialer
	address string
}

// Dial prepares the way to the shadow host at "host:port"; it is reached when a stream is opened.
func (d Dialer) Dial(address string) (*Conn, error) {
	// gRPC need not resolve the name: whoever dials does.
	conn, err := grpc.NewClient("passthrough:///"+address, slices.Concat(dialOptions(), []grpc.DialOption{
		grpc.WithTransportCredentials(d.Credentials), grpc.WithContextDialer(d.dial),
	}, d.Options)...)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", address, err)
	}
	return &Conn{grpc: conn, dialer: d, address: address}, nil
}

func (d Dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	if d.DialContext != nil {
		return d.DialContext(ctx, address)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dialling: %w", err)
	}
	return conn, nil
}

// GRPC is the connection for other services of that host.
func (c *Conn) GRPC() *grpc.ClientConn { return c.grpc }

// Close ends all streams.
func (c *Conn) Close() error {
	if err := c.grpc.Close(); err != nil {
		return fmt.Errorf("closing the connection to %s: %w", c.address, err)
	}
	return nil
}
