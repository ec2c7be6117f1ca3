package peer

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Ask puts a question to a host through the control plane that has its session. Errors: session.ErrNotConnected when the
// host is not there any more, session.ErrElsewhere when the control plane does not answer, the context's.
func (p *Peers) Ask(ctx context.Context, holder, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
	conn := p.conn(holder)
	if conn == nil {
		return nil, fmt.Errorf("asking host %s: %w", host, session.ErrElsewhere)
	}
	response, err := umbrav1.NewPeerServiceClient(conn).Ask(ctx,
		&umbrav1.AskRequest{ControlPlane: holder, Host: host, Query: query}, grpc.MaxCallRecvMsgSize(messageBytesMax))
	switch {
	case err == nil:
		return response.GetAnswer(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("asking host %s: %w", host, context.Cause(ctx))
	case status.Code(err) == codes.NotFound:
		return nil, fmt.Errorf("asking host %s: %w", host, session.ErrNotConnected)
	default:
		return nil, fmt.Errorf("asking host %s: %w: %w", host, session.ErrElsewhere, err)
	}
}

// Ask implements umbrav1.PeerServiceServer.
func (s *Server) Ask(ctx context.Context, request *umbrav1.AskRequest) (*umbrav1.AskResponse, error) {
	if err := s.meant(request.GetControlPlane()); err != nil {
		return nil, err
	}
	answer, err := s.ask(ctx, request.GetHost(), request.GetQuery())
	switch {
	case errors.Is(err, session.ErrNotConnected):
		return nil, status.Errorf(codes.NotFound, "host %s has no session here", request.GetHost())
	case err != nil:
		return nil, status.FromContextError(err).Err()
	}
	return &umbrav1.AskResponse{Answer: answer}, nil
}
