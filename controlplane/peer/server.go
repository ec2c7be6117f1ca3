package peer

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/umbra-dr/umbra/controlplane/observed"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Server implements umbrav1.PeerServiceServer: it tells the others what the hosts report here.
type Server struct {
	umbrav1.UnimplementedPeerServiceServer
	cfg Config
	ask func(ctx context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error)
}

// Server makes the server. ask puts a question to a host that has its session here; without one it returns
// session.ErrNotConnected.
func (p *Peers) Server(ask func(ctx context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error)) *Server {
	return &Server{cfg: p.Config, ask: ask}
}

// meant refuses what was meant for an earlier life at the same address.
func (s *Server) meant(id string) error {
	if self := s.cfg.ControlPlanes.Self(); id != self {
		return status.Errorf(codes.FailedPrecondition, "this is control plane %s, not %s", self, id)
	}
	return nil
}

// Observe implements umbrav1.PeerServiceServer. What the caller is too slow for coalesces.
func (s *Server) Observe(request *umbrav1.ObserveRequest, stream umbrav1.PeerService_ObserveServer) error {
	if err := s.meant(request.GetControlPlane()); err != nil {
		return err
	}
	reports, inventories := s.cfg.Observed.Pairs().Subscribe(), s.cfg.Observed.Inventories().Subscribe()
	defer reports.Close()
	defer inventories.Close()
	beat := s.cfg.Clock.NewTicker(s.cfg.Beat)
	defer beat.Stop()
	news := &batch{stream: stream}
	for _, host := range s.cfg.Observed.List() {
		s.addInventory(news, host.ID)
	}
	pairs := s.cfg.Observed.Reported()
	for {
		for _, pair := range pairs {
			s.addReports(news, pair)
		}
		if err := news.flush(); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-beat.C:
		}
		for _, host := range inventories.Take() {
			s.addInventory(news, host)
		}
		pairs = reports.Take()
	}
}

// here is what is known of a host that has its session here.
func (s *Server) here(host string) (observed.Host, bool) {
	known, _ := s.cfg.Observed.Host(host)
	return known, known.Connected && known.Holder == s.cfg.ControlPlanes.Self()
}

func (s *Server) addInventory(news *batch, host string) {
	if known, here := s.here(host); here && known.Inventory != nil {
		news.add(&umbrav1.Observation{
			Host: host, Session: known.Session, ReceiveTime: timestamppb.New(known.ReportTime),
			What: &umbrav1.Observation_Inventory{Inventory: known.Inventory},
		})
	}
}

func (s *Server) addReports(news *batch, pair string) {
	add := func(host string, session uint64, at time.Time, report *umbrav1.AssignmentReport) {
		if known, here := s.here(host); here && known.Session == session {
			news.add(&umbrav1.Observation{
				Host: host, Session: session, ReceiveTime: timestamppb.New(at), What: &umbrav1.Observation_Report{Report: report},
			})
		}
	}
	if main, ok := s.cfg.Observed.Main(pair); ok {
		add(main.Host, main.Session, main.Time, &umbrav1.AssignmentReport{
			DrPair: pair, DrPairUid: main.UID, Generation: main.Generation, Epoch: main.Epoch,
			Role: &umbrav1.AssignmentReport_Main{Main: main.Report},
		})
	}
	if shadow, ok := s.cfg.Observed.Shadow(pair); ok {
		add(shadow.Host, shadow.Session, shadow.Time, &umbrav1.AssignmentReport{
			DrPair: pair, DrPairUid: shadow.UID, Generation: shadow.Generation, Epoch: shadow.Epoch,
			Role: &umbrav1.AssignmentReport_Shadow{Shadow: shadow.Report},
		})
	}
}

// batch gathers observations into messages of a bounded size.
type batch struct {
	stream  umbrav1.PeerService_ObserveServer
	message *umbrav1.ObserveResponse // nil: nothing is gathered
	bytes   int
	err     error // why nothing can be sent any more
}

func (b *batch) add(observation *umbrav1.Observation) {
	size := proto.Size(observation)
	if b.bytes+size > batchBytesMax {
		b.send()
	}
	if b.message == nil {
		b.message = &umbrav1.ObserveResponse{}
	}
	b.message.Observations = append(b.message.Observations, observation)
	b.bytes += size
}

func (b *batch) send() {
	if b.message != nil && b.err == nil {
		b.err = b.stream.Send(b.message)
	}
	b.message, b.bytes = nil, 0
}

// flush sends what has been gathered, and tells whether everything was sent so far.
func (b *batch) flush() error {
	b.send()
	return b.err
}
