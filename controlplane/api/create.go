package api

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/refusal"
	"github.com/umbra-dr/umbra/controlplane/session"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// refreshTimeout bounds how long a host is waited for to say what it has.
const refreshTimeout = 5 * time.Second

func (s *protectionService) CreateDRPair(ctx context.Context, request *umbrav1.CreateDRPairRequest) (*umbrav1.CreateDRPairResponse, error) {
	record, err := s.wanted(request)
	if err != nil {
		return nil, err
	}
	if request.GetValidateOnly() {
		warnings, err := s.preflight(ctx, &record.Pair)
		if err != nil {
			return nil, err
		}
		return &umbrav1.CreateDRPairResponse{DrPair: s.pair(record), Warnings: warnings}, nil
	}
	response := &umbrav1.CreateDRPairResponse{}
	response.DrPair, err = s.alter(ctx, request, func(key store.RequestKey) (*umbrav1.DRPair, error) {
		warnings, err := s.preflight(ctx, &record.Pair)
		if err != nil {
			return nil, err
		}
		record.Pair.TraceParent = tracing.TraceParent(ctx)
		stored, err := s.Engine.Create(ctx, record, key)
		if err != nil {
			return nil, pairError(record.Pair.ID, err)
		}
		response.Warnings = warnings
		return s.changed(stored)
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// wanted is the record that the request asks for, but for what the main host has to say.
func (s *protectionService) wanted(request *umbrav1.CreateDRPairRequest) (drpair.Record, error) {
	asked := request.GetDrPair()
	main, err := parseName("dr_pair.main.host", hostPrefix, asked.GetMain().GetHost())
	if err != nil {
		return drpair.Record{}, err
	}
	shadow, err := parseName("dr_pair.shadow.host", hostPrefix, asked.GetShadow().GetHost())
	if err != nil {
		return drpair.Record{}, err
	}
	if main == shadow {
		return drpair.Record{}, invalid("dr_pair.shadow.host", "must be another host than dr_pair.main.host, or one failure ends both")
	}
	policy, err := policyFrom(asked.GetPolicy())
	if err != nil {
		return drpair.Record{}, err
	}
	uid, err := uuid.NewRandom()
	if err != nil {
		return drpair.Record{}, internal(err)
	}
	return drpair.New(request.GetDrPairId(), uid.String(),
		drpair.Main{Host: main, Server: asked.GetMain().GetServer()},
		drpair.Shadow{Host: shadow, Server: asked.GetShadow().GetServer()}, policy, s.Clock.Now()), nil
}

// preflight checks against the hosts whether the pair can be protected, and fills in the server's UUID. It returns
// what does not forbid that and should be known.
func (s *protectionService) preflight(ctx context.Context, p *drpair.Pair) ([]*umbrav1.Failure, error) {
	main, err := s.inventory(ctx, p.Main.Host, umbrav1.ErrorReason_ERROR_REASON_MAIN_HOST_UNREACHABLE)
	if err != nil {
		return nil, err
	}
	shadow, err := s.inventory(ctx, p.Shadow.Host, umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE)
	if err != nil {
		return nil, err
	}
	server := serverNamed(main, p.Main.Server)
	if server == nil {
		return nil, notFound(typeServer, serverName(p.Main.Host, p.Main.Server))
	}
	p.Main.UUID = server.GetUuid()
	switch _, err := s.Store.Pair(ctx, p.ID); {
	case err == nil:
		return nil, pairError(p.ID, &store.ExistsError{Pair: p.ID})
	case !errors.Is(err, store.ErrNotFound):
		return nil, pairError(p.ID, err)
	}
	for _, entry := range s.Cache.ByHost(p.Main.Host) {
		if other := entry.Record.Pair; other.Main.Host == p.Main.Host && other.Main.UUID == p.Main.UUID {
			return nil, alreadyProtected(other.ID)
		}
	}
	if err := protectable(p, server); err != nil {
		return nil, err
	}
	return warnings(*p, server, main, shadow, s.Clock.Now()), nil
}

// inventory is what a host has now; what it said last, when it does not answer.
func (s *protectionService) inventory(ctx context.Context, id string, reason umbrav1.ErrorReason) (observed.Host, error) {
	bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := s.Hosts.Refresh(bounded, id); err != nil && !errors.Is(err, session.ErrNotConnected) {
		s.Log.Warn("the host does not say what it has now", "host", id, "error", err)
	}
	host, ok := s.Observed.Host(id)
	switch {
	case !ok:
		return host, notFound(typeHost, hostName(id))
	case host.Inventory == nil:
		return host, refusal.New(codes.Unavailable, reason, refusal.Metadata{"host": hostName(id)}, hostName(id)+" has not said yet what it has: try again in a moment")
	default:
		return host, nil
	}
}

func serverNamed(host observed.Host, name string) *umbrav1.Server {
	for _, server := range host.Inventory.GetServers() {
		if server.GetName() == name {
			return server
		}
	}
	return nil
}

// protectable refuses a server that replication can do nothing with.
func protectable(p *drpair.Pair, server *umbrav1.Server) error {
	name := serverName(p.Main.Host, p.Main.Server)
	refuse := func(message string) error {
		return precondition(umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_PROTECTABLE, name, refusal.Metadata{"server": name}, message,
			resourceInfo(typeServer, name, "It cannot be protected."))
	}
	for _, condition := range server.GetConditions() {
		if condition.GetType() == "CanBeProtected" && condition.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_FALSE {
			return refuse(name + " cannot be protected: " + condition.GetMessage())
		}
	}
	if len(server.GetDisks()) == 0 {
		return refuse(name + " has no disk to protect")
	}
	return nil
}
