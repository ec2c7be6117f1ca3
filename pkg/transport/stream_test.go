package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// control is a control message that can be told from others.
func control(n uint64) *umbrav1.MainMessage {
	return &umbrav1.MainMessage{Message: &umbrav1.MainMessage_Hello{Hello: &umbrav1.ReplicationHello{Epoch: n}}}
}

func stored(id string) *umbrav1.ShadowMessage {
	return &umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_PointStored{
		PointStored: &umbrav1.PointStored{RecoveryPoint: id},
	}}
}

// sendClusters sends clusters whose content follows from seed, and returns their description.
func sendClusters(s *transport.MainStream, disk uint32, first uint64, n int, seed uint64) ([]string, error) {
	b := s.NewBuffer(transport.FrameClustersMax)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)})
	sums := make([]transport.Sum, n)
	var sent []string
	for i := range n {
		cluster := b.Data()[i*transport.ClusterBytes:][:transport.ClusterBytes]
		_, _ = random.Read(cluster)
		sums[i] = transport.SumOf(cluster)
		sent = append(sent, describe(disk, first+uint64(i), sums[i]))
	}
	return sent, s.SendClusters(disk, first, sums, b)
}

func describe(disk uint32, cluster uint64, sum transport.Sum) string {
	return fmt.Sprintf("disk %d cluster %d sum %x", disk, cluster, sum.Bytes())
}

// describeAll describes what was received as the sender described it, from the data and not from the sums that came with it.
func describeAll(r transport.Received) []string {
	switch {
	case r.Control != nil:
		return []string{fmt.Sprintf("control %d", r.Control.GetHello().GetEpoch())}
	case r.Zeros != nil:
		return []string{fmt.Sprintf("zeros %d %d %d", r.Zeros.Disk, r.Zeros.First, r.Zeros.Count)}
	}
	var all []string
	for i := range r.Clusters.Sums {
		data := r.Clusters.Data[i*transport.ClusterBytes:][:transport.ClusterBytes]
		all = append(all, describe(r.Clusters.Disk, r.Clusters.First+uint64(i), transport.SumOf(data)))
	}
	return all
}

// collect is a handler that takes everything until the main side closes, and then hands over what of has made of it.
func collect[T any](received chan<- []T, of func(transport.Received) []T) transport.Handler {
	return func(s *transport.ShadowStream) error {
		var all []T
		err := each(s, func(r transport.Received) { all = append(all, of(r)...) })
		if err == nil {
			received <- all
		}
		return err
	}
}

func TestWhatIsSentArrivesOnceAndInOrder(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		received := make(chan []string, 1)
		conn := serve(t, w, collect(received, describeAll))
		rapid.Check(t, func(t *rapid.T) {
			s, err := transport.Open(context.Background(), conn)
			if err != nil {
				t.Fatal(err)
			}
			sent, next := []string(nil), uint64(0)
			for i := range rapid.IntRange(0, 30).Draw(t, "frames") {
				disk := uint32(rapid.IntRange(0, 1).Draw(t, "disk"))
				var what []string
				switch rapid.SampledFrom([]string{"data", "data", "data", "gap", "zeros", "control"}).Draw(t, "kind") {
				case "control":
					what, err = []string{fmt.Sprintf("control %d", i)}, s.SendControl(control(uint64(i)))
				case "zeros":
					what, err = []string{fmt.Sprintf("zeros %d %d 7", disk, next)}, s.SendZeros(disk, next, 7)
				case "gap":
					next += 3
					fallthrough
				default:
					n := rapid.IntRange(1, transport.FrameClustersMax).Draw(t, "clusters")
					what, err = sendClusters(s, disk, next, n, uint64(i))
					next += uint64(n)
				}
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, what...)
			}
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				t.Fatalf("the stream ended with %v", err)
			}
			if got := <-received; fmt.Sprint(got) != fmt.Sprint(sent) {
				t.Fatalf("sent\n%v\nreceived\n%v", sent, got)
			}
		})
	})
}

func TestACopyAtFullSpeedArrivesInLargePiecesAndWhatMakesWayInSmallOnes(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		received := make(chan []int, 1)
		s := openStream(t, serve(t, w, collect(received, func(r transport.Received) []int {
			if r.Clusters == nil {
				return nil
			}
			return []int{len(r.Clusters.Sums)}
		})))
		first := uint64(0)
		send := func(frames, clusters int) {
			t.Helper()
			sums := slices.Repeat([]transport.Sum{transport.SumOf(make([]byte, transport.ClusterBytes))}, clusters)
			for range frames {
				b := s.NewBuffer(clusters)
				clear(b.Data())
				if err := s.SendClusters(0, first, sums, b); err != nil {
					t.Fatal(err)
				}
				first += uint64(clusters)
			}
		}
		send(8, 4)
		send(17, transport.FrameClustersMax)
		if err := s.SendControl(control(1)); err != nil {
			t.Fatal(err)
		}
		send(9, 4)
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		want := []int{16, 16, 128, 128, 16, 16, 16, 4}
		if got := <-received; !slices.Equal(got, want) {
			t.Errorf("the pieces have %v clusters, not %v", got, want)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

func TestDamagedDataEndsTheStreamAndIsNotHandedOn(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		result := make(chan error, 1)
		conn := serve(t, w, func(s *transport.ShadowStream) error {
			r, err := s.Recv()
			if err == nil {
				err = fmt.Errorf("handed on: %v", describeAll(r))
			}
			result <- err
			return err
		})
		s := openStream(t, conn)
		b := s.NewBuffer(2)
		clear(b.Data())
		sums := []transport.Sum{transport.ZeroSum(), transport.ZeroSum()}
		b.Data()[transport.ClusterBytes+77] = 1
		if err := s.SendClusters(0, 5, sums, b); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, transport.ErrChecksum) || !errors.Is(err, transport.ErrFrame) {
			t.Errorf("the shadow side got %v", err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.DataLoss {
			t.Errorf("the main side got %v", err)
		}
	})
}

func TestMessagesFromTheShadowArriveInOrder(t *testing.T) {
	const count = 100
	conn := serve(t, way{}, func(s *transport.ShadowStream) error {
		for i := range count {
			if err := s.Send(stored(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return nil
	})
	s := openStream(t, conn)
	for i := range count {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.GetPointStored().GetRecoveryPoint(); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTheHandlersErrorReachesTheMainSideWhileItSends(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		conn := serve(t, w, func(*transport.ShadowStream) error {
			return status.Error(codes.ResourceExhausted, "enough")
		})
		s := openStream(t, conn)
		for i := uint64(0); ; i++ {
			if _, err := sendClusters(s, 0, i, 1, i); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("sending ended with %v", err)
				}
				break
			}
		}
		if _, err := s.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("receiving ended with %v", err)
		}
	})
}

func TestCancellingEndsTheHandler(t *testing.T) {
	ended := make(chan error, 1)
	conn := serve(t, way{}, func(s *transport.ShadowStream) error {
		err := s.Send(stored("it has begun"))
		if err == nil {
			_, err = s.Recv()
		}
		ended <- err
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := transport.Open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the handler's stream ended with %v", err)
	}
}

func TestASlowHandlerHoldsTheSenderBack(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		release := make(chan struct{})
		conn := serve(t, w, func(*transport.ShadowStream) error {
			<-release
			return nil
		})
		s := openStream(t, conn)
		sent, stuck := make(chan struct{}, 1000), make(chan int, 1)
		go func() {
			for i := range 1000 {
				if _, err := sendClusters(s, 0, uint64(i), 4, 1); err != nil {
					stuck <- i
					return
				}
				sent <- struct{}{}
			}
			stuck <- 1000
		}()
		for range 10 { // some frames always go out
			<-sent
		}
		close(release)
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if n := <-stuck; n == 1000 {
			t.Error("250 MiB went to a handler that received nothing")
		}
	})
}

func TestProtobufServicesWorkBesideIt(t *testing.T) {
	conn := serve(t, way{}, func(s *transport.ShadowStream) error { return s.Send(stored("x")) })
	s := openStream(t, conn)
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	got, err := healthv1.NewHealthClient(conn.GRPC()).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", got, err)
	}
}

func TestALargeControlMessagePassesAndATooLargeOneIsRefused(t *testing.T) {
	nvram := bytes.Repeat([]byte("vars"), transport.ControlBytesMax/4-100)
	got := make(chan []byte, 1)
	conn := serve(t, way{}, func(s *transport.ShadowStream) error {
		r, err := s.Recv()
		got <- r.Control.GetBeginJob().GetNvram()
		return err
	})
	begin := func(nvram []byte) *umbrav1.MainMessage {
		return &umbrav1.MainMessage{Message: &umbrav1.MainMessage_BeginJob{BeginJob: &umbrav1.BeginJob{Nvram: nvram}}}
	}
	s := openStream(t, conn)
	if err := s.SendControl(begin(append(nvram, make([]byte, 1024)...))); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := s.SendControl(begin(nvram)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, nvram) {
		t.Error("it came out different")
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
