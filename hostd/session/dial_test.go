package session_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/session"
)

// doorkeeper welcomes every host, or sends it away.
type doorkeeper struct {
	umbrav1.UnimplementedHostSessionServiceServer
	welcomes bool
}

func (d doorkeeper) Session(stream umbrav1.HostSessionService_SessionServer) error {
	if !d.welcomes {
		return status.Error(codes.Unavailable, "not here")
	}
	return stream.Send(&umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Welcome{Welcome: &umbrav1.SessionWelcome{}}})
}

func TestAHostThatOneControlPlaneSendsAwayGetsToTheOther(t *testing.T) {
	listeners := map[string]*bufconn.Listener{}
	for address, welcomes := range map[string]bool{"one:1": false, "two:1": true} {
		listener, server := bufconn.Listen(1<<16), grpc.NewServer()
		listeners[address] = listener
		umbrav1.RegisterHostSessionServiceServer(server, doorkeeper{welcomes: welcomes})
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		t.Cleanup(func() {
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	conn, err := session.Dial([]string{"one:1", "nobody:1", "two:1"}, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if listener := listeners[address]; listener != nil {
				return listener.DialContext(ctx)
			}
			return nil, net.ErrClosed
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		stream, err := umbrav1.NewHostSessionServiceClient(conn).Session(ctx, grpc.WaitForReady(true))
		if err == nil {
			var response *umbrav1.SessionResponse
			if response, err = stream.Recv(); response.GetWelcome() != nil {
				return
			}
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
}
