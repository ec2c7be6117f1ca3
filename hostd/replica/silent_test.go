package replica_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/transport"
)

func TestAStreamThatSaysNoHelloEnds(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	synctest.Test(t, func(t *testing.T) {
		r, err := replica.New(replica.Config{StoreDir: dir, Clock: clock.System, Log: slog.New(slog.DiscardHandler), Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		srv := transport.NewServer(insecure.NewCredentials(), r.Handle(nil))
		listener := bufconn.Listen(1 << 16)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(listener) }()
		conn, err := grpc.NewClient("passthrough:///shadow", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		silent, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, transport.FullMethod,
			grpc.ForceCodec(raw{}), grpc.CallContentSubtype(raw{}.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var answer []byte
		if err := silent.RecvMsg(&answer); status.Code(err) != codes.DeadlineExceeded || ctx.Err() != nil {
			t.Errorf("the stream ended with %v, %q", err, answer)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
