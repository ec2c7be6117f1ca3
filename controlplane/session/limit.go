package session

import (
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// How often a host may begin a session with this control plane: each costs writes in etcd, and has its pairs evaluated. hostd, whose
// sessions end at once, dials some ten times in its first ten seconds and then every five, so it is never refused.
const (
	beginEvery = time.Second
	beginBurst = 60
)

// mayBegin counts a session that a host is about to begin. The error is a status that says when to try again.
func (s *Server) mayBegin(host string) error {
	s.mu.Lock()
	limit := s.limits[host]
	if limit == nil { // there are no more than there are hosts with a certificate
		limit = rate.NewLimiter(rate.Every(beginEvery), beginBurst)
		s.limits[host] = limit
	}
	s.mu.Unlock()
	if limit.AllowN(s.Clock.Now(), 1) {
		return nil
	}
	refused := status.New(codes.ResourceExhausted, "the host begins sessions too often: either they end at once, or two hostds run with one identity")
	detailed, err := refused.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(beginEvery)})
	if err != nil {
		return refused.Err()
	}
	return detailed.Err()
}
